"""DuckDB over the run's Parquet files: bounded memory, a time limit on every question, nothing loaded beforehand."""

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import RecontextError, StoreError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY = "200MB"
THREADS = 2
SECONDS = 20.0
"""A question that takes longer is broken off."""

AT_ONCE = 2
"""Questions that are answered at once; they share the memory."""


class TooSlow(RecontextError, TimeoutError):
    """A question took longer than its limit."""


@dataclass
class Database:
    """One DuckDB in memory, which reads files and holds nothing of its own."""

    memory: str = MEMORY
    threads: int = THREADS
    _spill: "tempfile.TemporaryDirectory[str]" = field(init=False)
    _connection: "duckdb.DuckDBPyConnection" = field(init=False)
    _turn: threading.Semaphore = field(init=False, default_factory=lambda: threading.Semaphore(AT_ONCE))

    def __post_init__(self) -> None:
        import duckdb

        self._spill = tempfile.TemporaryDirectory(prefix="recontext-view-")
        self._connection = duckdb.connect(
            config={
                "memory_limit": self.memory,
                "threads": self.threads,
                "temp_directory": self._spill.name,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "preserve_insertion_order": False,
            }
        )

    def rows(self, sql: str, parameters: Sequence[Any] = (), *, seconds: float = SECONDS) -> list[dict[str, Any]]:
        """The answer, as one dict per row.

        Raises:
            TooSlow: it took longer than `seconds`.
            StoreError: a file cannot be read, as when a build replaces it at this moment.
        """
        import duckdb

        with self._turn:
            cursor = self._connection.cursor()
            timer = threading.Timer(seconds, cursor.interrupt)
            timer.start()
            try:
                answer = cursor.execute(sql, list(parameters))
                names = [column[0] for column in answer.description or ()]
                return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
            except duckdb.InterruptException:
                raise TooSlow(f"this took longer than {seconds:g} s and was broken off; narrow it with a filter") from None
            except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InvalidInputException) as error:
                raise StoreError(f"the run's tables cannot be read now: {_first_line(error)}; reload the page") from None
            finally:
                timer.cancel()
                cursor.close()

    def load(self, table: str, rows: "pa.Table") -> None:
        """Makes a small table of rows that are in no file, in place of the one of that (quoted) name."""
        with self._turn:
            cursor = self._connection.cursor()
            try:
                cursor.register("loading", rows)
                cursor.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM loading")
            finally:
                cursor.close()

    def close(self) -> None:
        """Frees everything."""
        self._connection.close()
        self._spill.cleanup()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def quoted(text: str) -> str:
    """A text as an SQL literal; for file names, which cannot be parameters of a table function in a view."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'


def source(files: Sequence[Path]) -> str:
    """A table's files as SQL: their columns and `row`, a number by which rows are sorted and found again."""
    # With one file, which is the usual case, `row` is the reader's own and a filter on it skips row groups.
    parts = [
        f"SELECT {f'{index << 40} + ' if index else ''}file_row_number AS row, * EXCLUDE (file_row_number) "
        f"FROM read_parquet({quoted(str(path))}, file_row_number=true)"
        for index, path in enumerate(files)
    ]
    return f"({' UNION ALL BY NAME '.join(parts)})"
