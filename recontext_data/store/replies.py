"""The reply store: what was paid for, on disk before it is counted, found again by content.

    replies/journal-<id>.jsonl      one open journal per writer, appended and synced in groups (see journal.py)
    replies/segment-<hash>.parquet  sealed journals, sorted by key (see segments.py)
    replies/damaged-<id>.jsonl, corrupt-<hash>.parquet   what could not be read, set aside and named in a warning

A journal is locked by its writer for as long as it lives. A journal that nobody locks was left by a build that ended
badly: the next build seals it. Keys are content (see `records`), so builds share everything and order means nothing; a
key that two builds bought at once keeps the reply written first. To look inside:

    ReplyStore(folder).scan().group_by("model").len().collect()
    ReplyStore(folder).duckdb_view(connection); connection.sql("SELECT model, count(*) FROM replies GROUP BY ALL")

or, of what is sealed, without any of this: SELECT * FROM 'replies/segment-*.parquet'.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from recontext_data.core.errors import StoreError
from recontext_data.core.records import Reply
from recontext_data.store import journal, segments
from recontext_data.store.files import writing
from recontext_data.store.key_index import KeyIndex
from recontext_data.store.partitioned_file import PartitionedTempFile

if TYPE_CHECKING:
    import duckdb
    import polars as pl

T = TypeVar("T")

ROLL_BYTES = 2 * 2**20
"""A journal longer than this is sealed and another begun: it bounds what sealing takes: 30 MB, a quarter second."""

MERGE_ABOVE = 64
"""Small segments that may lie about before the next writer merges them."""

TRIES = 20
"""Times that a reader lists the segments again because one went away while it read."""

SORTED_AT_ONCE = 2048
"""Replies that are sorted by part at once."""

_NOT_FOUND = ("asked",)
"""Columns that `find` leaves out: they are for people who wonder about a key."""

Asked = Callable[[str], Mapping[str, Any]]
"""From a reply's key to what went into it; stored for people who wonder about a key, and never read by a build."""


