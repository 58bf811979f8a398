"""Rounds that go on from the last model: an adapter is merged first; more rounds are added to those there; workers share."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data import iterate as verb
from recontext_data.policies.local.model_folder import find_model
from tests import helpers
from tests.iteration_world import needs_tiny, recipe

STANDARD = "standard.default-default"


def iterate(path: Path, output: Path, *words: str) -> dict[str, Any]:
    assert verb.main([f"recipe={path}", f"output={output}", *words]) == 0
    marks = sorted((output / "runs" / "small" / "rounds").glob("*/rounds.json"), key=lambda mark: mark.stat().st_mtime_ns)
    return dict(json.loads(marks[-1].read_text()))


@needs_tiny
def test_an_adapter_is_merged_and_a_new_one_is_trained_on_it(tmp_path: Path) -> None:
    path = recipe(tmp_path, arms=["default -> default"])
    words = ["rounds=2", "rounds.start=continue", "training.method=lora", "training.learning_rate=2.0e-3"]
    facts = iterate(path, tmp_path / "out", *words)
    first, second = (one["chains"][0] for one in facts["rounds"])
    merged = (tmp_path / "out" / first["model"]).with_name("merged-seed-0")
    assert second["base"] == dict(find_model(str(merged)).identity()) != first["base"]
    manifest = json.loads((tmp_path / "out" / second["run"] / "manifest.json").read_text())
    assert manifest["policy"]["identity"] == first["identity"]
    record = json.loads((tmp_path / "out" / second["model"] / "training.json").read_text())
    assert record["is_adapter"] and record["base"]["identity"] == second["base"]


@needs_tiny
def test_more_rounds_are_added_and_two_processes_share_the_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Batches of two: with fewer of them two seeds may by chance train in one order, and be one model.
    training = {"learning_rate": 3e-4, "batch_size": 2, "seeds": [0, 1]}
    path, output = recipe(tmp_path, arms=["default -> default"], training=training), tmp_path / "out"
    one = iterate(path, output, "rounds=1", "rounds.start=continue", "workers=2")
    assert [chain["seed"] for chain in one["rounds"][0]["chains"]] == [0, 1]
    capsys.readouterr()
    two = iterate(path, output, "rounds=2", "rounds.start=continue")
    assert two["rounds"][0] == one["rounds"][0] and len(two["rounds"]) == 2
    runs = [chain["run"] for chain in two["rounds"][1]["chains"]]
    assert len(set(runs)) == 2  # a seed's chain is its own
    for before, after in zip(two["rounds"][0]["chains"], two["rounds"][1]["chains"], strict=True):
        manifest = json.loads((output / after["run"] / "manifest.json").read_text())
        assert manifest["policy"]["identity"] == before["identity"]
        assert after["base"] == dict(find_model(str(output / before["model"])).identity())
    assert len(list((output / "runs" / "small" / "rounds").iterdir())) == 1
    said = capsys.readouterr().err
    assert said.count("seed 0:") == said.count("seed 1:") == 1  # round 1 was there
    assert helpers.files_below(output / "runs" / "small" / "rounds")
