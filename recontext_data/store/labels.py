"""What people say about candidates: one synced journal per reviewer, and labels.parquet made from all of them.

    runs/<recipe>/labels/<reviewer>.jsonl      every label, note and undo, appended and synced; never rewritten
    runs/<recipe>/labels/labels.parquet        what holds now; written from the journals and may be deleted

Candidates' ids are content, so labels hold for every run of a recipe that has those candidates. A journal is the truth:
a label is on disk before it is acknowledged, and an event that is sent twice counts once.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import DataError, InputError
from recontext_data.core.tables import LABELS, arrow_schema
from recontext_data.store import journal
from recontext_data.store.files import replace_file, writing

if TYPE_CHECKING:
    import pyarrow as pa

QUESTIONS: dict[str, tuple[str, ...]] = {"behaviour": ("hack", "not_hack", "unsure"), "use": ("keep", "drop")}
"""What a reviewer may be asked of a candidate, and the labels that answer it."""

NOTE = "note"
"""Stands where a question does in an event whose value is a note."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""A reviewer's name; it is also a file's name."""

LONGEST_NOTE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a journal."""

    event: str
    """An id that whoever sends it makes; sent again, it counts once."""
    candidate_id: str
    question: str
    value: str | None
    """A label or a note; None takes it away."""
    undoes: str | None
    """The event that this one takes back; value is None then."""
    time: float


@dataclass
class _Reviewer:
    """A journal as it was read."""

    bytes_read: int
    seen: set[str]
    stacks: dict[tuple[str, str], list[Event]]
    """What was said of a candidate and question, oldest first, without what was taken back."""
    order: list[Event]
    """All of it in order, without what was taken back."""
    damaged: int

    def apply(self, event: Event) -> None:
        if event.event in self.seen:
            return
        self.seen.add(event.event)
        key = (event.candidate_id, event.question)
        if event.undoes is None:
            self.stacks.setdefault(key, []).append(event)
            self.order.append(event)
        else:
            self.stacks[key] = [one for one in self.stacks.get(key, []) if one.event != event.undoes]
            self.order = [one for one in self.order if one.event != event.undoes]

    def value(self, candidate_id: str, question: str) -> Event | None:
        stack = self.stacks.get((candidate_id, question))
        return stack[-1] if stack and stack[-1].value is not None else None


class Labels:
    """The labels of one folder. Threads and processes may write at once, also under one reviewer's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.revision = 0
        """Grows whenever something that holds has changed."""
        self._reviewers: dict[str, _Reviewer] = {}
        self._inside = threading.RLock()
        self._compacting: threading.Timer | None = None

    def say(self, *, reviewer: str, candidate_id: str, question: str, value: str | None, event: str) -> bool:
        """Records a label or a note; when this returns it survives a power cut. False: this event was there already.

        Raises:
            InputError: the name, the question or the label is none.
            StoreError: it cannot be written; what was said before is intact.
        """
        _check(reviewer, question, value)
        made = Event(
            event=event, candidate_id=candidate_id, question=question, value=value, undoes=None, time=round(time.time(), 3)
        )
        return self._append(reviewer, made)

    def undo(self, *, reviewer: str, undoes: str, event: str) -> Event | None:
        """Takes back one event of this reviewer's; returns it, or None where it is taken back already or never was."""
        with self._inside:
            self.refresh()
            said = next((one for one in self._of(reviewer).order if one.event == undoes), None)
            if said is None:
                return None
            back = Event(
                event=event,
                candidate_id=said.candidate_id,
                question=said.question,
                value=None,
                undoes=undoes,
                time=round(time.time(), 3),
            )
            self._append(reviewer, back)
            return said

    def last(self, reviewer: str) -> Event | None:
        """What an undo would take back."""
        with self._inside:
            order = self._of(reviewer).order
            return order[-1] if order else None

    def value(self, reviewer: str, candidate_id: str, question: str) -> str | None:
        """What holds now."""
        with self._inside:
            found = self._of(reviewer).value(candidate_id, question)
            return found.value if found else None

    def answered(self, reviewer: str, question: str) -> set[str]:
        """The candidates on which this reviewer's answer holds."""
        with self._inside:
            one = self._of(reviewer)
            return {candidate for candidate, asked in one.stacks if asked == question and one.value(candidate, question)}

    def reviewers(self) -> list[str]:
        """Names, sorted."""
        with self._inside:
            return sorted(self._reviewers)

    def damaged(self) -> int:
        """Lines whose checksum is wrong."""
        with self._inside:
            return sum(one.damaged for one in self._reviewers.values())

    def rows(self) -> list[dict[str, Any]]:
        """What holds now, in the columns of `tables.LABELS`, sorted by candidate, question and reviewer."""
        with self._inside:
            found = [row for name, one in self._reviewers.items() for row in _rows(name, one)]
        return sorted(found, key=lambda row: (row["candidate_id"], row["question"], row["reviewer"]))

    def about(self, candidate_id: str) -> list[dict[str, Any]]:
        """Those of `rows` that are about one candidate."""
        with self._inside:
            found = [row for name, one in self._reviewers.items() for row in _rows(name, one, only=candidate_id)]
        return sorted(found, key=lambda row: (row["question"], row["reviewer"]))

    def table(self) -> "pa.Table":
        """`rows` as a table."""
        return _table(self.rows())

    def refresh(self) -> None:
        """Reads what other processes have written since."""
        with self._inside:
            for path in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else ():
                known = self._reviewers.get(path.stem)
                if known is None or path.stat().st_size != known.bytes_read:
                    self._reviewers[path.stem] = _read(path)
                    self.revision += 1

    def compact(self) -> Path:
        """Writes labels.parquet, replaced in one step, where it is not what the journals say; returns its path."""
        import pyarrow.parquet as pq

        path = self.folder / "labels.parquet"
        with self._inside, self._alone():
            self.refresh()
            table = self.table()
            if not path.is_file() or not pq.read_table(path).equals(table):
                replace_file(path, lambda target: pq.write_table(table, target, compression="zstd"))
        return path

    def compact_soon(self, *, seconds: float = 1.0) -> None:
        """Compacts in a moment: whoever labels fast should not wait for a file that can be made at any time."""
        with self._inside:
            if self._compacting is None:
                self._compacting = threading.Timer(seconds, self._compact_now)
                self._compacting.daemon = True
                self._compacting.start()

    def close(self) -> None:
        """Compacts what was to be compacted soon."""
        with self._inside:
            if self._compacting is not None:
                self._compacting.cancel()
                self._compact_now()

    def _compact_now(self) -> None:
        with self._inside:
            self._compacting = None
            self.compact()

    def _of(self, reviewer: str) -> _Reviewer:
        return self._reviewers.get(reviewer) or _Reviewer(0, set(), {}, [], 0)

    def _alone(self) -> Any:
        from filelock import FileLock

        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock", thread_local=False)

    def _append(self, reviewer: str, event: Event) -> bool:
        with self._inside, self._alone():
            self.refresh()
            known = self._reviewers.setdefault(reviewer, _Reviewer(0, set(), {}, [], 0))
            if event.event in known.seen:
                return False
            path = self.folder / f"{reviewer}.jsonl"
            with writing(path):
                known.bytes_read = _write(path, journal.checked(asdict(event)))
            known.apply(event)
            self.revision += 1
            return True