class ReplyStore:
    """All replies under one folder; use as a context manager to write."""

    def __init__(self, folder: Path, *, roll_bytes: int = ROLL_BYTES, merge_above: int = MERGE_ABOVE) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        """Lines for the screen about replies that were damaged on disk; each once."""
        self._roll_bytes = roll_bytes
        self._merge_above = merge_above
        self._journal: journal.Journal | None = None
        self._verified: set[tuple[str, int, int]] = set()

    def __enter__(self) -> Self:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.seal_abandoned()
            segments.compact(self.folder, above=self._merge_above)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            # Whatever went wrong may go wrong again while sealing; the journal is safe, and the next build seals it.
            self._leave_journal()

    def begin(self) -> None:
        """Opens the journal, before anything is bought: a folder that cannot be written must be found out now.

        Raises:
            StoreError: it cannot be written.
        """
        with writing(self.folder):
            self._journal = self._journal or journal.Journal(self.folder)

    def append(self, replies: Iterable[Reply], *, asked: Asked | None = None) -> None:
        """Writes completions and syncs them; when this returns they survive a power cut. Raises as `append_together`."""
        self.append_together(([reply] for reply in replies), asked=asked)

    def append_together(self, groups: Iterable[Sequence[Reply]], *, asked: Asked | None = None) -> None:
        """As `append`; a kill half-way leaves of each group all or nothing. What came in one answer belongs together: asked
        for a part of it, the server would draw that with another seed.

        Raises:
            StoreError: the disk is full or the folder cannot be written; earlier replies are intact.
        """
        lines = b"".join(journal.line(group, asked) for group in groups if group)
        if not lines:
            return
        self.begin()
        assert self._journal is not None
        with writing(self.folder):
            try:
                self._journal.append(lines)
            except OSError:
                # After a failed sync nobody knows what the disk holds beyond it; what was acknowledged is before it.
                self._leave_journal()
                raise
        if self._journal.bytes_synced > self._roll_bytes:
            self.close()

    def find(self, keys: "pl.Series") -> "pl.DataFrame":
        """The stored replies for these keys, one row each at most, in no particular order. Every byte read is verified.

        Raises:
            StoreError: a segment is damaged; the message names it and the command that sets it aside.
        """
        import polars as pl

        wanted = pl.col("key").is_in(keys.cast(pl.String).unique().implode())
        columns = _found()
        return segments.first_written(self.query(lambda rows: rows.filter(wanted).select(columns), columns=columns))

    def find_parts(self, index: KeyIndex) -> "Iterator[pl.DataFrame]":
        """As `find`, for one part of the keys after the other.

        The store is read once, however many parts there are, and what was found waits on disk for its turn.

        Raises:
            StoreError: as for `find`, before the first is given; or the folder for temporary files is full.
        """
        import polars as pl

        def look(rows: pl.DataFrame, paths: list[Path]) -> PartitionedTempFile:
            spill = PartitionedTempFile()
            for some, places in _matching(rows, paths, index, _found()):
                _sort_by_part(some, places, index, spill)
            return spill

        spill = self._tried(_found(), look)
        nothing = pl.DataFrame(schema={name: kind for name, kind in segments.schema().items() if name not in _NOT_FOUND})
        for number in range(index.num_parts):
            rows = spill.read(number)
            yield nothing if rows is None else segments.first_written(rows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever stored."""
        return not any(self.folder.glob("*-*"))

    def which(self, index: KeyIndex) -> "pl.Series":
        """For each key of a list whether its reply is there.

        Raises:
            StoreError: as for `find`.
        """
        import polars as pl

        there = pl.repeat(False, len(index), dtype=pl.Boolean, eager=True)

        def look(rows: pl.DataFrame, paths: list[Path]) -> list[pl.Series]:
            return [places["row"] for _, places in _matching(rows, paths, index, ["key"])]

        found = pl.concat(self._tried(["key"], look))
        return there.scatter(found, values=True) if len(found) else there

    def look_up(self, index: KeyIndex, *, columns: Sequence[str]) -> "pl.DataFrame":
        """Some columns, the key among them, of the replies whose keys are in a list: one row each at least, in no order.

        Raises:
            StoreError: as for `find`.
        """
        import polars as pl

        def look(rows: pl.DataFrame, paths: list[Path]) -> pl.DataFrame:
            return pl.concat(some[places["at"].unique()] for some, places in _matching(rows, paths, index, columns))

        return self._tried(columns, look)

    def query(
        self, question: "Callable[[pl.LazyFrame], pl.LazyFrame]", *, columns: Sequence[str] | None = None
    ) -> "pl.DataFrame":
        """The answer to a question over everything: every byte verified, and asked again when a merge comes between.

        `columns` are those that the question looks at, where it does not look at all.

        Raises:
            StoreError: as for `find`.
        """
        return self._tried(columns, lambda rows, paths: question(_union(rows, paths)).collect())

    def _tried(self, columns: Sequence[str] | None, look: "Callable[[pl.DataFrame, list[Path]], T]") -> T:
        """What `look` finds in the open replies and the segments; it looks again when a merge comes between."""
        import polars as pl

        for _ in range(TRIES):
            open_replies, paths = self._now(columns)
            try:
                self._verify(paths)
                return look(open_replies, paths)
            except FileNotFoundError:
                continue
            except (pl.exceptions.PolarsError, OSError) as error:
                self._blame(paths, error)
        raise StoreError(f"{self.folder}: its segments went away {TRIES} times while they were read; is it being removed?")

    def scan(self) -> "pl.LazyFrame":
        """Every reply, lazily, as of now. A key that two builds bought at once stands there twice until a merge.

        Journals are read at once, segments when the frame is collected: a merge in between takes some away, and then a
        new scan finds all of it. Segments are not verified; `query` does both.
        """
        return _union(*self._now())

    def duckdb_view(self, connection: "duckdb.DuckDBPyConnection", name: str = "replies") -> None:
        """Makes every reply, as of now, a temporary view of that name in a DuckDB connection; see `scan`."""
        open_replies, segment_paths = self._now()
        open_name = f"{name}_in_journals"
        connection.register(open_name, open_replies.to_arrow())
        columns = ", ".join(segments.schema())
        text = f"SELECT {columns} FROM {_quoted(open_name)}"
        paths = [str(path).replace("'", "''") for path in segment_paths]
        if paths:
            files = ", ".join(f"'{path}'" for path in paths)
            text += f" UNION ALL SELECT {columns} FROM read_parquet([{files}])"
        connection.execute(f"CREATE OR REPLACE TEMPORARY VIEW {_quoted(name)} AS {text}")

    def close(self) -> None:
        """Seals the journal into a segment. Killed before this, the next build does it."""
        if self._journal is None:
            return
        mine, self._journal = self._journal, None
        mine.close()
        try:
            self._seal(mine.path)
        finally:
            mine.release()

    def seal_abandoned(self) -> None:
        """Makes segments of the journals whose writers are gone."""
        from filelock import Timeout

        for path in segments.listing(self.folder, "journal-*.jsonl"):
            lock = journal.lock(path)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue  # its writer lives
            try:
                if path.exists():
                    self._seal(path)
                journal.lock_path(path).unlink(missing_ok=True)
            finally:
                lock.release()
        journal.remove_stale_locks(self.folder)

    def _seal(self, path: Path) -> None:
        """Journal to segment; the journal goes only when the segment is on disk, and a reader in between sees both."""
        rows, damaged = _read(path)
        with writing(self.folder):
            if damaged:
                self._warn(journal.set_aside(path, damaged))
            segments.write(rows, self.folder, temporary=f".{path.stem}.tmp")
            path.unlink()

    def _leave_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            if not self._journal.bytes_synced:  # nothing was bought, so nothing is left behind
                with suppress(OSError):
                    self._journal.path.unlink()
            self._journal.release()
            self._journal = None

    def _now(self, columns: Sequence[str] | None = None) -> "tuple[pl.DataFrame, list[Path]]":
        # Journals first: one that is sealed meanwhile is then found as a segment.
        return self._open_replies(columns), segments.listing(self.folder)

    def _verify(self, paths: list[Path]) -> None:
        """Reads each segment whole once, since a flipped bit in a completion is a completion like any other."""
        for path in paths:
            facts = path.stat()
            mark = (path.name, facts.st_size, facts.st_mtime_ns)
            if mark not in self._verified:
                segments.require_intact([path])
                self._verified.add(mark)

    def _blame(self, paths: list[Path], error: Exception) -> None:
        """Raises the one line that names the damaged segment; returns if they are all good and only one has gone."""
        if isinstance(error, StoreError):
            raise error
        self._verified.clear()
        segments.require_intact([path for path in paths if path.exists()])
        if all(path.exists() for path in paths):
            raise StoreError(f"{self.folder}: cannot be read: {' '.join(str(error).split())}") from error

    def _open_replies(self, columns: Sequence[str] | None) -> "pl.DataFrame":
        """What the journals hold, those of other writers too; other columns than these are null."""
        import polars as pl

        frames = [pl.DataFrame(schema=segments.schema())]
        for path in segments.listing(self.folder, "journal-*.jsonl"):
            try:
                rows, damaged = _read(path, columns)
            except FileNotFoundError:
                continue  # sealed meanwhile
            if damaged:
                self._warn(f"{path}: {journal.lines_text(len(damaged))} damaged; what stood there is sampled again")
            frames.append(rows)
        return pl.concat(frames)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _read(path: Path, columns: Sequence[str] | None = None) -> "tuple[pl.DataFrame, list[bytes]]":
    """What a journal holds (other columns than these are null), and its damaged lines."""
    import polars as pl

    frames, damaged = [], list[bytes]()
    for lines in journal.batches(path):
        rows = lines.rows if columns is None else [{name: row[name] for name in columns} for row in lines.rows]
        frames.append(pl.DataFrame(rows, schema=segments.schema()))
        damaged += lines.damaged
    return pl.concat(frames), damaged


def _found() -> list[str]:
    """The columns that are found."""
    return [name for name in segments.schema() if name not in _NOT_FOUND]


def _matching(
    open_replies: "pl.DataFrame", paths: list[Path], index: KeyIndex, columns: Sequence[str]
) -> "Iterator[tuple[pl.DataFrame, pl.DataFrame]]":
    """The open replies, then every row group of the segments, and where their keys stand in a list (`KeyIndex.places`)."""
    import polars as pl

    for source in [open_replies.lazy(), *map(pl.scan_parquet, paths)]:
        num_rows = source.select(pl.len()).collect().item()
        for start in range(0, max(num_rows, 1), segments.ROWS_PER_GROUP):
            rows = source.slice(start, segments.ROWS_PER_GROUP).select(columns).collect()
            yield rows, index.places(rows["key"])


def _sort_by_part(rows: "pl.DataFrame", places: "pl.DataFrame", index: KeyIndex, spill: PartitionedTempFile) -> None:
    """Puts replies where their part of the list waits; those of a key that stands in several parts in each."""
    pairs = places.select("at", part=index.parts(places["row"])).unique(maintain_order=True)
    for some in pairs.iter_slices(SORTED_AT_ONCE):
        for (part,), piece in some.group_by("part"):
            spill.add(int(part), rows[piece["at"]])


def _union(open_replies: "pl.DataFrame", paths: list[Path]) -> "pl.LazyFrame":
    import polars as pl

    return pl.concat([open_replies.lazy(), *map(pl.scan_parquet, paths)])


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
