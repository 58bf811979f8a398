"""Sealed replies: Parquet files sorted by key, named by their content, merged when there are many small ones.

    segment-<first 32 hex digits of the file's SHA-256>.parquet

The name tells a damaged file from a good one, and the same rows always make the same file. A merged segment is on disk
before the ones it replaces go; a reader who held the old list finds a file missing and lists again.
"""

import hashlib
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.core.errors import StoreError
from recontext_data.store.files import file_digest, writing
from recontext_data.store.journal import sync_folder

if TYPE_CHECKING:
    import polars as pl
    from filelock import BaseFileLock

ROWS_PER_GROUP = 16_384
"""Of a segment: with sorted keys, a reader of few keys skips most groups."""

SMALL_BYTES = 32 * 2**20
"""A segment below this size is merged when there are many; a merge stops near twice this, which bounds its memory."""

CHECK = "python -m recontext_data.replies check"


def schema() -> "dict[str, type[pl.DataType]]":
    """The columns of a stored reply: those of `records.Reply`, JSON of its details and of what was asked, and when."""
    import polars as pl

    return {
        "key": pl.String,
        "completion": pl.String,
        "reasoning": pl.String,
        "finish_reason": pl.String,
        "model": pl.String,
        "prompt_tokens": pl.Int64,
        "completion_tokens": pl.Int64,
        "details": pl.String,
        "asked": pl.String,
        "written": pl.Float64,
    }


def listing(folder: Path, pattern: str = "segment-*.parquet") -> list[Path]:
    """The files of that name, in order of name.

    A listing made while others add and remove may show neither the new file nor the old one; two in a row that agree
    cannot both have missed it, since the new one was there before the old one went.
    """
    before: list[Path] | None = None
    while True:
        now = sorted(folder.glob(pattern))
        if now == before:
            return now
        before = now


def first_written(frame: "pl.DataFrame") -> "pl.DataFrame":
    """One row per key: where two builds bought the same at once, the reply written first."""
    if frame["key"].is_unique().all():
        return frame
    return frame.sort("key", "written", "completion").unique("key", keep="first", maintain_order=True)


def write(frame: "pl.DataFrame", folder: Path, *, temporary: str) -> Path | None:
    """The rows as a segment, synced; None where there are no rows. `temporary` is a name that nobody else writes to now."""
    if frame.is_empty():
        return None
    # Through memory, so that a full disk is an OSError of ours and not an error of whoever encodes.
    encoded = io.BytesIO()
    first_written(frame).sort("key").write_parquet(
        encoded, compression="zstd", compression_level=1, row_group_size=ROWS_PER_GROUP
    )
    draft, segment = folder / temporary, folder / f"segment-{_short(hashlib.sha256(encoded.getbuffer()).hexdigest())}.parquet"
    with writing(folder):
        try:
            with draft.open("wb") as handle:
                handle.write(encoded.getbuffer())
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(segment)
            sync_folder(folder)
        finally:
            draft.unlink(missing_ok=True)
    return segment


def _short(digest: str) -> str:
    return digest[:32]


def intact(path: Path) -> bool:
    """Whether the file's bytes are those that it is named after.

    Raises:
        FileNotFoundError: somebody has merged or removed it.
    """
    try:
        return path.stem == f"segment-{_short(file_digest(path))}"
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; its owner can change that") from None
    except OSError:
        return False  # the disk cannot give it back


def require_intact(paths: Iterable[Path]) -> None:
    """Raises StoreError for the first segment that is damaged, and FileNotFoundError for one that is gone."""
    for path in paths:
        if not intact(path):
            raise StoreError(f"{path}: is damaged; `{CHECK}` sets it aside, and what was in it is then sampled again")


def upkeep_lock(folder: Path) -> "BaseFileLock":
    """Held by whoever removes segments, so that two never do it at once."""
    from filelock import FileLock

    return FileLock(folder / ".upkeep.lock", thread_local=False)


def compact(folder: Path, *, above: int) -> None:
    """Merges small segments when there are more than `above` of them, unless somebody else is at it."""
    from filelock import Timeout

    if len(_small(folder)) <= above:
        return
    lock = upkeep_lock(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return
    try:
        for group in _groups(_small(folder)):
            replace(group, folder, merged(group))
    finally:
        lock.release()


def _small(folder: Path) -> list[Path]:
    small = []
    for path in listing(folder):
        with suppress(FileNotFoundError):  # merged by somebody else
            if path.stat().st_size < SMALL_BYTES:
                small.append(path)
    return small


def _groups(paths: list[Path]) -> list[list[Path]]:
    """Runs of files that together are at least `SMALL_BYTES` and less than twice that; the last may be less."""
    groups: list[list[Path]] = [[]]
    size = 0
    for path in paths:
        if size >= SMALL_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += path.stat().st_size
    return [group for group in groups if len(group) > 1]


def merged(paths: list[Path]) -> "pl.DataFrame":
    """The rows of several segments, which are first found to be intact."""
    import polars as pl

    require_intact(paths)
    return pl.concat([pl.read_parquet(path) for path in paths])


def replace(old: list[Path], folder: Path, rows: "pl.DataFrame") -> None:
    """Puts one segment of `rows` in the place of several. The caller holds the upkeep lock; a kill leaves both at worst."""
    new = write(rows, folder, temporary=".upkeep.tmp")
    with writing(folder):
        for path in old:
            if path != new:
                path.unlink(missing_ok=True)
        sync_folder(folder)
