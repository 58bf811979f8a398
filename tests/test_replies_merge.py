"""Merging the reply store's segments: when it happens, under kills, and under readers."""

import random
import time
from pathlib import Path

import polars as pl

from recontext_data.core.records import Reply
from recontext_data.store import segments, upkeep
from recontext_data.store.replies import ReplyStore
from tests.store_children import GROUP, START, child, kill, stored, text


def small_segments(folder: Path, count: int, rows: int) -> list[str]:
    """Many small segments; returns their keys."""
    folder.mkdir(exist_ok=True)
    keys = [f"{number}-{place}" for number in range(count) for place in range(rows)]
    for number in range(count):
        mine = keys[number * rows : (number + 1) * rows]
        frame = pl.DataFrame(
            {"key": mine, "completion": [text(key) for key in mine], "model": "m", "written": 1.0 + number},
        )
        whole = frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None).alias(name)).cast(kind)
            for name, kind in segments.schema().items()
        )
        segments.write(whole, folder, temporary=".test.tmp")
    return keys


def test_many_small_segments_become_one(tmp_path: Path) -> None:
    keys = small_segments(tmp_path, 65, 10)
    with ReplyStore(tmp_path):
        pass
    assert len(list(tmp_path.glob("segment-*"))) == 1
    assert stored(tmp_path, keys) == {key: text(key) for key in keys}


def test_no_merge_below_the_limit_nor_beside_another(tmp_path: Path) -> None:
    small_segments(tmp_path, 5, 2)
    with ReplyStore(tmp_path, merge_above=5):
        pass
    assert len(list(tmp_path.glob("segment-*"))) == 5
    with segments.upkeep_lock(tmp_path), ReplyStore(tmp_path, merge_above=1):
        pass
    assert len(list(tmp_path.glob("segment-*"))) == 5


def test_merging_keeps_the_reply_written_first(tmp_path: Path) -> None:
    for said in ("first", "second", "third"):
        with ReplyStore(tmp_path) as store:
            store.append([Reply(key="k", completion=said)])
    assert ReplyStore(tmp_path).find(pl.Series(["k"]))["completion"].to_list() == ["first"]
    with ReplyStore(tmp_path, merge_above=1):
        pass
    assert ReplyStore(tmp_path).scan().collect()["completion"].to_list() == ["first"]


MERGER = (
    START
    + """
import polars
print("ready", flush=True)
with ReplyStore(folder, merge_above=2):
    print("merged", flush=True)
"""
)


def test_a_merge_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    dice = random.Random(5)
    interrupted = 0
    small_segments(tmp_path / "calm", 30, 300)
    calm = child(MERGER, tmp_path / "calm", "x")
    assert calm.stdout is not None and calm.stdout.readline() == "ready\n"
    began = time.perf_counter()
    assert calm.stdout.readline() == "merged\n"
    whole = time.perf_counter() - began  # of a merge on this machine, now
    kill(calm)
    for turn in range(8):
        folder = tmp_path / str(turn)
        keys = small_segments(folder, 30, 300)
        process = child(MERGER, folder, "x")
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.8 * whole))
        interrupted += "merged" not in kill(process)
        assert len(stored(folder, keys)) == len(keys)
        with ReplyStore(folder, merge_above=2):
            pass
        assert stored(folder, keys) == {key: text(key) for key in keys}
        assert len(list(folder.glob("segment-*"))) == 1
        assert not list(folder.glob(".*.tmp"))
    assert interrupted >= 2, "too few kills fell into the merge to show anything"


def test_what_a_kill_between_writing_and_removing_leaves_is_read_once(tmp_path: Path) -> None:
    keys = small_segments(tmp_path, 3, 4)
    segments.write(segments.merged(segments.listing(tmp_path)), tmp_path, temporary=".test.tmp")
    assert len(list(tmp_path.glob("segment-*"))) == 4
    assert stored(tmp_path, keys) == {key: text(key) for key in keys}
    assert upkeep.summary(ReplyStore(tmp_path)).replies == len(keys)


def test_a_prune_killed_between_writing_and_removing_is_finished_by_the_next(tmp_path: Path) -> None:
    for model in "ab":
        with ReplyStore(tmp_path) as store:
            store.append([Reply(key=f"{model}{i}{j}", completion="x", model="ab"[j]) for i in range(50) for j in range(2)])
    before = {path: path.read_bytes() for path in segments.listing(tmp_path)}
    which = pl.col("model") == "a"
    assert upkeep.prune(ReplyStore(tmp_path), which) == 100
    for path, content in before.items():
        path.write_bytes(content)  # the kill came before the old ones went
    assert upkeep.summary(ReplyStore(tmp_path)).replies == 200
    upkeep.prune(ReplyStore(tmp_path), which)
    assert set(ReplyStore(tmp_path).scan().collect()["model"]) == {"b"}
    assert upkeep.summary(ReplyStore(tmp_path)).replies == 100


MANY_BUILDS = (
    START
    + """
for number in range(40):
    with ReplyStore(folder, merge_above=3) as store:
        store.append(replies(group(number)))
"""
)


def test_readers_see_everything_while_others_merge(tmp_path: Path) -> None:
    keys = small_segments(tmp_path, 3, 50)
    process = child(MANY_BUILDS, tmp_path, "w")
    reads = 0
    store = ReplyStore(tmp_path)
    while process.poll() is None:
        assert len(store.find(pl.Series(keys))) == len(keys)
        reads += 1
    process.communicate()
    assert process.returncode == 0 and reads >= 5
    assert len(stored(tmp_path, [f"w-{number}-{place}" for number in range(40) for place in range(GROUP)])) == 40 * GROUP
