"""Tables that wait on disk: they come back as they were put, and a disk that takes no more is one line."""

import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest

from recontext_data.core.errors import StoreError
from recontext_data.store.files import unlinked_tempfile
from recontext_data.store.partitioned_file import PartitionedTempFile
from recontext_data.store.task_file import TaskFile
from tests.helpers import files_of_at_most


def table(*numbers: int, text: str = "é") -> pl.DataFrame:
    return pl.DataFrame({"n": list(numbers), "text": [f"{text} {n}" if n % 2 else None for n in numbers]})


def test_what_was_put_under_a_number_comes_back_in_order_as_often_as_asked() -> None:
    spill = PartitionedTempFile()
    assert spill.read(3) is None
    numbers: tuple[int, ...]
    for number, numbers in ((3, (1, 2)), (0, (9,)), (3, (3,)), (3, ()), (0, (8, 7))):
        spill.add(number, table(*numbers))
    for _ in range(2):
        for number, numbers in ((3, (1, 2, 3)), (0, (9, 8, 7))):
            found = spill.read(number)
            assert found is not None and found.equals(table(*numbers))
    assert spill.read(1) is None


def test_nothing_is_opened_before_something_is_put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    spill = PartitionedTempFile()
    assert spill.read(0) is None
    for look in (lambda: spill.add(0, table(1)), TaskFile):
        with pytest.raises(
            StoreError, match=f"cannot be written to {tmp_path / 'gone'} .No such file or directory.: make room"
        ):
            look()


def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(StoreError, match=r"^temporary files cannot be written to any folder \(No usable .*\): .* set TMPDIR$"):
        unlinked_tempfile()


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_a_full_disk_is_said_in_one_line_and_keeps_what_was_there() -> None:
    spill = PartitionedTempFile()
    spill.add(0, table(1))
    with (
        files_of_at_most(8192),
        pytest.raises(StoreError, match=f"^temporary files cannot be written to {tempfile.gettempdir()} "),
    ):
        spill.add(0, table(*range(1001), text="x" * 100))
    found = spill.read(0)
    assert found is not None and found.equals(table(1))
