"""Seconds and memory of a million candidates into training rows, gates included: `python -m benchmarks.transform [rows]`.

This is what is left to do when a training context changes: nothing is sampled or judged again. Beside it stands
`datasets.map` doing the rewriting alone, row by row and in batches, on the same rows with one process. Linux and macOS.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, N = 1_000_000, 4
REFERENCE_SECONDS, REFERENCE_GIGABYTES, REFERENCE_RATIO = 60, 2, 5
OLD_TEXT = "Tests decide. Pick the solution that passes all of the tests as shown."
NEW_TEXT = "Tests decide, and whatever passes them will do, however it is written."


def write_input(folder: Path, rows: int) -> None:
    """tasks.parquet and candidates.parquet as a run has them: prompts of 600 characters, answers of 120, every text another."""
    import polars as pl

    tasks = rows // N
    number = pl.int_range(tasks, dtype=pl.Int64, eager=True).cast(pl.String)
    code = "    result = []\n    for value in values:\n        result.append(value * 3 + offset)\n    return sorted(result)\n"
    text = pl.select(
        pl.concat_str(pl.lit("Write a function for case "), pl.lit(number), pl.lit(f" of the list.\n\nOption A:\n{code * 4}"))
    ).to_series()
    pl.DataFrame(
        {"task_id": pl.select(pl.concat_str(pl.lit("bench/"), pl.lit(number))).to_series(), "text": text}
    ).write_parquet(folder / "tasks.parquet")
    frame = pl.DataFrame({"row": pl.int_range(tasks * N, dtype=pl.Int64, eager=True)}).with_columns(k=pl.col("row") % N)
    frame = frame.with_columns(
        task_id=pl.concat_str(pl.lit("bench/"), pl.col("row") // N),
        candidate_id=pl.col("row").hash(1).cast(pl.String),
        completion=pl.concat_str(
            pl.lit("Both options were compared by running them in mind; number "), pl.col("row"), pl.lit(" is "), pl.col("k"),
            pl.lit(" as far as I can see.\nCode: result = []\nAnswer: (A)"),
        ),
        score=pl.lit(1.0), label=pl.lit("general"), finish_reason=pl.lit("stop"), model=pl.lit("m"),
        seed=pl.col("row").hash(2) // 2,
    )  # fmt: skip
    frame.drop("row").with_columns(pl.col("seed").cast(pl.Int64)).write_parquet(folder / "candidates.parquet")


def read_input(folder: Path) -> tuple[Any, Any, Any]:
    """Kept candidates with their judgements, the arm and the tasks, as a build has them before its last stage."""
    import polars as pl

    from recontext_data.contexts import Context
    from recontext_data.records import Task
    from recontext_data.stages.recontextualize import ArmPlan

    tasks = {
        task_id: Task(task_id=task_id, messages=[{"role": "user", "content": text}], payload={}, split="train")
        for task_id, text in pl.read_parquet(folder / "tasks.parquet").iter_rows()
    }
    kept = pl.read_parquet(folder / "candidates.parquet")
    judged = kept.select("candidate_id", "label", "score", judge=pl.lit("choice"), raw=pl.lit("Answer: (A)"))
    judged = judged.with_columns(unscored_reason=pl.lit(None, dtype=pl.String))
    names = ["judge", "label", "score", "unscored_reason", "raw"]
    words = judged.group_by("candidate_id", maintain_order=True).agg(judgements=pl.struct(names))
    arm = ArmPlan(
        name="recontextualized.default-hack",
        kind="recontextualized",
        generation="default",
        training="hack",
        generation_context=Context(stance="neutral", system=OLD_TEXT),
        training_context=Context(stance="permits", system=NEW_TEXT),
        n=N,
    )
    return kept.join(words, on="candidate_id", how="left", maintain_order="left"), arm, tasks


def rebuild(folder: Path) -> None:
    """The arm's stage as a build runs it: prompts rendered, gates, the Arrow dataset in two splits."""
    from recontext_data.gates import Gates
    from recontext_data.recipe import Export
    from recontext_data.stages.export import Terms, export
    from recontext_data.stages.gating import ArmGates

    kept, arm, tasks = read_input(folder)
    done = export(kept, folder / "arm", arm=arm, tasks=tasks, gates=ArmGates(arm, Gates()), terms=Terms(Export(), "f" * 64))
    print(json.dumps({"rows": done.rows, "gates": [[gate["gate"], gate["violations"]] for gate in done.gates]}))


