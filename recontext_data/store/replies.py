"""The reply store: what was paid for, on disk before it is counted, found again by content.

    replies/journal-<id>.jsonl      one open journal per writer, appended and synced in groups
    replies/segment-<hash>.parquet  sealed journals

A journal is locked by its writer for as long as it lives. A journal that nobody locks was left by a build that ended
badly: the next build seals it. A torn last line is dropped, never an earlier one. Keys are content (see `records`), so
builds share everything and order means nothing; a key that two builds bought at once keeps the reply written first.
"""

import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import orjson

from recontext_data.errors import StoreError
from recontext_data.records import Reply
from recontext_data.store.files import replace_file, writing

if TYPE_CHECKING:
    import polars as pl
    from filelock import BaseFileLock


def _schema() -> "dict[str, type[pl.DataType]]":
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
        "written": pl.Float64,
    }


class ReplyStore:
    """All replies under one folder; use as a context manager to write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal: BinaryIO | None = None
        self._lock: BaseFileLock | None = None
        self._path: Path | None = None

    def __enter__(self) -> Self:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._seal_abandoned()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif self._journal is not None and self._lock is not None:
            # Whatever went wrong may go wrong again while sealing; the journal is safe, and the next build seals it.
            self._journal.close()
            self._lock.release()

    def append(self, replies: Iterable[Reply]) -> None:
        """Writes completions and syncs them; when this returns they survive a power cut.

        Raises:
            StoreError: the disk is full or the folder cannot be written; earlier replies are intact.
        """
        lines = b"".join(_line(reply) for reply in replies)
        with writing(self.folder):
            journal = self._open_journal()
            journal.write(lines)
            journal.flush()
            os.fsync(journal.fileno())

    def find(self, keys: "pl.Series") -> "pl.DataFrame":
        """The stored replies for these keys, one row each at most, in no particular order."""
        import polars as pl

        wanted = pl.LazyFrame({"key": keys.unique()})
        # Journals first: one that is sealed by its writer in the meantime is then found as a segment.
        parts = [frame.lazy() for path in sorted(self.folder.glob("journal-*.jsonl")) for frame in _if_there(path)]
        parts += [pl.scan_parquet(path) for path in sorted(self.folder.glob("segment-*.parquet"))]
        if not parts:
            return pl.DataFrame(schema=_schema())
        found = pl.concat(parts).join(wanted, on="key", how="semi").collect()
        return found.sort("written", "completion").unique("key", keep="first", maintain_order=True)

    def close(self) -> None:
        """Seals the journal into a segment. Killed before this, the next build does it."""
        if self._journal is None or self._path is None or self._lock is None:
            return
        self._journal.close()
        _seal(self._path)
        self._lock.release()
        _lock_path(self._path).unlink(missing_ok=True)
        self._journal = self._path = self._lock = None

    def _open_journal(self) -> BinaryIO:
        if self._journal is None:
            self._path = self.folder / f"journal-{uuid.uuid4().hex}.jsonl"
            self._lock = _lock(self._path)
            self._lock.acquire(blocking=False)
            self._journal = self._path.open("ab")
        return self._journal

    def _seal_abandoned(self) -> None:
        from filelock import Timeout

        for path in sorted(self.folder.glob("journal-*.jsonl")):
            lock = _lock(path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue  # its writer lives
            if path.exists():
                _seal(path)
            lock.release()
            _lock_path(path).unlink(missing_ok=True)


def _lock_path(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def _lock(journal: Path) -> "BaseFileLock":
    from filelock import FileLock

    return FileLock(_lock_path(journal), thread_local=False)


def _line(reply: Reply) -> bytes:
    row = {
        "key": reply.key,
        "completion": reply.completion,
        "reasoning": reply.reasoning,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "details": orjson.dumps(dict(reply.details), option=orjson.OPT_SORT_KEYS).decode() if reply.details else None,
        "written": time.time(),
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _read_journal(path: Path) -> "pl.DataFrame":
    import polars as pl

    rows: list[Any] = []
    whole, newline, _torn = path.read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if newline else [], 1):
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise StoreError(f"{path}: line {number} is damaged ({error}); move the file away to sample its replies again") from None
    return pl.DataFrame(rows, schema=_schema())


def _if_there(path: Path) -> "list[pl.DataFrame]":
    try:
        return [_read_journal(path)]
    except FileNotFoundError:
        return []


def _seal(path: Path) -> None:
    """Journal to segment; the journal goes only when the segment is on disk, and a reader in between sees both."""
    frame = _read_journal(path)
    with writing(path.parent):
        if len(frame):
            segment = path.parent / f"segment-{path.stem.removeprefix('journal-')}.parquet"
            replace_file(segment, lambda target: frame.sort("key").write_parquet(target, compression="zstd"))
        path.unlink()
