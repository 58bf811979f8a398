"""Tasks on disk: they come back as they were, in the order asked for, and take no memory while they lie there."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.core.errors import StoreError
from recontext_data.core.records import NamedSpan, Task, content_hash, hash_of_list
from recontext_data.environments.code_mc import to_task
from recontext_data.environments.problems import ProblemFile
from recontext_data.store.task_file import READ_BYTES, WRITE_BYTES, TaskFile, TasksById, some_of
from tests.helpers import BANK, files_of_at_most

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def task(number: int, text: str = "Problem") -> Task:
    return Task(
        task_id=f"t{number}",
        messages=[{"role": "user", "content": f"{text} {number}"}],
        payload={"number": number},
        split="train",
        places={"note": NamedSpan(turn=0, start=2, stop=4, before="\n", after="“")},
    )


def test_the_banks_tasks_come_back_as_they_were() -> None:
    tasks = [to_task(problem) for _, problem in zip(range(300), ProblemFile(BANK), strict=False)]
    shelf = TaskFile(tasks)
    assert len(shelf) == 300 and list(shelf) == tasks == [shelf[i] for i in range(300)] == shelf[:]
    assert shelf[-1] == tasks[-1] and shelf[10:20:3] == tasks[10:20:3]
    with pytest.raises(IndexError):
        shelf[300]


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_any_text_and_any_payload_come_back(text: str, payload: dict[str, object]) -> None:
    one = Task(task_id=text, messages=[{"role": "user", "content": text}], payload=payload, split=text)
    assert list(TaskFile([one, task(1)])) == [one, task(1)]


def test_some_of_them_in_another_order_share_the_file() -> None:
    shelf = TaskFile(map(task, range(5)))
    some = shelf.picked([4, 0, 2])
    assert [one.task_id for one in some] == ["t4", "t0", "t2"] and len(some) == 3 and len(shelf) == 5
    assert [one.task_id for one in some.picked([2, 0])] == ["t2", "t4"]
    assert some[-1] == task(2)


def test_tasks_of_any_length_come_back_whatever_is_read_at_once() -> None:
    """Runs of neighbours are read together up to a size: at its border, beyond it, and where the order jumps."""
    tasks = [
        task(i, "x" * length)
        for i, length in enumerate([1, READ_BYTES, 5, READ_BYTES // 2, READ_BYTES // 2, 7, 3 * READ_BYTES])
    ]
    shelf = TaskFile(tasks)
    assert list(shelf) == tasks and shelf[::-1] == tasks[::-1] and shelf[1:6:2] == tasks[1:6:2] and shelf[3:3] == []
    order = [0, 1, 2, 6, 4, 5, 5, 3]
    assert list(shelf.picked(order)) == [tasks[i] for i in order] == shelf.picked(order)[:]


def test_a_task_is_found_by_its_id_among_several_shelves() -> None:
    tasks = TasksById(TaskFile(map(task, range(3))), [task(7)], TaskFile([task(9)]))
    assert list(tasks) == ["t0", "t1", "t2", "t7", "t9"] and len(tasks) == 5
    assert all(tasks[name].task_id == name for name in ["t9", "t7", "t7", "t0", "t2"])
    assert "t8" not in tasks and tasks.get("t8") is None


def test_threads_may_read_at_once() -> None:
    shelf = TaskFile(map(task, range(200)))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: shelf[i % 200].task_id, range(4000))) == [f"t{i % 200}" for i in range(4000)]


def test_a_list_is_hashed_as_its_whole() -> None:
    for values in ([], [1], [{"b": 1, "a": ["x"]}, None, "“"]):
        assert hash_of_list(iter(values)) == content_hash(values)


FILLS = """
import resource, sys
from recontext_data.core.records import Task
from recontext_data.store.task_file import TaskFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def task(i):
    return Task(task_id=str(i), messages=[{"role": "user", "content": f"{i} " * 500}], payload={}, split="train")
shelf = TaskFile(map(task, range(20_000)))
assert sum(len(task.messages[0]["content"]) for task in shelf) > 50_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is the kernel's")
def test_fifty_megabytes_of_tasks_take_two() -> None:
    said = subprocess.run([sys.executable, "-c", FILLS], check=True, capture_output=True, text=True)
    assert int(said.stdout) < 5 * 2**10


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_a_full_disk_is_said_in_one_line() -> None:
    shelf = TaskFile([task(1)])
    big = task(2, "x" * WRITE_BYTES)
    with files_of_at_most(4096):
        with pytest.raises(StoreError, match=f"^temporary files cannot be written to {tempfile.gettempdir()} "):
            shelf.add(big)
        with pytest.raises(StoreError, match=f"^temporary files cannot be written to {tempfile.gettempdir()} "):
            shelf[0]  # nothing is given as if the disk had taken all
    assert list(shelf) == [task(1), big], "there is room again"


def test_some_are_read_between_two_numbers() -> None:
    tasks = list(map(task, range(9)))
    for some in (tasks, TaskFile(tasks), TaskFile(tasks[::-1]).picked(range(8, -1, -1))):
        assert list(some_of(some, 2, 5)) == tasks[2:5] and list(some_of(some, 7, 99)) == tasks[7:]
        assert list(some_of(some, 3, 3)) == []
