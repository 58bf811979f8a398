"""Looking up a list of keys in the store: which are there, their replies part by part, and some columns of them."""

import hashlib
from pathlib import Path

import polars as pl
import pytest

from recontext_data.core.records import Reply
from recontext_data.store import replies as module
from recontext_data.store import segments
from recontext_data.store.key_index import KeyIndex
from recontext_data.store.replies import ReplyStore
from tests.store_children import START, child


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def keys(*numbers: int) -> pl.Series:
    return pl.Series("key", [key(number) for number in numbers], dtype=pl.String)


def reply(number: int) -> Reply:
    return Reply(key=key(number), completion=f"said {number}", prompt_tokens=number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Even keys below 40 in segments, some of them in two; 40 and 42 in a journal that its writer has left."""
    for numbers in (range(0, 40, 2), range(0, 10, 2)):
        with ReplyStore(tmp_path) as store:
            store.append([reply(number) for number in numbers])
    store = ReplyStore(tmp_path)
    store.append([reply(40), reply(42)])
    store._leave_journal()
    return tmp_path


PARTS = ((0, 1, 40), (), (2, 2, 0), (7, 9), (38,))


def test_a_list_is_looked_up_part_by_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = KeyIndex(keys(*part) for part in PARTS)
    for sorted_at_once, rows_per_group in ((2048, 16_384), (1, 3)):
        monkeypatch.setattr(module, "SORTED_AT_ONCE", sorted_at_once)
        monkeypatch.setattr(segments, "ROWS_PER_GROUP", rows_per_group)
        store = ReplyStore(folder)
        assert store.which(index).to_list() == [True, False, True, True, True, True, False, False, True]
        found = list(store.find_parts(index))
        assert [sorted(part["completion"]) for part in found] == [
            ["said 0", "said 40"],
            [],
            ["said 0", "said 2"],
            [],
            ["said 38"],
        ]
        assert all(part.schema == store.find(keys()).schema for part in found)
        columns = store.look_up(index, columns=["key", "prompt_tokens"]).unique()
        assert sorted(columns.iter_rows()) == sorted((key(number), number) for number in (0, 2, 38, 40))


def test_where_two_bought_the_same_the_first_counts_in_every_part(tmp_path: Path) -> None:
    for said in ("first", "second"):
        with ReplyStore(tmp_path) as store:
            store.append([Reply(key=key(1), completion=said)])
    parts = list(ReplyStore(tmp_path).find_parts(KeyIndex([keys(1), keys(2), keys(1, 2)])))
    assert [part["completion"].to_list() for part in parts] == [["first"], [], ["first"]]


def test_an_empty_list_and_an_empty_store(tmp_path: Path, folder: Path) -> None:
    nothing, bare = KeyIndex([]), ReplyStore(tmp_path / "bare")
    assert bare.is_empty and not ReplyStore(folder).is_empty
    for store, index in ((ReplyStore(folder), nothing), (bare, nothing), (bare, KeyIndex([keys(1)]))):
        assert not store.which(index).any() and len(store.which(index)) == len(index)
        assert [len(part) for part in store.find_parts(index)] == [0] * index.num_parts
        assert store.look_up(index, columns=["key"]).is_empty()


MERGER = (
    START
    + """
import hashlib
for number in range(100, 140):
    with ReplyStore(folder, merge_above=3) as store:
        store.append(replies([hashlib.sha256(str(number).encode()).hexdigest()]))
"""
)


def test_readers_see_everything_while_others_merge(folder: Path) -> None:
    process = child(MERGER, folder, "w")
    index, reads, store = KeyIndex([keys(0, 1), keys(40)]), 0, ReplyStore(folder)
    while process.poll() is None:
        assert store.which(index).to_list() == [True, False, True]
        assert [len(part) for part in store.find_parts(index)] == [1, 1]
        reads += 1
    process.communicate()
    assert process.returncode == 0 and reads >= 3
