"""The reply store at a million replies: `python benchmarks/store.py [replies]`. Prints each figure beside its limit.

Every measurement runs in a process of its own, so that its peak memory is its own. The store lies in a temporary
folder: 40 segments, completions of 300 characters; half of the requested keys are in it.
"""

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEGMENTS = 40
CHARACTERS = 300
LIMIT_SECONDS, LIMIT_MB = 15.0, 1000.0


def key(number: int) -> str:
    """The key of the nth reply: a hash, as real ones are."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def fill(folder: Path, total: int) -> tuple[float, str]:
    """Writes the segments."""
    import polars as pl

    from recontext_data.store import segments

    dice = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    per_segment = total // SEGMENTS
    for segment in range(SEGMENTS):
        keys = [key(number) for number in range(segment * per_segment, (segment + 1) * per_segment)]
        asked = [
            f'{{"k":{place % 16},"policy":{{"kind":"openai","model":"m"}},"prompt":"{name[::-1]}"}}'
            for place, name in enumerate(keys)
        ]
        columns: dict[str, Any] = {
            "key": keys,
            "completion": [" ".join(dice.choices(words, k=45))[:CHARACTERS] for _ in keys],
            "finish_reason": ["stop"] * len(keys),
            "model": ["m"] * len(keys),
            "completion_tokens": [70] * len(keys),
            "asked": asked,
            "written": [1.7e9 + place for place in range(len(keys))],
        }
        rows = pl.DataFrame(columns | {name: [None] * len(keys) for name in segments.schema() if name not in columns})
        whole = rows.select(pl.col(name).cast(kind) for name, kind in segments.schema().items())
        segments.write(whole, folder, temporary=".fill.tmp")
    return 0.0, ""


def missing(folder: Path, total: int) -> tuple[float, str]:
    """Opening the store and finding what is missing of `total` keys, half of which are there."""
    import polars as pl

    keys = pl.Series("key", [key(number) for number in range(total // 2, total // 2 + total)])
    start = time.perf_counter()
    from recontext_data.store.key_index import KeyIndex
    from recontext_data.store.replies import ReplyStore

    with ReplyStore(folder) as store:
        found = int(store.which(KeyIndex([keys])).sum())
    seconds = time.perf_counter() - start
    assert found == total - total // 2, found
    return seconds, f"{found:,} of {total:,} found"


def plan(folder: Path, total: int, *, n: int = 16) -> tuple[float, str]:
    """What a build does with it: lists `total` completions (n a prompt), hashes their keys, finds what is missing."""
    from recontext_data.core.records import SamplingParams, Task
    from recontext_data.pipeline import sample
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.task_file import TaskFile

    texts = ({"role": "user", "content": f"{'x' * CHARACTERS} {i}"} for i in range(total // n))
    tasks = TaskFile(Task(task_id=f"t{i}", messages=[turn], payload={}, split="train") for i, turn in enumerate(texts))  # type: ignore[list-item]
    pools = [sample.Pool(name="default", context=None, n=n, role="arms")]
    start = time.perf_counter()
    with ReplyStore(folder) as store:
        made = sample.plan(tasks, pools, sampling=SamplingParams(), seed=0, identity={"kind": "x"}, store=store)
        found = len(made.wanted) - made.requests.num_completions
    seconds = time.perf_counter() - start
    return seconds, f"{len(made.wanted):,} wanted, {found:,} found, {len(made.requests):,} requests"


def plan_singles(folder: Path, total: int) -> tuple[float, str]:
    """As `plan`, with a prompt for each completion: a million tasks."""
    return plan(folder, total, n=1)


def fetch(folder: Path, count: int) -> tuple[float, str]:
    """Replies themselves, of `count` keys."""
    import polars as pl

    from recontext_data.store.replies import ReplyStore

    keys = pl.Series("key", [key(number) for number in range(count)])
    start = time.perf_counter()
    found = ReplyStore(folder).find(keys)
    seconds = time.perf_counter() - start
    assert len(found) == count
    return seconds, f"{found['completion'].str.len_chars().sum():,} characters"


def raw(folder: Path, total: int) -> tuple[float, str]:
    """The reference for `missing`: bare Polars over the same key columns, nothing verified."""
    import polars as pl

    keys = pl.LazyFrame({"key": [key(number) for number in range(total // 2, total // 2 + total)]})
    start = time.perf_counter()
    rows = pl.scan_parquet(folder / "segment-*.parquet").select("key")
    found = rows.join(keys, on="key", how="semi").collect()
    return time.perf_counter() - start, f"{len(found):,} found"


def count(folder: Path, total: int) -> tuple[float, str]:
    """`python -m recontext_data.replies`, without the printing."""
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.upkeep import summary

    start = time.perf_counter()
    facts = summary(ReplyStore(folder))
    assert facts.replies >= total
    return time.perf_counter() - start, f"{facts.replies:,} replies, {facts.bytes / 1e6:.0f} MB on disk"


def append(folder: Path, total: int) -> tuple[float, str]:
    """Appending in groups of 256, each synced, sealed at the end and on the way."""
    from recontext_data.core.records import Reply
    from recontext_data.store.replies import ReplyStore

    text = "word " * (CHARACTERS // 5)
    start = time.perf_counter()
    with ReplyStore(folder / "appended") as store:
        for first in range(0, total, 256):
            store.append(Reply(key=key(number), completion=text, model="m") for number in range(first, min(first + 256, total)))
    seconds = time.perf_counter() - start
    return seconds, f"{total / seconds:,.0f} replies a second"


def raw_append(folder: Path, total: int) -> tuple[float, str]:
    """The reference for `append`: the bare bytes of as many lines, written and synced in the same groups."""
    line = b"x" * 600 + b"\n"
    start = time.perf_counter()
    with (folder / "raw").open("wb", buffering=0) as handle:
        for _ in range(0, total, 256):
            handle.write(line * 256)
            os.fsync(handle.fileno())
    return time.perf_counter() - start, f"{total / (time.perf_counter() - start):,.0f} lines a second"


JOBS: dict[str, Callable[[Path, int], tuple[float, str]]] = {
    "fill": fill,
    "missing": missing,
    "plan": plan,
    "plan_singles": plan_singles,
    "raw": raw,
    "fetch": fetch,
    "count": count,
    "append": append,
    "raw_append": raw_append,
}


def job(name: str, folder: Path, total: int) -> None:
    """One measurement, in this process."""
    import resource

    seconds, note = JOBS[name](folder, total)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)
    print(f"{seconds}|{peak}|{note}")


def measured(name: str, folder: Path, total: int) -> tuple[float, float, str]:
    """One measurement, in a process of its own: seconds, peak MB, a note."""
    command = [sys.executable, __file__, "job", name, str(folder), str(total)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    seconds, peak, note = done.stdout.strip().split("|")
    return float(seconds), float(peak), note


def main(total: int) -> int:
    """All measurements; 1 if a limit is broken."""
    few = max(total // 1000, 1)
    rows = [
        ("open, find what is missing", "missing", total, f"{LIMIT_SECONDS:.0f} s, {LIMIT_MB:.0f} MB"),
        ("  bare Polars on the same files", "raw", total, "-"),
        ("plan a build: list, hash, find", "plan", total, f"{LIMIT_SECONDS:.0f} s, {LIMIT_MB:.0f} MB"),
        ("  the same with n=1", "plan_singles", total, f"{LIMIT_SECONDS:.0f} s, {LIMIT_MB:.0f} MB"),
        ("fetch all completions", "fetch", total, "-"),
        (f"fetch {few:,} completions", "fetch", few, "-"),
        ("count by model", "count", total, "-"),
        (f"append {total // 10:,}, synced, sealed", "append", total // 10, "-"),
        ("  bare write and fsync", "raw_append", total // 10, "-"),
    ]
    broken = False
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        measured("fill", folder, total)
        print(f"{total:,} replies in {SEGMENTS} segments\n{'':34} {'s':>7} {'peak MB':>8}  {'limit':15} note")
        for label, name, size, limit in rows:
            seconds, peak, note = measured(name, folder, size)
            broken |= name in ("missing", "plan", "plan_singles") and (seconds > LIMIT_SECONDS or peak > LIMIT_MB)
            print(f"{label:34} {seconds:7.2f} {peak:8.0f}  {limit:15} {note}", flush=True)
    return int(broken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
