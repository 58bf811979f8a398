"""Tables that wait on disk, by number, in a file that has no name and goes with its holder."""

import io
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.store.files import writing

if TYPE_CHECKING:
    import polars as pl


class Spill:
    """For each number, the rows that were put there, in the order in which they came."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the spill
        self._end = 0
        self._pieces: dict[int, array[int]] = {}
        """Starts and lengths in turn; pairs of Python integers take ten times the memory."""

    def add(self, number: int, frame: "pl.DataFrame") -> None:
        """Puts rows there.

        Raises:
            StoreError: the folder for temporary files is full.
        """
        encoded = io.BytesIO()
        frame.write_ipc(encoded)
        rest = encoded.getbuffer()
        self._pieces.setdefault(number, array("Q")).extend((self._end, len(rest)))
        with writing(Path(tempfile.gettempdir())):
            self._file.seek(self._end)
            while rest:
                written = self._file.write(rest)
                rest, self._end = rest[written:], self._end + written

    def read(self, number: int) -> "pl.DataFrame | None":
        """The rows that are there; None where none were put."""
        import polars as pl

        frames = []
        pieces = self._pieces.get(number, array("Q"))
        for start, length in zip(pieces[::2], pieces[1::2], strict=True):
            self._file.seek(start)
            frames.append(pl.read_ipc(io.BytesIO(self._file.read(length))))
        return pl.concat(frames) if frames else None
