"""One writer's journal: lines appended and synced, each with a checksum of its own, and how they are read back.

    {"crc32":"1f3c09aa","key":...,"completion":...}\n
    {"crc32":"77e0b1c4","replies":[{"key":...,"completion":...},...]}\n    what came in one answer: all of it, or nothing

Every line is JSON by itself. The checksum is that of the line's bytes behind it, so a flipped bit is told from a good
line; a line that a kill cut short is the last one and is dropped, never an earlier one.
"""

import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import StoreError
from recontext_data.core.records import Reply
from recontext_data.store.files import writing

if TYPE_CHECKING:
    from filelock import BaseFileLock

MARK = b'{"crc32":"'
"""How every line starts. It cannot stand inside one, where JSON writes a quotation mark as \\\"."""

STALE_SECONDS = 3600
"""Age at which a lock without a journal is removed."""

BATCH = 256
"""Lines that are read at once."""

_DIGEST_END = len(MARK) + 8
_BODY = _DIGEST_END + len(b'",')


@dataclass(frozen=True, slots=True)
class Lines:
    """What some of a journal's bytes hold."""

    rows: list[dict[str, Any]]
    damaged: list[bytes]
    """Pieces whose checksum is wrong; an unfinished last line is not among them."""


def line(replies: Sequence[Reply], asked: Callable[[str], Mapping[str, Any]] | None) -> bytes:
    """Replies as one line of a journal, so that a kill leaves all of them or none."""
    rows = [_row(reply, asked(reply.key) if asked else None) for reply in replies]
    whole = rows[0] if len(rows) == 1 else {"replies": rows}
    return checked(whole)


def _row(reply: Reply, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "key": reply.key,
        "completion": reply.completion,
        "reasoning": reply.reasoning,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "details": _json(reply.details),
        "asked": _json(asked),
        "written": time.time(),
    }


def checked(row: Mapping[str, Any]) -> bytes:
    """A row that is not empty as one line with its checksum, as `batches` reads it."""
    body = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)[1:]
    return b'%s%08x",%s' % (MARK, zlib.crc32(body[:-1]), body)


def _json(value: Mapping[str, Any] | None) -> str | None:
    return orjson.dumps(dict(value), option=orjson.OPT_SORT_KEYS).decode() if value else None


def batches(path: Path) -> Iterator[Lines]:
    """A journal's lines, good and damaged, some at a time: as dicts they take several times the memory of their bytes.

    Its writer may be at work: an unfinished line is not there yet.
    """
    lines = Lines([], [])
    with path.open("rb") as handle:
        for text in handle:
            whole = text.endswith(b"\n")
            for piece in _pieces(text[:-1]) if whole else [text]:
                rows = _rows(piece)
                if rows is not None:
                    lines.rows.extend(rows)
                elif whole:
                    lines.damaged.append(piece)
            if not whole:  # what its writer has added since is not the rest of a line that was read before
                break
            if len(lines.rows) + len(lines.damaged) >= BATCH:
                yield lines
                lines = Lines([], [])
    yield lines


def _pieces(text: bytes) -> Iterator[bytes]:
    """A line; where a damaged newline has joined two, both."""
    if text.count(MARK) < 2:
        yield text
    else:
        first, *others = text.split(MARK)
        yield from ([first] if first else [])
        yield from (MARK + other for other in others)


def _rows(piece: bytes) -> list[dict[str, Any]] | None:
    """The rows, if the checksum is right with or without the last byte, which may be what became of a newline."""
    if not piece.startswith(MARK):
        return None
    for body in (piece[_BODY:], piece[_BODY:-1]):
        if piece[len(MARK) : _BODY] == b'%08x",' % zlib.crc32(body):
            whole: dict[str, Any] = orjson.loads(b"{" + body)
            rows: list[dict[str, Any]] = whole.get("replies", [whole])
            return rows
    return None


class Journal:
    """An open journal, locked for as long as it lives."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"journal-{uuid.uuid4().hex}.jsonl"
        self.bytes_synced = 0
        # Locked before it exists, so that nobody ever sees it without an owner.
        self._lock = lock(self.path)
        self._lock.acquire(blocking=False)
        try:
            self._file = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError:
            self.release()
            raise
        sync_folder(folder)

    def append(self, lines: bytes) -> None:
        """Writes and syncs; when this returns the lines survive a power cut, and when it raises none of them is there.

        Raises:
            OSError: as the system gave it. The journal must then be left alone; earlier lines are intact.
        """
        done = False
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
            done = os.fstat(self._file).st_nlink > 0
        finally:
            if not done:  # also for Ctrl-C half-way: what follows must not be glued to half a line
                os.ftruncate(self._file, self.bytes_synced)
        if not done:
            raise StoreError(f"{self.path}: was removed while a build was writing to it; run the build again")
        self.bytes_synced += len(lines)

    def close(self) -> None:
        """Stops writing; the lock stays until `release`."""
        os.close(self._file)

    def release(self) -> None:
        """Gives up the lock; whoever finds the journal after this seals it."""
        self._lock.release()
        if not self.path.exists():
            lock_path(self.path).unlink(missing_ok=True)


def lock_path(journal: Path) -> Path:
    """The file that says, by being locked, that a journal's writer lives."""
    return journal.with_suffix(".lock")


def lock(journal: Path) -> "BaseFileLock":
    """The lock of a journal, not yet held."""
    from filelock import FileLock

    return FileLock(lock_path(journal), thread_local=False)


def remove_stale_locks(folder: Path) -> None:
    """Lock files whose journals are long gone: left by a kill between removing the one and the other.

    A young one may belong to a writer that is about to create its journal.
    """
    for path in folder.glob("journal-*.lock"):
        with suppress(FileNotFoundError):
            if not path.with_suffix(".jsonl").exists() and time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Makes names in a folder survive a power cut: syncing a file does not sync its name."""
    if os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path, damaged: list[bytes]) -> str:
    """Keeps damaged lines in a file beside the journal, and says so in one line."""
    from recontext_data.store.files import replace_file

    beside = path.with_name(path.name.replace("journal-", "damaged-"))
    with writing(beside):
        replace_file(beside, lambda target: target.write_bytes(b"".join(piece + b"\n" for piece in damaged)))
    return f"{path}: {lines_text(len(damaged))} damaged and set aside in {beside.name}; what stood there is sampled again"


def lines_text(count: int) -> str:
    """`1 line is`, `2 lines are`"""
    return f"{count} line is" if count == 1 else f"{count} lines are"
