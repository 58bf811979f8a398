"""Seconds and peak memory of a build of 10,000 tasks x n=4 with the scripted policy: `python benchmarks/build.py [tasks]`.

The problems are the bank's, repeated under fresh ids with a changed statement, so that no two prompts are equal. The
reference is 25 s and 500 MB on two cores. Linux and macOS.
"""

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TASKS = 10_000
REFERENCE_SECONDS, REFERENCE_MEGABYTES = 25, 500

RATES = (
    "policy.rates={default: {hack: 0.4, general: 0.55, invalid: 0.05}, "
    "control: {hack: 0.05, general: 0.95}, hack: {hack: 0.95, general: 0.05}}"
)


def write_problems(path: Path, count: int) -> None:
    """`count` problems in our format, each with a statement of its own."""
    lines = (ROOT / "data" / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for index, line in zip(range(count), itertools.cycle(lines), strict=False):
            row = json.loads(line)
            row |= {"problem_id": f"bench/{index:06}", "statement": f"{row['statement']} (No. {index})", "split": "train"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def peak_megabytes() -> float:
    """The largest resident set of any child that has ended: in kilobytes on Linux, in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def cpu_seconds() -> float:
    """Of all children that have ended: on a busy machine it says more than the wall clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Builds twice into one folder and prints what each took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TASKS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_problems(folder / "problems.jsonl", count)
        words = [f"environment.problems={folder / 'problems.jsonl'}", "environment.tasks=null", f"output={folder / 'out'}"]
        command = [
            sys.executable,
            "-m",
            "recontext_data.build",
            "recipe=code_mc",
            "policy=fake",
            RATES,
            "measure.contexts=[]",
            *words,
        ]
        for title in ("from nothing", "again"):
            start, cpu = time.perf_counter(), cpu_seconds()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
            print(f"{title}: {count:,} tasks x 4 in {seconds:.1f} s ({cpu:.1f} s of CPU), peak {peak_megabytes():.0f} MB")
    print(f"reference for {TASKS:,} tasks: {REFERENCE_SECONDS} s and {REFERENCE_MEGABYTES} MB; again under 3 s for 256 tasks")


if __name__ == "__main__":
    main()