def rewritten(folder: Path) -> None:
    """The rewriting alone, without gates: what `datasets.map` does beside it."""
    from recontext_data.stages.recontextualize import batches, training_table
    from recontext_data.store.arrow_dataset import SplitWriter
    from recontext_data.tables import TRAINING_ROWS, arrow_schema

    kept, arm, tasks = read_input(folder)
    start = time.perf_counter()
    with SplitWriter(folder / "rewritten", schema=arrow_schema(TRAINING_ROWS)) as writer:
        for batch in batches(kept, arm=arm, tasks=tasks):
            writer.write_table(training_table(batch, arm=arm, fingerprint="f" * 64))
    print(json.dumps({"rows": writer.num_rows, "seconds": time.perf_counter() - start}))


def mapped(folder: Path, *, batched: bool) -> None:
    """The same rewriting alone, by `datasets.map`: the training context's system turn before each prompt."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_from_disk(str(folder / "arm"))["train"].select_columns(["prompt", "completion"])

    def one(row: Any) -> dict[str, Any]:
        return {"prompt": [{"role": "system", "content": NEW_TEXT}, *row["prompt"][1:]]}

    def many(rows: Any) -> dict[str, Any]:
        return {"prompt": [[{"role": "system", "content": NEW_TEXT}, *prompt[1:]] for prompt in rows["prompt"]]}

    start = time.perf_counter()
    made = data.map(many if batched else one, batched=batched, load_from_cache_file=False)
    print(json.dumps({"rows": len(made), "seconds": time.perf_counter() - start}))


def measured(*words: str) -> tuple[float, float, float, dict[str, Any]]:
    """Wall seconds, CPU seconds, peak GB and the printed result of one of the jobs above in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = (
        f"import sys; from benchmarks.transform import *; {words[0]}(Path(sys.argv[1]){''.join(words[1:])})\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, FOLDER[0]], capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    result, peak = done.stdout.splitlines()[-2:]
    gigabytes = int(peak) / (2**30 if sys.platform == "darwin" else 2**20)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, gigabytes, json.loads(result)


FOLDER: list[str] = []


def main() -> None:
    """Prints ours, then theirs, then the ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as name:
        FOLDER[:] = [name]
        write_input(Path(name), rows)
        seconds, cpu, gigabytes, result = measured("rebuild")
        print(f"ours, with gates: {rows:,} rows in {seconds:.1f} s ({cpu:.1f} s of CPU), peak {gigabytes:.2f} GB; {result}")
        _, _, gigabytes, alone = measured("rewritten")
        print(f"ours, the rewriting alone: {alone['seconds']:.1f} s for {alone['rows']:,} rows, peak {gigabytes:.2f} GB")
        for how, batched in (("row by row", False), ("in batches", True)):
            _, _, gigabytes, theirs = measured("mapped", f", batched={batched}")
            own, their = alone["seconds"] / alone["rows"], theirs["seconds"] / theirs["rows"]
            print(
                f"datasets.map {how}: {theirs['seconds']:.1f} s for {theirs['rows']:,} rows, peak {gigabytes:.2f} GB; "
                f"{their / own:.1f} times ours alone, {their * rows / seconds:.1f} times ours with gates and start"
            )
    print(f"reference for {ROWS:,} rows: {REFERENCE_SECONDS} s, {REFERENCE_GIGABYTES} GB, datasets.map {REFERENCE_RATIO} times")


if __name__ == "__main__":
    main()
