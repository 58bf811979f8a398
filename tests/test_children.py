"""Children of tests get the environment and the folder of their test, and find imported what is slow to import."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import children


def tell(target: str) -> None:
    heavy = [name for name in ("openai", "polars", "trl.trainer.sft_trainer") if name in sys.modules]
    Path(target).write_text(json.dumps([os.environ.get("OF_THE_TEST"), os.getcwd(), heavy]))


def told(target: Path) -> tuple[str | None, str, list[str]]:
    process = children.start(tell, str(target))
    process.join(timeout=120)
    assert process.exitcode == 0
    environment, folder, heavy = json.loads(target.read_text())
    return environment, folder, heavy


def test_a_child_is_as_its_test_is_now_and_starts_with_everything_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ["openai", "polars", *(["trl.trainer.sft_trainer"] if find_spec("trl") else [])]
    monkeypatch.chdir(tmp_path)  # a server that is started here would not find `tests`
    for word in ("first", "second"):
        monkeypatch.setenv("OF_THE_TEST", word)
        assert told(tmp_path / word) == (word, str(tmp_path), expected)
    monkeypatch.delenv("OF_THE_TEST")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert told(tmp_path / "third") == (None, str(tmp_path / "other"), expected)


def test_a_killed_child_says_so(tmp_path: Path) -> None:
    process = children.start(sleep_for_ever, str(tmp_path / "began"))
    while not (tmp_path / "began").exists():
        assert process.is_alive()
    process.kill()
    process.join(timeout=30)
    assert process.exitcode == -9


def sleep_for_ever(began: str) -> None:
    import time

    Path(began).touch()
    while True:
        time.sleep(1)
