"""Writing files so that a reader sees the old one or the new one, never half of one."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recontext_data.core.errors import StoreError


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a full disk or a folder without permission into one line that names the place."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{place}: cannot be written: {error.strerror or error}; what was there is still there") from error


def unlinked_tempfile() -> io.FileIO:
    """An unbuffered file in the folder for temporary files that nobody else can open; it goes with its holder.

    Raises:
        StoreError: there is no such folder, or it is full.
    """
    with temp_write_errors():
        return tempfile.TemporaryFile(buffering=0)


@contextmanager
def temp_write_errors() -> Iterator[None]:
    """As `writing`, for the folder for temporary files, which few people know that they have."""
    try:
        yield
    except OSError as error:
        folder, why = tempfile.tempdir or "any folder", error.strerror or error  # it is set once one was found
        raise StoreError(f"temporary files cannot be written to {folder} ({why}): make room there or set TMPDIR") from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, syncs it, and moves it into place in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            write(temporary)
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
