"""What `--help` costs beyond a bare interpreter: `python benchmarks/startup.py`. The reference is 0.25 s.

Bytecode is kept, as an interpreter does unless told otherwise; the first start, which compiles, is not counted.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
REFERENCE_SECONDS = 0.25


def seconds(*words: str) -> float:
    """Wall time of one start of the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Takes turns, so that a busy machine is busy for both, and prints the medians."""
    seconds("-m", "recontext_data.build", "--help")
    pairs = [(seconds("-c", "pass"), seconds("-m", "recontext_data.build", "--help")) for _ in range(RUNS)]
    bare, help_ = (statistics.median(times) for times in zip(*pairs, strict=True))
    extra = statistics.median(second - first for first, second in pairs)
    print(f"bare interpreter {bare:.3f} s, --help {help_:.3f} s, difference {extra:.3f} s (reference {REFERENCE_SECONDS} s)")


if __name__ == "__main__":
    main()
