"""The run folder: the manifest is last, says what is there, and a run without it is unfinished."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import polars as pl
import pytest

from recontext_data.core.errors import InputError, StoreError
from recontext_data.store.run_folder import RunFolder, require_writable
from tests.helpers import files_of_at_most

FRAME = pl.DataFrame({"a": [1, 2]})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path, recipe="r", fingerprint="f" * 64)
    with made.locked():
        pass
    return made


def finish(folder: RunFolder) -> None:
    folder.write_table("tasks", FRAME)
    with folder.staged_arms() as staging:
        (staging / "one").mkdir()
        (staging / "one" / "data").write_bytes(b"x")
    folder.finish({"n": 1})


def test_a_finished_run_has_a_manifest_with_the_hash_of_every_file(folder: RunFolder) -> None:
    assert folder.manifest() is None
    finish(folder)
    manifest = folder.manifest()
    assert manifest is not None and manifest["n"] == 1
    assert sorted(manifest["files"]) == ["arms/one/data", "tasks.parquet"]
    assert manifest["files"]["arms/one/data"] == {
        "bytes": 1,
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }
    assert (folder.path.parent / "latest").resolve() == folder.path


@pytest.mark.parametrize("name", ["tasks.parquet", "arms/one/data"])
def test_a_run_that_lost_a_file_is_unfinished(name: str, folder: RunFolder) -> None:
    finish(folder)
    (folder.path / name).write_bytes(b"other")
    assert folder.manifest() is None
    finish(folder)
    (folder.path / name).unlink()
    assert folder.manifest() is None


def test_a_manifest_of_another_format_is_built_again(folder: RunFolder) -> None:
    finish(folder)
    path = folder.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    assert folder.manifest() is None


@pytest.mark.parametrize("text", ["{", "", "[]", "null", '{"format": 1}'])
def test_a_damaged_manifest_is_said_or_built_again(text: str, folder: RunFolder) -> None:
    finish(folder)
    (folder.path / "manifest.json").write_text(text)
    try:
        assert folder.manifest() is None
    except StoreError as error:
        assert "manifest.json: is damaged" in str(error) and "delete the file" in str(error)


def test_beginning_again_takes_the_manifest_away(folder: RunFolder) -> None:
    finish(folder)
    folder.begin()
    assert folder.manifest() is None


def test_arms_appear_at_once_or_not_at_all(folder: RunFolder) -> None:
    finish(folder)
    with pytest.raises(ValueError, match="stop"), folder.staged_arms() as staging:
        (staging / "half").mkdir()
        raise ValueError("stop")
    assert [path.name for path in (folder.path / "arms").iterdir()] == ["one"]
    assert not (folder.path / ".arms.tmp").exists()


def test_what_a_killed_build_left_is_cleared(folder: RunFolder) -> None:
    (folder.path / ".arms.tmp" / "half").mkdir(parents=True)
    finish(folder)
    assert [path.name for path in (folder.path / "arms").iterdir()] == ["one"]


def test_a_second_build_waits_for_the_first(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    tried = threading.Event()

    class Noticed(filelock.FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().acquire(*args, **kwargs)
            finally:
                tried.set()

    monkeypatch.setattr(filelock, "FileLock", Noticed)

    def second() -> None:
        with folder.locked() as waited:
            order.append(f"second, waited: {waited}")

    with folder.locked() as waited:
        assert not waited
        tried.clear()
        thread = threading.Thread(target=second)
        thread.start()
        assert tried.wait(timeout=60)
        order.append("first")
    thread.join(timeout=60)
    assert order == ["first", "second, waited: True"]


def test_latest_follows_the_newest(tmp_path: Path) -> None:
    folders = [RunFolder(tmp_path, recipe="r", fingerprint=letter * 64) for letter in "ab"]
    for made in [*folders, folders[0]]:
        with made.locked():
            finish(made)
        assert (tmp_path / "runs" / "r" / "latest").resolve() == made.path


def test_a_file_where_a_folder_must_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"), RunFolder(tmp_path, recipe="r", fingerprint="f" * 64).locked():
        pass


def test_an_output_below_a_file_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    require_writable(tmp_path / "not" / "there" / "yet")
    assert not (tmp_path / "not").exists()
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(InputError, match=r"output=.*cannot be written .*; give another folder with output="):
            require_writable(place)


def test_models_in_a_folder_of_another_name_are_no_part_of_the_build(tmp_path: Path) -> None:
    """Their report changes with every training, and a build that listed it would count as unfinished."""
    folder = RunFolder(tmp_path, recipe="r", fingerprint="f" * 64)
    for name in ("arms/standard.a-a/README.md", "low/standard.a-a/seed-0/training.json", "low/report.html", "report.html"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text("{}")
    assert set(folder.finish({})["files"]) == {"arms/standard.a-a/README.md", "report.html"}
    (folder.path / "low" / "report.html").write_text("another page")
    assert folder.manifest() is not None


def parts(count: int) -> Iterator[pl.DataFrame]:
    for number in range(count):
        yield pl.DataFrame({"text": [f"{number}-{row}-{hash((number, row))}" for row in range(5000)], "row": range(5000)})


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_table_in_parts_is_the_table(count: int, folder: RunFolder) -> None:
    folder.write_parts("candidates", parts(count))
    assert pl.read_parquet(folder.path / "candidates.parquet").equals(pl.concat(parts(count)))
    with pytest.raises(ValueError, match="there is no part"):
        folder.write_parts("candidates", iter(()))


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
@pytest.mark.parametrize("count", [1, 9])
def test_a_full_disk_leaves_the_table_that_was_there(count: int, folder: RunFolder) -> None:
    folder.write_parts("candidates", parts(2))
    before = (folder.path / "candidates.parquet").read_bytes()
    with files_of_at_most(20_000), pytest.raises(StoreError, match=r"candidates.parquet: cannot be written: File too large"):
        folder.write_parts("candidates", parts(count))
    assert (folder.path / "candidates.parquet").read_bytes() == before
    assert {path.name for path in folder.path.iterdir()} == {".lock", "candidates.parquet"}


def test_what_the_source_of_the_parts_says_is_heard(folder: RunFolder) -> None:
    def broken() -> Iterator[pl.DataFrame]:
        yield from parts(2)
        raise StoreError("segment-1.parquet: is damaged")

    with pytest.raises(StoreError, match="is damaged"):
        folder.write_parts("candidates", broken())
    assert not list(folder.path.glob("*.parquet"))