def labels_of(path: Path) -> "pa.Table":
    """The labels that a path leads to, in the columns of `tables.LABELS`.

    A labels.parquet with journals beside it is what the journals say: after a crash it may lack the last labels.

    Raises:
        DataError: there is no such file, or it holds no labels.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = path if path.is_dir() else path.parent
    if any(folder.glob("*.jsonl")) and (path.is_dir() or path.name == "labels.parquet"):
        labels = Labels(folder)
        labels.refresh()
        return labels.table()
    if not path.is_file():
        raise DataError(
            f"labels={path}: there is no such file; `recontext view` writes one as runs/RECIPE/labels/labels.parquet"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"labels={path}: is not a Parquet file that can be read: {error}") from None
    missing = [column.name for column in LABELS if column.name not in table.column_names and column.name != "note"]
    if missing:
        raise DataError(
            f"labels={path}: has no column {missing[0]!r}; it needs reviewer, candidate_id, question, label and time"
        )
    return table


def _check(reviewer: str, question: str, value: str | None) -> None:
    if not NAME.fullmatch(reviewer):
        raise InputError(f"reviewer={reviewer!r}: is not a valid name; use up to 40 letters, digits, '.', '_' and '-'")
    if question == NOTE:
        if value is not None and len(value) > LONGEST_NOTE:
            raise InputError(f"note: has {len(value):,} characters; write at most {LONGEST_NOTE:,}")
    elif question not in QUESTIONS:
        raise InputError(f"question={question!r}: is none; known: {', '.join(QUESTIONS)}")
    elif value is not None and value not in QUESTIONS[question]:
        raise InputError(f"label={value!r}: does not answer {question}; known: {', '.join(QUESTIONS[question])}")


def _rows(name: str, one: _Reviewer, *, only: str | None = None) -> Iterator[dict[str, Any]]:
    for candidate_id, question in one.stacks if only is None else [(only, question) for question in QUESTIONS]:
        said = one.value(candidate_id, question)
        if said is None or question == NOTE:
            continue
        note = one.value(candidate_id, NOTE)
        yield {
            "reviewer": name,
            "candidate_id": candidate_id,
            "question": question,
            "label": said.value,
            "note": note.value if note else None,
            "time": _utc(said.time),
        }


def _utc(seconds: float) -> str:
    whole, rest = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:03d}Z"


def _table(rows: list[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=arrow_schema(LABELS))


def _read(path: Path) -> _Reviewer:
    one = _Reviewer(path.stat().st_size, set(), {}, [], 0)
    for lines in journal.batches(path):
        for row in lines.rows:
            one.apply(Event(**row))
        one.damaged += len(lines.damaged)
    return one


def _write(path: Path, line: bytes) -> int:
    """Appends and syncs; returns the file's size. A line that a crash cut short is ended first, and stays as damage."""
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        size = os.fstat(handle).st_size
        if size:
            os.lseek(handle, size - 1, os.SEEK_SET)
            line = line if os.read(handle, 1) == b"\n" else b"\n" + line
        done = False
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
            done = True
        finally:
            if not done:
                os.ftruncate(handle, size)
        if is_new:
            journal.sync_folder(path.parent)
        return size + len(line)
    finally:
        os.close(handle)
