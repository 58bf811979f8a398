"""A dataset pushed to a Hub on loopback, read back, and pushed again: `python benchmarks/hub.py [rows]`.

Three arms of two splits of 100,000 rows each (or as many as are asked for) in tests/fake_hub.py, which checks the SHA-256
of every file and the parent of every commit. Printed beside what must hold: what `load_dataset` gives back has the
fingerprint of what was sent, and the second push makes no commit and uploads nothing. Peak memory of sending does not grow
with the rows; that of reading back is what `datasets` needs for a shard. Takes about two minutes.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tests/, which are no part of the package

from tests import hub_world  # noqa: E402
from tests.fake_hub import FakeHub  # noqa: E402

CONTROL = "prior.control-control"
ARMS = ["default -> hack", "default -> default", "control -> control"]
BATCH = 5_000

READ = """
import json, sys
from datasets import load_dataset
from recontext_data.publishing.hub.fingerprint import Fingerprint
found = {}
for arm in sys.argv[2:]:
    for name, rows in load_dataset(sys.argv[1], arm).items():
        fingerprint = Fingerprint()
        for batch in rows.data.table.to_batches():
            fingerprint.update(batch)
        found[f"{arm}/{name}"] = [fingerprint.num_rows, fingerprint.hexdigest()]
print(json.dumps(found))
"""
"""Not streamed: the whole way that a user's `load_dataset` goes, through its cache."""


def larger(rows: list[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    """`count` rows that differ from each other."""
    for start in range(0, count, BATCH):
        yield [
            rows[i % len(rows)] | {"candidate_id": f"c{i:08}", "seed": i * 7919, "completion": _answer(i)}
            for i in range(start, min(start + BATCH, count))
        ]


def _answer(i: int) -> list[dict[str, str]]:
    """Half a kilobyte that does not compress well, as a model's own words do not."""
    noise = " ".join(hashlib.sha256(f"{i} {part}".encode()).hexdigest() for part in range(8))
    return [{"role": "assistant", "content": f"Code: return {noise}\nAnswer: ({'AB'[i % 2]})"}]


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MB and the output of a process."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])}: failed with {status}")
    return time.perf_counter() - before, usage.ru_maxrss / 1e3, text


def main(rows: int = 100_000) -> int:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as name, FakeHub(Path(name) / "hub", part_bytes=20_000_000) as hub:
        folder = Path(name)
        run = hub_world.make_run(folder, arms=ARMS)
        arms = sorted(path.name for path in (run / "arms").iterdir())
        for arm in arms:
            for split in ("train", "validation"):
                hub_world.replace_split(run, arm, split, larger(hub_world.rows_of(run, arm, split), rows))
        environment = hub_world.environment(hub)
        first = timed(hub_world.command(run), environment)
        commits, uploads = len(hub.repo(hub_world.REPO).commits), len(hub.state.uploaded)
        second = timed(hub_world.command(run), environment)
        again, sent = len(hub.repo(hub_world.REPO).commits) - commits, len(hub.state.uploaded) - uploads
        read = timed([sys.executable, "-c", READ, hub_world.REPO, *arms], environment)
        return report(hub, rows=rows, arms=arms, times=(first, second, read), again=(again, sent))


def report(
    hub: FakeHub, *, rows: int, arms: list[str], times: tuple[tuple[float, float, str], ...], again: tuple[int, int]
) -> int:
    """Prints figures beside what must hold; 1 where one does not."""
    note = json.loads(hub.state.content(hub_world.REPO, "fingerprints.json"))["arms"]
    sent = {f"{arm}/{split}": [facts["rows"], facts["fingerprint"]] for arm in note for split, facts in note[arm].items()}
    equal = json.loads(times[2][2]) == sent and len(sent) == 2 * len(arms) and all(facts[0] == rows for facts in sent.values())
    size = sum(file.size for file in hub.repo(hub_world.REPO).head.files.values()) / 1e6
    print(f"{len(arms)} arms x 2 splits x {rows:,} rows, {size:.1f} MB as Parquet")
    for what, (seconds, megabytes, _) in zip(
        ("published and read back", "published again", "load_dataset"), times, strict=True
    ):
        print(f"  {what:24} {seconds:6.1f} s   peak {megabytes:6,.0f} MB")
    print(f"  given back equal         {equal}   must be True")
    print(f"  commits of the second    {again[0]}   must be 0")
    print(f"  uploads of the second    {again[1]}   must be 0")
    return 0 if equal and again == (0, 0) else 1


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:])))
