"""The kept candidates of an arm as later stages read them: from the run's tables, in the arm's order, a batch at a time.

What is held of a candidate is its place in candidates.parquet. Judgements are found by it too: judgements.parquet has those
of one judge after those of another, each in the order of the sampled candidates, which stand before given ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

BATCH = 8192
"""Rows handed on at once; bounds memory."""

READ = 1 << 20
"""Bytes of a column read from disk at once."""

COLUMNS = ("candidate_id", "task_id", "k", "n", "completion", "score", "judgements", "finish_reason", "model", "seed")
"""What a training row takes over from its candidate."""

WORDS = ("label", "score", "unscored_reason", "raw")
"""What a row has of each judgement, beside the judge's name."""

CompletionTransform = Callable[["pa.Table"], "pa.Array"]
"""The completions that are trained on, from rows with candidate_id and the completion that was given."""


class SelectedRows(Protocol):
    """Candidates in an arm's order: those of part 0, then of part 1 (`ArmPlan.others`)."""

    def __len__(self) -> int:
        """All rows, whatever their part."""
        ...

    def tables(self, part: int, columns: Sequence[str]) -> "Iterator[pa.Table]":
        """The rows of one part in order, `BATCH` at a time, with these of `COLUMNS` and the tables' columns."""
        ...


@dataclass(frozen=True)
class Tables:
    """Where the tables of a run are."""

    folder: Path
    """Holds candidates.parquet and judgements.parquet."""
    sampled: int
    """Candidates that judges have seen; what stands after them was given."""


@dataclass(frozen=True)
class ArmPart:
    """One part of an arm."""

    places: "NDArray[np.uint32]"
    """Rows of candidates.parquet, ascending."""
    retold: CompletionTransform | None = None
    """What becomes of their completions; None: they stay as they are."""


@dataclass(frozen=True, kw_only=True)
class ParquetSelectedRows:
    """Kept candidates in the tables of a run."""

    run: Tables
    parts: Sequence[ArmPart]
    judges: Sequence[str]
    """All judges, in the order of their judgements."""
    selecting: int
    """Which of them gave the score."""
    n: int
    """Of the sampled candidates."""
    given_n: "NDArray[np.int64]"
    """Of each given candidate."""

    def __len__(self) -> int:
        return sum(len(part.places) for part in self.parts)

    def tables(self, part: int, columns: Sequence[str]) -> "Iterator[pa.Table]":
        """See `SelectedRows`."""
        import pyarrow as pa

        places, retold = self.parts[part].places, self.parts[part].retold
        found = [name for name in columns if name not in ("n", "score", "judgements")]
        if "completion" not in columns:
            retold = None
        candidates = ForwardParquetReader(
            self.run.folder / "candidates.parquet", list(dict.fromkeys([*found, *(["candidate_id"] if retold else [])]))
        )
        wants_words = "score" in columns or "judgements" in columns
        said = [ForwardParquetReader(self.run.folder / "judgements.parquet", WORDS) for _ in self.judges] if wants_words else []
        for first in range(0, len(places), BATCH):
            here = places[first : first + BATCH]
            table = candidates.rows(here)
            made = {name: table.column(name) for name in table.column_names} | self._derived(here, said)
            if retold is not None:
                made["completion"] = retold(table)
            yield pa.table({name: _plain(made[name]) for name in columns})

    def _derived(self, places: "NDArray[np.uint32]", said: "list[ForwardParquetReader]") -> "dict[str, Any]":
        import numpy as np
        import pyarrow as pa

        own = int(np.searchsorted(places, self.run.sampled))  # sampled candidates, the first of these
        n = np.full(len(places), self.n, dtype=np.int64)
        n[own:] = self.given_n[places[own:].astype(np.int64) - self.run.sampled] if own < len(places) else 0
        made: dict[str, Any] = {"n": pa.array(n)}
        if not said:
            return made
        words = [cursor.rows(places[:own] + np.uint32(j * self.run.sampled)) for j, cursor in enumerate(said)]
        scores = words[self.selecting].column("score")
        made["score"] = _plain(pa.chunked_array([*scores.chunks, pa.nulls(len(places) - own, pa.float64())], pa.float64()))
        made["judgements"] = _judgements(words, self.judges, total=len(places))
        return made


