"""kill -9 while an evaluation runs: started again, it finds the same numbers as one that was left alone."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests import helpers
from tests.test_evaluation import RATES, found, recipe

KILLS = 10


def start(path: Path, output: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "recontext_data.evaluate", f"recipe={path}", f"output={output}"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=helpers.environment())


def numbers(output: Path) -> dict[str, Any]:
    """All that results.json says but when it was written and by which command."""
    results, _ = found(output)
    return {key: value for key, value in results.items() if key not in ("created", "command")}


def test_ten_kills_change_no_number(tmp_path: Path) -> None:
    evaluation = {"tasks": 20, "n": 2, "extra_contexts": {"placebo": {"stance": "placebo", "system": "Thank you."}}}
    rates = RATES | {"placebo": RATES["default"]}
    path = recipe(tmp_path, policy={"kind": "fake", "rates": rates, "delay_seconds": 0.02}, evaluation=evaluation)
    calm = start(path, tmp_path / "calm")
    began = time.monotonic()
    assert calm.communicate(timeout=120)[1] is not None and calm.returncode == 0
    whole = time.monotonic() - began
    dice = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = start(path, tmp_path / "killed")
        time.sleep(dice.uniform(0.3, 1.0) * whole)
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
