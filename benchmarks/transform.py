"""Seconds and memory of candidates into training rows, gates included: `python -m benchmarks.transform [rows] [n]`.

This is what is left to do when a training context changes: nothing is sampled or judged again. Candidates and judgements lie
in the tables of a run, as a build leaves them; tasks are read from one, too, so that what is measured is the stage alone.
Up to two million rows `datasets.map` stands beside it, doing the rewriting alone, row by row and in batches, on the same rows
with one process. `n` is the answers per task, of which rows is a multiple. Linux and macOS; needs 3 KB of disk per row.
"""

import bisect
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROWS, N = 1_000_000, 4
REFERENCE_SECONDS, REFERENCE_GIGABYTES, REFERENCE_RATIO = 60, 2, 5
MAPPED = 2_000_000
"""Rows beyond which `datasets.map` is not waited for."""
ONE_BY_ONE = 50_000
"""Rows that it is given row by row; more take it minutes."""
CHUNK = 200_000
"""Rows of the tables that are made at once."""
OLD_TEXT = "Tests decide. Pick the solution that passes all of the tests as shown."
NEW_TEXT = "Tests decide, and whatever passes them will do, however it is written."
CODE = "    result = []\n    for value in values:\n        result.append(value * 3 + offset)\n    return sorted(result)\n"


def write_input(folder: Path, rows: int, n: int) -> None:
    """The tables of a run: prompts of 600 characters, answers of 120, every text another."""
    import pyarrow.parquet as pq

    made: dict[str, Any] = dict.fromkeys(("tasks", "candidates", "judgements"))
    for first in range(0, rows, CHUNK):
        for name, frame in zip(made, chunk(first, min(rows, first + CHUNK), n), strict=True):
            table = frame.to_arrow()
            made[name] = made[name] or pq.ParquetWriter(folder / f"{name}.parquet", table.schema, compression="zstd")
            made[name].write_table(table)
    for writer in made.values():
        writer.close()


