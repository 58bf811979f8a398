"""Tasks on disk: a sequence that keeps an index in memory, and the tasks in a file that has no name and goes with it.

A task may carry hundreds of hidden tests, and a build needs one task at a time: twenty thousand of them are here 16 bytes
each. A task comes back as its JSON has it, as it stands in a run's tasks.parquet, so what was a tuple is a list.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from threading import Lock
from typing import Self, overload

import orjson

from recontext_data.core.records import NamedSpan, Task
from recontext_data.store.files import temp_write_errors, unlinked_tempfile

READ_BYTES = 2**18
"""Of tasks that lie behind each other, read from the file at once; one that is longer is read alone."""

WRITE_BYTES = 2**16
"""Of tasks that are written at once; until then they wait in memory."""


class TaskFile(Sequence[Task]):
    """Tasks in the order in which they were put here, or in the one that `picked` gives. Several threads may read."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._file = unlinked_tempfile()
        self._lock = Lock()
        self._ends = array("Q", [0])
        self._waiting: list[bytes] = []
        self._written = 0
        self._order: array[int] | None = None
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """Puts a task at the end.

        Raises:
            StoreError: the folder for temporary files is full; it may also come from the next reading.
        """
        assert self._order is None, "a picked shelf is done"
        places = {name: [one.turn, one.start, one.stop, one.before, one.after] for name, one in task.places.items()}
        line = orjson.dumps([task.task_id, task.messages, task.payload, task.split, places], default=dict)
        with self._lock:
            self._waiting.append(line)
            self._ends.append(self._ends[-1] + len(line))
            if self._ends[-1] - self._written >= WRITE_BYTES:
                self._catch_up()

    def _catch_up(self) -> None:
        """Writes what waits; whoever calls holds the lock."""
        if not self._waiting:
            return
        rest = memoryview(b"".join(self._waiting))
        with temp_write_errors():
            self._file.seek(self._written)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._waiting.clear()
        self._written = self._ends[-1]

    def picked(self, numbers: Iterable[int]) -> Self:
        """The same tasks, those with these numbers, in this order; the file is shared."""
        with self._lock:
            self._catch_up()
        picked = object.__new__(type(self))
        picked._file, picked._lock, picked._ends, picked._waiting = self._file, self._lock, self._ends, []
        picked._order = array("Q", (self._place(number) for number in numbers))
        return picked

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        numbers = range(len(self))[index]  # as a list's: negative ones, and IndexError
        if isinstance(numbers, int):
            return next(self._read(range(numbers, numbers + 1)))
        return list(self._read(numbers))

    def __iter__(self) -> Iterator[Task]:
        return self._read(range(len(self)))

    def between(self, start: int, stop: int) -> Iterator[Task]:
        """The tasks with these numbers, read some at a time; a slice is a list of all."""
        return self._read(range(start, min(stop, len(self))))

    def _place(self, number: int) -> int:
        return number if self._order is None else self._order[number]

    def _read(self, numbers: range) -> Iterator[Task]:
        """These tasks; what lies together is read together."""
        done, count = 0, len(numbers)
        while done < count:
            first = end = self._place(numbers[done])
            most = bisect_right(self._ends, self._ends[first] + READ_BYTES, first + 2, len(self._ends)) - 1
            while done < count and end < most and self._place(numbers[done]) == end:
                end += 1
                done += 1
            start = self._ends[first]
            with self._lock:
                self._catch_up()
                self._file.seek(start)
                lines = memoryview(self._file.read(self._ends[end] - start))
            for one, next_one in pairwise(self._ends[first : end + 1]):
                yield _task(lines[one - start : next_one - start])


def some_of(tasks: Sequence[Task], start: int, stop: int) -> Iterator[Task]:
    """The tasks with these numbers, without a list of them where they lie on disk."""
    return tasks.between(start, stop) if isinstance(tasks, TaskFile) else iter(tasks[start:stop])


def _task(line: memoryview) -> Task:
    # By its slots: a frozen dataclass's own __init__ takes half of the time in which a task is read.
    task = object.__new__(Task)
    task_id, messages, payload, split, places = orjson.loads(line)
    _set_task_id(task, task_id)
    _set_messages(task, messages)
    _set_payload(task, payload)
    _set_split(task, split)
    _set_places(task, {name: _place(*place) for name, place in places.items()} if places else places)
    return task


_set_task_id, _set_messages, _set_payload, _set_split, _set_places = (
    getattr(Task, name).__set__ for name in ("task_id", "messages", "payload", "split", "places")
)


def _place(turn: int, start: int, stop: int, before: str, after: str) -> NamedSpan:
    return NamedSpan(turn=turn, start=start, stop=stop, before=before, after=after)


class TasksById(Mapping[str, Task]):
    """Tasks by their id, where only the ids are held."""

    def __init__(self, *parts: Sequence[Task]) -> None:
        self._parts = parts
        self._where = {task.task_id: number for number, task in enumerate(chain.from_iterable(parts))}
        self._last: Task | None = None

    def __getitem__(self, task_id: str) -> Task:
        last = self._last  # answers to one task are looked at one after the other
        if last is None or last.task_id != task_id:
            number, part = self._where[task_id], 0
            while number >= len(self._parts[part]):
                number, part = number - len(self._parts[part]), part + 1
            last = self._last = self._parts[part][number]
        return last

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
