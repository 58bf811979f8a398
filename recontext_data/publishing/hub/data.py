"""The rows of a run's arms: read batch by batch, fingerprinted, and written as Parquet shards.

The same rows give the same bytes, whatever batches they were built in: row groups and shards are cut by rows and by the
size of their values, never by time or memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.publishing.hub.fingerprint import Fingerprint
from recontext_data.publishing.hub.secrets import KnownSecrets
from recontext_data.publishing.runs import FinishedRun

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 5_000
"""Rows of one Parquet row group: what a reader holds at least."""
SHARD_BYTES = 100_000_000
"""Of values in memory; a shard is closed at the first row group that reaches it. `datasets` holds a shard while it reads it."""
WHOLE = 1 << 40
"""Batches as they lie in the file: a slice would be looked through with all of the batch that it was cut from."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split of one arm."""

    run: FinishedRun
    arm: str
    name: str
    rows: int
    fingerprint: str


def read_split(run: FinishedRun, arm: str, name: str, *, secrets: KnownSecrets) -> Split:
    """Reads all rows of a split once.

    Raises:
        DataError: it cannot be read, or a row holds a key of this machine's.
    """
    fingerprint = Fingerprint()
    for batch in run.batches(arm, name, size=WHOLE):
        fingerprint.update(batch)
        secrets.check_rows(batch, where=f"arms/{arm}/{name}")
    return Split(run=run, arm=arm, name=name, rows=fingerprint.num_rows, fingerprint=fingerprint.hexdigest())


def schema_of(split: Split) -> "pa.Schema":
    """The columns of a split, with what `datasets` keeps about them."""
    import pyarrow as pa

    file = min((split.run.path / "arms" / split.arm / split.name).glob("*.arrow"))
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def write_shards(split: Split, target: Path) -> list[tuple[str, Path]]:
    """Writes a split as Parquet into a folder: each shard's path in the repository, and where it lies.

    Raises:
        DataError: the rows cannot be read.
    """
    import pyarrow.parquet as pq

    schema = schema_of(split)
    paths: list[Path] = []
    writer: pq.ParquetWriter | None = None
    held = 0
    # A split without rows is still a split: one shard with the columns alone.
    for group in groups(split.run.batches(split.arm, split.name, size=WHOLE)) if split.rows else [schema.empty_table()]:
        if writer is None:
            paths.append(target / f"{split.arm}.{split.name}.{len(paths):05}.parquet")
            writer = pq.ParquetWriter(paths[-1], schema, compression="zstd", write_page_index=True)
        writer.write_table(group, row_group_size=GROUP_ROWS)
        held += group.nbytes
        if held >= SHARD_BYTES:
            writer.close()
            writer, held = None, 0
    if writer is not None:
        writer.close()
    return [(shard_path(split, index, of=len(paths)), path) for index, path in enumerate(paths)]


def shard_path(split: Split, index: int, *, of: int) -> str:
    """The place of a shard in the repository: the name that `datasets` finds splits by."""
    return f"data/{split.arm}/{split.name}-{index:05}-of-{of:05}.parquet"


def groups(source: Iterable["pa.RecordBatch"]) -> Iterator["pa.Table"]:
    """The same rows in tables of GROUP_ROWS, the last one shorter."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in source:
        held.append(batch)
        num_held += batch.num_rows
        while num_held >= GROUP_ROWS:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, GROUP_ROWS).combine_chunks()
            held = whole.slice(GROUP_ROWS).to_batches()
            num_held -= GROUP_ROWS
    if num_held:
        yield pa.Table.from_batches(held).combine_chunks()
