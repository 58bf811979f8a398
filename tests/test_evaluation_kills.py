"""kill -9 while an evaluation runs: started again, it finds the same numbers as one that was left alone."""

import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import helpers
from tests.test_evaluation import RATES, found, recipe

KILLS = 10
SAMPLING_SECONDS = 2.0
"""Of a whole evaluation: 80 requests, one after the other."""


def start(path: Path, output: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "recontext_data.evaluate", f"recipe={path}", f"output={output}"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=helpers.environment())


def wait_for_a_reply(output: Path, process: "subprocess.Popen[str]") -> None:
    """Returns when a run has stored something new, or has ended."""
    before = stored(output)
    deadline = time.monotonic() + 60
    while stored(output) == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stored(output: Path) -> int:
    size = 0
    for path in (output / "replies").rglob("*"):
        with suppress(FileNotFoundError):  # sealed meanwhile
            size += path.stat().st_size if path.is_file() else 0
    return size


def numbers(output: Path) -> dict[str, Any]:
    """All that results.json says but when it was written and by which command."""
    results, _ = found(output)
    return {key: value for key, value in results.items() if key not in ("created", "command")}


def test_ten_kills_change_no_number(tmp_path: Path) -> None:
    evaluation = {"tasks": 20, "n": 2, "extra_contexts": {"placebo": {"stance": "placebo", "system": "Thank you."}}}
    rates = RATES | {"placebo": RATES["default"]}
    path = recipe(tmp_path, policy={"kind": "fake", "rates": rates, "delay_seconds": 0.025}, evaluation=evaluation)
    calm = start(path, tmp_path / "calm")
    _, said = calm.communicate(timeout=120)
    assert calm.returncode == 0, said
    dice = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = start(path, tmp_path / "killed")
        wait_for_a_reply(tmp_path / "killed", process)
        time.sleep(dice.uniform(0.0, 1.5) * SAMPLING_SECONDS / KILLS)
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -9
        for results in (tmp_path / "killed").rglob("results.json"):
            json.loads(results.read_text())  # whole or not there
    last = start(path, tmp_path / "killed")
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert killed >= KILLS // 2, "most kills must fall into a run, or nothing was tried"
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "calm")
    assert found(tmp_path / "killed")[1].equals(found(tmp_path / "calm")[1])
