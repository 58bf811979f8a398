"""The index of keys: rows are where they say, whatever stands twice, in parts, or agrees in its first half."""

import hashlib

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.store.key_index import KeyIndex


def key(number: int) -> str:
    """Keys that share their first 64 bits with others, and some that are no hash."""
    if number % 7 == 6:
        return f"no-hash-{number}"
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return hashlib.sha256(str(number // 3).encode()).hexdigest()[:16] + digest[16:]


def is_hash(text: str) -> bool:
    return not text.startswith("no")


numbers = st.lists(st.integers(0, 40), max_size=30)


@given(parts=st.lists(numbers, max_size=5), asked=numbers)
def test_places_parts_and_repeats_are_those_of_a_plain_search(parts: list[list[int]], asked: list[int]) -> None:
    listed = [[key(number) for number in part] for part in parts]
    rows = [text for part in listed for text in part]
    part_of = [number for number, part in enumerate(listed) for _ in part]
    index = KeyIndex(pl.Series("key", part, dtype=pl.String) for part in listed)
    assert (len(index), index.num_parts) == (len(rows), len(parts))

    looked_up = [key(number) for number in asked]
    pairs = index.places(pl.Series(looked_up, dtype=pl.String))
    same = {(at, row) for at, one in enumerate(looked_up) for row, two in enumerate(rows) if one == two and is_hash(one)}
    assert len(pairs) == len(same) and set(pairs.iter_rows()) == same
    assert index.parts(pairs["row"]).to_list() == [part_of[row] for row in pairs["row"]]

    groups: dict[int, list[str]] = {}
    for row, group in index.repeated.iter_rows():
        groups.setdefault(group, []).append(rows[row])
    assert all(len(set(texts)) == 1 and len(texts) == rows.count(texts[0]) > 1 for texts in groups.values())
    assert {texts[0] for texts in groups.values()} == {text for text in rows if rows.count(text) > 1 and is_hash(text)}


def test_an_index_can_be_empty() -> None:
    index = KeyIndex([])
    assert (len(index), index.num_parts, len(index.repeated)) == (0, 0, 0)
    assert index.places(pl.Series(["a" * 64])).is_empty()
