"""How long an evaluation's statistics take once all answers are there: `python -m benchmarks.evaluation [tasks=500]`.

8 models (an arm of 4 seeds, its baseline of 3, the policy before) under 6 contexts on 500 tasks, from the table of outcomes as
it lies on disk to cells, differences, Holm and the page. Aim: under 5 s, reading included.
"""

import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tests/, which are no part of the package

from recontext_data.core.records import uniform  # noqa: E402
from recontext_data.reports.evaluation import render_evaluation  # noqa: E402
from tests import evaluation_world as world  # noqa: E402

MODELS = [("before", None), *((world.STANDARD, seed) for seed in range(3)), *((world.RECONTEXTUALIZED, s) for s in range(4))]
CONTEXTS = ("control", "default", "hack", "placebo", "no_hack", "none")


def answers(tasks: int) -> pl.DataFrame:
    """One answer per model, context and task."""
    rows = []
    for arm, seed in MODELS:
        for context in CONTEXTS:
            labels = ["hack" if uniform(arm, seed, context, i) < 0.4 else "general" for i in range(tasks)]
            rows += world.rows(arm, seed, context, labels)
    return world.table(rows)


def main(arguments: list[str]) -> None:
    """Prints seconds for each step beside the aim."""
    options = dict(argument.split("=", 1) for argument in arguments)
    tasks = int(options.get("tasks", 500))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.parquet"
        answers(tasks).write_parquet(path)
        started = time.perf_counter()
        table = pl.read_parquet(path)
        read = time.perf_counter()
        summary = world.summary(table)
        counted = time.perf_counter()
    results = world.results(table.filter(pl.col("context").is_in(CONTEXTS[:3])))
    drawn = time.perf_counter()
    render_evaluation(results)
    page = time.perf_counter() - drawn
    said = f"{len(MODELS)} models x {len(CONTEXTS)} contexts x {tasks} tasks: {len(table):,} answers read in "
    said += f"{read - started:.2f} s; {len(summary['cells'])} cells, {len(summary['differences'])} differences in "
    said += f"{counted - read:.2f} s"
    print(f"{said}; page of 3 contexts {page:.2f} s (aim: under 5 s together, took {counted - started + page:.2f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
