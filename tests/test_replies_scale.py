"""The reply store when things go wrong: kills, torn and flipped bytes, full disks, many writers; and its views."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from recontext_data.core.errors import StoreError
from recontext_data.store import segments, upkeep
from recontext_data.store.key_index import KeyIndex
from recontext_data.store.replies import ReplyStore
from tests.store_children import GROUP, START, child, kill, leave, replies, stored, text

WRITER = (
    START
    + """
with ReplyStore(folder, roll_bytes=int(sys.argv[3]), merge_above=4) as store:
    for number in range(int(sys.argv[4])):
        store.append(replies(group(number)))
        print(number, flush=True)
"""
)


def test_kill_at_random_moments_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(20261121)
    acknowledged: list[str] = []
    sent_more = 0
    for turn in range(22):
        # Every other round rolls after a few groups, so that kills also hit sealing and merging.
        process = child(WRITER, tmp_path, f"w{turn}", 20_000 if turn % 2 else 10**9, 10**6)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(dice.uniform(0, 0.12))
        done = [int(line) for line in (first + kill(process)).splitlines()]
        assert done == list(range(len(done)))
        assert done, "a round in which nothing was acknowledged proves nothing"
        acknowledged += [f"w{turn}-{number}-{place}" for number in done for place in range(GROUP)]
        beyond = [f"w{turn}-{number}-{place}" for number in range(len(done), len(done) + 3) for place in range(GROUP)]
        sent_more = len(stored(tmp_path, beyond))
        assert sent_more <= GROUP, "one group at most was under way"
    with ReplyStore(tmp_path) as store:
        assert len(store.find(pl.Series(acknowledged))) == len(acknowledged)
        assert store.warnings == [], "a kill tears a tail and damages nothing"
    found = stored(tmp_path, acknowledged)
    assert found == {key: text(key) for key in acknowledged}
    assert not list(tmp_path.glob("journal-*.jsonl")), "the last writer sealed what the killed ones left"
    assert not list(tmp_path.glob(".*.tmp"))


def test_four_writers_at_once(tmp_path: Path) -> None:
    processes = [child(WRITER, tmp_path, f"w{i // 2}", 30_000, 30) for i in range(4)]  # two pairs buy the same
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    for process in processes:
        process.communicate()
    keys = [f"w{name}-{number}-{place}" for name in range(2) for number in range(30) for place in range(GROUP)]
    assert stored(tmp_path, keys) == {key: text(key) for key in keys}
    assert upkeep.summary(ReplyStore(tmp_path)).replies == len(keys)
    assert all(found.wrong is None for found in upkeep.check(ReplyStore(tmp_path)))


def test_a_tail_torn_at_any_byte_costs_the_last_reply_alone(tmp_path: Path) -> None:
    journal = leave(tmp_path, ["a", "b", "c"])
    whole = journal.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) + 1):
        journal.write_bytes(whole[:cut])
        store = ReplyStore(tmp_path)
        there = sorted(store.find(pl.Series(["a", "b", "c"]))["key"])
        assert there == (["a", "b", "c"] if cut >= len(whole) - 1 else ["a", "b"]), cut
        assert store.warnings == []
    journal.write_bytes(whole[: last + 40])
    with ReplyStore(tmp_path) as store:
        assert store.warnings == []
    assert stored(tmp_path, ["a", "b", "c"]) == {"a": text("a"), "b": text("b")}


def test_any_flipped_bit_costs_one_reply_at_most_and_is_said(tmp_path: Path) -> None:
    dice = random.Random(7)
    keys = ["a", "b", "c"]
    journal = leave(tmp_path, keys)
    whole = journal.read_bytes()
    kept_all = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << dice.randrange(8)
        journal.write_bytes(flipped)
        store = ReplyStore(tmp_path)
        found = store.find(pl.Series(keys))
        assert set(zip(found["key"], found["completion"], strict=True)) <= {(key, text(key)) for key in keys}
        assert len(found) >= 2
        kept_all += len(found) == 3
        if len(found) == 2:
            assert len(store.warnings) == 1 and journal.name in store.warnings[0], place
    assert kept_all == 3, "only the three newlines can be flipped without loss"


def test_a_damaged_line_is_set_aside_and_named_once(tmp_path: Path) -> None:
    journal = leave(tmp_path, ["a", "b", "c"])
    first, second, third, _ = journal.read_bytes().split(b"\n")
    spoilt = second.replace(b"b b b", b"b x b", 1)
    journal.write_bytes(b"\n".join([first, spoilt, third, b""]))
    with ReplyStore(tmp_path) as store:
        pass
    aside = journal.with_name(journal.name.replace("journal-", "damaged-"))
    assert aside.read_bytes() == spoilt + b"\n"
    assert store.warnings == [f"{journal}: 1 line is damaged and set aside in {aside.name}; what stood there is sampled again"]
    assert sorted(stored(tmp_path, ["a", "b", "c"])) == ["a", "c"]
    with ReplyStore(tmp_path) as again:
        assert again.warnings == []


def test_a_flipped_bit_anywhere_in_a_segment_is_found_out(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        store.append(replies([f"k{i}" for i in range(200)]))
    segment = next(tmp_path.glob("segment-*"))
    whole = segment.read_bytes()
    dice, keys = random.Random(3), pl.Series(["k1"])
    for place in [0, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(60))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << dice.randrange(8)
        segment.write_bytes(flipped)
        for look in (lambda: ReplyStore(tmp_path).find(keys), lambda: ReplyStore(tmp_path).which(KeyIndex([keys]))):
            with pytest.raises(StoreError, match=r"segment-\w+\.parquet: is damaged; `python -m recontext_data.replies check`"):
                look()
    segment.write_bytes(whole[: len(whole) // 2])
    with ReplyStore(tmp_path) as store:
        store.append(replies(["later"]))
    wrong = [found.name for found in upkeep.check(ReplyStore(tmp_path)) if found.wrong]
    assert wrong == [segment.name]
    assert (tmp_path / segment.name.replace("segment-", "corrupt-")).exists()
    assert stored(tmp_path, ["k1", "later"]) == {"later": text("later")}


def test_the_same_rows_make_the_same_segment(tmp_path: Path) -> None:
    rows = [{"key": f"k{i:05}", "completion": str(i), "written": float(i)} for i in range(40_000)]
    frame = pl.DataFrame(rows, schema=segments.schema())
    names = {
        path.name
        for order in (frame, frame.reverse(), frame.sample(fraction=1, shuffle=True, seed=1))
        if (path := segments.write(order, tmp_path, temporary=".x.tmp"))
    }
    assert len(names) == 1
    assert segments.intact(tmp_path / names.pop())


LIMITED = (
    START
    + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    with ReplyStore(folder) as store:
        for number in range(10**6):
            store.append(replies(group(number)))
            print(number, flush=True)
except StoreError as error:
    print(error, flush=True)
"""
)


