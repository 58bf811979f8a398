"""Writing files so that a reader sees the old one or the new one, never half of one."""

import hashlib
import os
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