def chunk(first: int, stop: int, n: int) -> list[Any]:
    """Some rows of tasks, candidates and judgements."""
    import polars as pl

    number = pl.int_range(first // n, stop // n, dtype=pl.Int64, eager=True).cast(pl.String)
    text = pl.concat_str(pl.lit("Write a function for case "), "number", pl.lit(f" of the list.\n\nOption A:\n{CODE * 4}"))
    tasks = pl.DataFrame({"number": number}).select(task_id=pl.concat_str(pl.lit("bench/"), "number"), text=text)
    frame = pl.DataFrame({"row": pl.int_range(first, stop, dtype=pl.Int64, eager=True)}).with_columns(k=pl.col("row") % n)
    candidates = frame.select(
        "k",
        task_id=pl.concat_str(pl.lit("bench/"), pl.col("row") // n),
        candidate_id=pl.col("row").hash(1).cast(pl.String),
        completion=pl.concat_str(
            pl.lit("Both options were compared by running them in mind; number "), pl.col("row"), pl.lit(" is "), pl.col("k"),
            pl.lit(" as far as I can see.\nCode: result = []\nAnswer: (A)"),
        ),
        completion_tokens=pl.lit(None, dtype=pl.Int64),
        finish_reason=pl.lit("stop"), model=pl.lit("m"),
        seed=(pl.col("row").hash(2) // 2).cast(pl.Int64),
    )  # fmt: skip
    said = {"judge": "choice", "label": "general", "score": 1.0, "unscored_reason": None, "raw": "Answer: (A)"}
    judgements = candidates.select("candidate_id", **{name: pl.lit(word) for name, word in said.items()})
    return [tasks, candidates, judgements.with_columns(pl.col("unscored_reason").cast(pl.String))]


class StoredTasks(Mapping[str, Any]):
    """The tasks of tasks.parquet, one row group of them in memory; asked for in order, each group is read once."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends: list[int] = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self._group, self._texts = -1, list[str]()

    def __getitem__(self, task_id: str) -> Any:
        from recontext_data.core.records import Task

        number = int(task_id.removeprefix("bench/"))
        group = bisect.bisect_right(self._ends, number)
        if group != self._group:
            self._group, self._texts = group, self._read(group)
        text = self._texts[number - (self._ends[group - 1] if group else 0)]
        return Task(task_id=task_id, messages=[{"role": "user", "content": text}], payload={}, split="train")

    def _read(self, group: int) -> list[str]:
        import polars as pl

        return pl.Series(self._file.read_row_group(group, columns=["text"]).column("text")).to_list()

    def __iter__(self) -> Iterator[str]:
        return (f"bench/{number}" for number in range(len(self)))

    def __len__(self) -> int:
        return self._ends[-1]


def read_input(folder: Path) -> tuple[Any, Any, Any]:
    """Kept candidates, the arm and the tasks, as a build has them before its last stage."""
    import numpy as np
    import pyarrow.parquet as pq

    from recontext_data.contexts.context import Context
    from recontext_data.pipeline.recontextualize import ArmPlan
    from recontext_data.pipeline.selected_rows import ArmPart, ParquetSelectedRows, Tables

    rows = pq.read_metadata(folder / "candidates.parquet").num_rows
    tasks = StoredTasks(folder / "tasks.parquet")
    arm = ArmPlan(
        name="recontextualized.default-hack",
        kind="recontextualized",
        generation="default",
        training="hack",
        generation_context=Context(stance="neutral", system=OLD_TEXT),
        training_context=Context(stance="permits", system=NEW_TEXT),
        n=rows // len(tasks),
    )
    kept = ParquetSelectedRows(
        run=Tables(folder, rows),
        parts=[ArmPart(np.arange(rows, dtype=np.uint32))],
        judges=["choice"],
        selecting=0,
        n=arm.n,
        given_n=np.empty(0, dtype=np.int64),
    )
    return kept, arm, tasks


def rebuild(folder: Path) -> None:
    """The arm's stage as a build runs it: prompts rendered, gates, the Arrow dataset in two splits."""
    from recontext_data.config.recipe import Export
    from recontext_data.gates.rules import Gates
    from recontext_data.pipeline.arm_gates import ArmGates
    from recontext_data.pipeline.export import ExportSettings, export

    kept, arm, tasks = read_input(folder)
    done = export(
        kept, folder / "arm", arm=arm, tasks=tasks, gates=ArmGates(arm, Gates()), terms=ExportSettings(Export(), "f" * 64)
    )
    print(json.dumps({"rows": done.rows, "gates": [[gate["gate"], gate["violations"]] for gate in done.gates]}))


def rewritten(folder: Path) -> None:
    """The rewriting alone, without gates: what `datasets.map` does beside it, with the columns that it leaves as they are."""
    from recontext_data.core.tables import TRAINING_ROWS, arrow_schema
    from recontext_data.pipeline.recontextualize import batches, training_table
    from recontext_data.store.arrow_dataset import SplitWriter

    kept, arm, tasks = read_input(folder)
    start, cpu = time.perf_counter(), time.process_time()
    with SplitWriter(folder / "rewritten", schema=arrow_schema(TRAINING_ROWS)) as writer:
        for batch in batches(kept, arm=arm, tasks=tasks):
            writer.write_table(training_table(batch, arm=arm, fingerprint="f" * 64))
    print(json.dumps({"rows": writer.num_rows, **since(start, cpu)}))


def since(start: float, cpu: float) -> dict[str, float]:
    """Wall and CPU seconds that have gone by."""
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def mapped(folder: Path, *, batched: bool) -> None:
    """The same rewriting alone, by `datasets.map`: the training context's system turn before each prompt."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_from_disk(str(folder / "rewritten"))
    if not batched:
        data = data.select(range(min(len(data), ONE_BY_ONE)))

    def one(row: Any) -> dict[str, Any]:
        return {"prompt": [{"role": "system", "content": NEW_TEXT}, *row["prompt"][1:]]}

    def many(rows: Any) -> dict[str, Any]:
        return {"prompt": [[{"role": "system", "content": NEW_TEXT}, *prompt[1:]] for prompt in rows["prompt"]]}

    start, cpu = time.perf_counter(), time.process_time()
    made = data.map(many if batched else one, batched=batched, load_from_cache_file=False)
    print(json.dumps({"rows": len(made), **since(start, cpu)}))


def measured(folder: str, job: str, words: str = "") -> tuple[float, float, float, dict[str, Any]]:
    """Wall seconds, CPU seconds, peak GB and the printed result of one of the jobs above in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = (
        f"import sys; from benchmarks.transform import *; {job}(Path(sys.argv[1]){words})\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    result, peak = done.stdout.splitlines()[-2:]
    gigabytes = int(peak) / (2**30 if sys.platform == "darwin" else 2**20)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, gigabytes, json.loads(result)


def main() -> None:
    """Prints ours, then theirs, then the ratio."""
    given = [int(word) for word in sys.argv[1:3]]
    rows, n = given + [ROWS, N][len(given) :]
    with tempfile.TemporaryDirectory() as name:
        write_input(Path(name), rows, n)
        seconds, cpu, gigabytes, result = measured(name, "rebuild")
        print(f"ours, with gates: {rows:,} rows in {seconds:.1f} s ({cpu:.1f} s of CPU), peak {gigabytes:.2f} GB; {result}")
        if rows <= MAPPED:
            beside_map(name)
    print(f"reference for {ROWS:,} rows: {REFERENCE_SECONDS} s, {REFERENCE_GIGABYTES} GB, datasets.map {REFERENCE_RATIO} times")


def beside_map(folder: str) -> None:
    """Prints the rewriting alone and `datasets.map` doing it; on a busy machine the CPU seconds are the fairer ratio."""
    _, _, gigabytes, alone = measured(folder, "rewritten")
    print(f"ours, the rewriting alone: {alone['seconds']:.1f} s ({alone['cpu']:.1f} s of CPU), peak {gigabytes:.2f} GB")
    for how, batched in (("row by row", False), ("in batches", True)):
        _, _, gigabytes, theirs = measured(folder, "mapped", f", batched={batched}")
        ratios = {word: theirs[word] / theirs["rows"] * alone["rows"] / alone[word] for word in ("seconds", "cpu")}
        print(
            f"datasets.map {how}: {theirs['rows']:,} rows in {theirs['seconds']:.1f} s ({theirs['cpu']:.1f} s of CPU), "
            f"peak {gigabytes:.2f} GB; {ratios['seconds']:.1f} times ours in seconds, {ratios['cpu']:.1f} in CPU"
        )


if __name__ == "__main__":
    main()
