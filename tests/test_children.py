"""Children of tests get the environment and the folder of their test, and find imported what is slow to import."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import children
from tests.forks import Forks, Job


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


def fork_of(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    forks = Forks(["json"], os.environ)
    return forks.run(Job(script=script, environment=environment))


def test_a_fork_has_the_environment_of_its_job_and_what_was_imported_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = "import os, sys; print(dict(os.environ), os.getcwd(), 'json' in sys.modules, sys.stdin.read() == '')"
    assert fork_of(script, OF_THE_TEST="now").stdout == f"{{'OF_THE_TEST': 'now'}} {tmp_path} True True\n"


def test_a_fork_that_fails_says_why_and_a_killed_one_that_it_was() -> None:
    done = fork_of("print('before'); 1 / 0")
    assert done.returncode == 1 and done.stdout == "before\n" and done.stderr.endswith("ZeroDivisionError: division by zero\n")
    process = Forks([], os.environ).start(Job(script="import time; time.sleep(60)", environment={}))
    process.kill()
    assert process.wait(30) == -9


def test_a_fork_runs_a_verb() -> None:
    done = Forks([], os.environ).run(Job(verb="publish", words=["to=nowhere"], environment=dict(os.environ)))
    assert done.returncode == 2 and done.stderr.startswith("error: to=nowhere")


def sleep_for_ever(began: str) -> None:
    import time

    Path(began).touch()
    while True:
        time.sleep(1)
