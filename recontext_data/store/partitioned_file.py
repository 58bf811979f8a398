"""Tables that wait on disk, by number, in a file that has no name and goes with its holder."""

import io
from array import array
from typing import TYPE_CHECKING

from recontext_data.store.files import temp_write_errors, unlinked_tempfile

if TYPE_CHECKING:
    import polars as pl


class PartitionedTempFile:
    """For each number, the rows that were put there, in the order in which they came."""

    def __init__(self) -> None:
        self._file: io.FileIO | None = None
        """Opened when something is first put there: most plans never need it."""
        self._end = 0
        self._pieces: dict[int, array[int]] = {}
        """Starts and lengths in turn; pairs of Python integers take ten times the memory."""

    def add(self, number: int, frame: "pl.DataFrame") -> None:
        """Puts rows there.

        Raises:
            StoreError: the folder for temporary files is full.
        """
        self._file = self._file or unlinked_tempfile()
        encoded = io.BytesIO()
        frame.write_ipc(encoded)
        rest = encoded.getbuffer()
        length = len(rest)
        with temp_write_errors():
            self._file.seek(self._end)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._pieces.setdefault(number, array("Q")).extend((self._end, length))
        self._end += length

    def read(self, number: int) -> "pl.DataFrame | None":
        """The rows that are there; None where none were put."""
        import polars as pl

        if self._file is None:
            return None
        frames = []
        pieces = self._pieces.get(number, array("Q"))
        for start, length in zip(pieces[::2], pieces[1::2], strict=True):
            self._file.seek(start)
            frames.append(pl.read_ipc(io.BytesIO(self._file.read(length))))
        return pl.concat(frames) if frames else None
