"""Writing files so that a reader sees the old one or the new one, never half of one."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recontext_data.errors import StoreError


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a full disk or a folder without permission into one line that names the place."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{place}: cannot be written: {error.strerror or error}; what was there is still there") from error


def nameless() -> io.FileIO:
    """An unbuffered file in the folder for temporary files that nobody else can open; it goes with its holder.

    Raises:
        StoreError: there is no such folder, or it is full.
    """
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StoreError(f"{error.strerror}: set TMPDIR to a folder that can be written") from None
    with writing(folder):
        return tempfile.TemporaryFile(buffering=0)


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