def test_a_write_that_stops_half_way_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    *done, message = child(LIMITED, tmp_path, "w").communicate(timeout=30)[0].splitlines()
    assert "cannot be written: File too large" in message
    journal = next(tmp_path.glob("journal-*.jsonl"))
    assert journal.stat().st_size < 50_000, "the short write was taken back"
    assert journal.read_bytes().endswith(b"}\n")
    keys = [f"w-{number}-{place}" for number in range(len(done) + 1) for place in range(GROUP)]
    with ReplyStore(tmp_path) as store:
        assert store.warnings == []
    assert stored(tmp_path, keys) == {key: text(key) for key in keys[: GROUP * len(done)]}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("only root can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_stops_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400k") as disk:
        folder, filler = disk / "replies", disk / "filler"
        filler.write_bytes(b"x" * 150_000)
        done = 0
        with (
            pytest.raises(StoreError, match="No space left on device; what was there is still there"),
            ReplyStore(folder) as store,
        ):
            while True:
                store.append(replies([f"{done}-{place}" for place in range(GROUP)]))
                done += 1
        keys = [f"{number}-{place}" for number in range(done) for place in range(GROUP)]
        assert done > 5
        assert stored(folder, keys) == {key: text(key) for key in keys}
        # Sealing needs room too. The next build says so in a line, and the journal is still there.
        with pytest.raises(StoreError, match="No space left on device; what was there is still there"), ReplyStore(folder):
            pass
        assert len(list(folder.glob("journal-*.jsonl"))) == 1
        assert stored(folder, keys) == {key: text(key) for key in keys}
        filler.unlink()
        with ReplyStore(folder):
            pass
        assert stored(folder, keys) == {key: text(key) for key in keys}
        assert [path.suffix for path in folder.iterdir() if not path.name.startswith(".")] == [".parquet"], "sealed"


def test_a_journal_removed_under_its_writer_is_no_acknowledgement(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="was removed while a build was writing to it"), ReplyStore(tmp_path) as store:
        store.append(replies(["a"]))
        next(tmp_path.glob("journal-*.jsonl")).unlink()
        store.append(replies(["b"]))


def test_a_long_journal_is_sealed_on_the_way(tmp_path: Path) -> None:
    with ReplyStore(tmp_path, roll_bytes=1000) as store:
        for number in range(5):
            store.append(replies([f"{number}-{place}" for place in range(5)]))
            assert not list(tmp_path.glob("journal-*")), "longer than the limit, and sealed"
        assert len(store.find(pl.Series(["0-0", "4-4", "no"]))) == 2
    assert len(list(tmp_path.glob("segment-*"))) == 5


def test_the_views_show_journals_and_segments(tmp_path: Path) -> None:
    import duckdb

    odd = tmp_path / "it's a folder"
    with ReplyStore(odd) as store:
        store.append(replies(["a"]))
    with ReplyStore(odd) as store:
        store.append(replies(["b"]), asked=lambda key: {"k": 3, "prompt": key})
        assert sorted(store.scan().select("key").collect()["key"]) == ["a", "b"]
        connection = duckdb.connect()
        store.duckdb_view(connection, name='odd "name"')
        rows = connection.sql('SELECT key, completion, asked FROM "odd ""name""" ORDER BY key').fetchall()
        assert rows == [("a", text("a"), None), ("b", text("b"), '{"k":3,"prompt":"b"}')]
    connection = duckdb.connect()
    ReplyStore(tmp_path / "nothing").duckdb_view(connection)
    assert connection.sql("SELECT count(*) FROM replies").fetchall() == [(0,)]
    assert ReplyStore(tmp_path / "nothing").scan().collect().is_empty()
