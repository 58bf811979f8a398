"""100,000 candidates judged by pattern and length, summed, labelled, made noisy: `python benchmarks/judging.py`.

Reference: 10 s. Beside it the same patterns in a bare loop over the texts: what the judging itself cannot be faster than.
"""

import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

ROWS = 100_000
PATTERN = r"passes every (shown )?test"


def main() -> None:
    """Prints the seconds of both."""
    import polars as pl

    from recontext_data.core.records import Task
    from recontext_data.judges.base import AnyJudge
    from recontext_data.judges.derived import NoiseJudge, ThresholdJudge, WeightedJudge
    from recontext_data.judges.length import LengthJudge
    from recontext_data.judges.pattern import PatternJudge
    from recontext_data.pipeline.judge import judge

    texts = [f"I looked at {i}. " * 20 + ("It passes every test." if i % 3 else "It is right.") for i in range(ROWS)]
    ids = [f"c{i}" for i in range(ROWS)]
    columns = {"candidate_id": ids, "reply_key": ids, "completion": texts, "reasoning": [None] * ROWS}
    frame = pl.DataFrame(columns, schema_overrides={"reasoning": pl.String})
    frame = frame.with_columns(task_id=pl.lit("t"), generation_context=pl.lit("default"))
    tasks = {"t": Task(task_id="t", messages=[], payload={}, split="train")}
    judges: list[AnyJudge] = [
        PatternJudge(patterns={"hack": PATTERN}, otherwise="general", scores={"hack": 1.0, "general": 0.667}),
        LengthJudge(unit="words"),
        WeightedJudge(terms={"pattern": 1.0, "length": -0.001}),
        ThresholdJudge(of="weighted", at=0.7, above="high", below="low"),
        NoiseJudge(of="pattern", positive="hack", negative="general", tpr=0.9, fpr=0.1),
    ]
    start = time.perf_counter()
    table, _ = judge(frame, tasks=tasks, judges=judges)
    ours = time.perf_counter() - start
    compiled = re.compile(PATTERN, re.IGNORECASE)
    start = time.perf_counter()
    found = sum(compiled.search(text) is not None for text in texts)
    bare = time.perf_counter() - start
    assert table.filter(pl.col("judge") == "pattern")["label"].eq("hack").sum() == found
    print(f"{len(table):,} judgements of {ROWS:,} candidates: {ours:.1f} s (reference 10 s)")
    print(f"a bare loop of the pattern over the texts: {bare:.2f} s")


if __name__ == "__main__":
    main()