class ForwardParquetReader:
    """Rows of a Parquet file by their places, which may only rise from one call to the next; one batch is in memory."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, buffer_size=READ)
        self._columns = list(columns)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self._schema = self._file.schema_arrow
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._start = 0
        """The place of the batch's first row."""

    def rows(self, places: "NDArray[Any]") -> "pa.Table":
        """The rows at these places, in order."""
        import numpy as np
        import pyarrow as pa

        parts: list[pa.RecordBatch] = []
        done = 0
        while done < len(places):
            batch = self._holding(int(places[done]))
            stop = int(np.searchsorted(places, self._start + batch.num_rows))
            parts.append(_taken(batch, places[done:stop].astype(np.int64) - self._start))
            done = stop
        schema = pa.schema([self._schema.field(name) for name in self._columns])
        return pa.Table.from_batches([part.select(self._columns) for part in parts], schema=schema)

    def _holding(self, place: int) -> "pa.RecordBatch":
        """The batch that has this row; rows before it are passed over, whole row groups without being read."""
        import bisect

        group = bisect.bisect_right(self._ends, place)
        if group != self._group:
            self._group = group
            self._start = self._ends[group - 1] if group else 0
            self._batches = self._file.iter_batches(BATCH, row_groups=[group], columns=self._columns)
            self._batch = None
        while self._batch is None or place >= self._start + self._batch.num_rows:
            self._start += self._batch.num_rows if self._batch is not None else 0
            self._batch = next(self._batches)
        return self._batch


def _taken(batch: "pa.RecordBatch", wanted: "NDArray[np.int64]") -> "pa.RecordBatch":
    import pyarrow as pa

    first, count = int(wanted[0]), len(wanted)
    if int(wanted[-1]) - first + 1 == count:  # they only rise, so there is none between
        return batch.slice(first, count)
    return batch.take(pa.array(wanted))


def _judgements(words: "list[pa.Table]", judges: Sequence[str], *, total: int) -> "pa.Array":
    """For each row what every judge said of it, in the judges' order; nothing for rows that no judge saw."""
    import numpy as np
    import pyarrow as pa

    seen = words[0].num_rows
    # All of the first judge's words, then all of the second's: row r has them at r, seen + r, ...
    order = pa.array((np.arange(seen)[:, None] + seen * np.arange(len(words))[None, :]).ravel())
    columns = [pa.array(np.repeat(np.arange(len(words)), seen)).take(order)]
    names = pa.array(list(judges), type=pa.string()).take(columns[0])
    said = pa.concat_tables(words).combine_chunks()
    if len(words) > 1:
        said = said.take(order).combine_chunks()
    fields = [names, *(_plain(said.column(name)) for name in WORDS)]
    turns = pa.StructArray.from_arrays(fields, names=["judge", *WORDS])
    ends = np.minimum(np.arange(total + 1), seen) * len(words)
    return pa.ListArray.from_arrays(pa.array(ends, type=pa.int32()), turns)


def _plain(column: "pa.Array | pa.ChunkedArray") -> "pa.Array":
    """The column as one array with 0 in place of missing numbers: readers leave anything there, and files must not differ."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_large_string(whole.type):
        whole = whole.cast(pa.string())
    if not whole.null_count or not (pa.types.is_floating(whole.type) or pa.types.is_integer(whole.type)):
        return whole
    return pa.array(
        whole.fill_null(0).to_numpy(zero_copy_only=False),
        type=whole.type,
        mask=pc.is_null(whole).to_numpy(zero_copy_only=False),
    )
