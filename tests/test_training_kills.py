"""A training that is killed ten times, at moments that no one chose, ends with the weights of one that was not."""

import json
import random
import time
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data.reports.screen import Screen
from recontext_data.store.files import file_digest
from recontext_data.training import checkpoints
from recontext_data.training.preparing import TrainingJob
from recontext_data.training.sft import train
from tests import children
from tests.training_world import make_job

KILLS = 10


def job(folder: Path) -> TrainingJob:
    return make_job(folder, epochs=12, checkpoint_steps=2)


def train_in(folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    train(job(Path(folder)), screen=Screen(), show=False)


def test_killed_ten_times_the_weights_are_the_same(tmp_path: Path) -> None:
    whole, killed = job(tmp_path / "whole"), job(tmp_path / "killed")
    assert train(whole, screen=Screen(), show=False) is not None
    work = checkpoints.work_folder(killed.target)
    steps: list[int] = []
    for number in range(KILLS):
        child = children.start(train_in, str(tmp_path / "killed"))
        # Every second one is killed wherever it is, loading and saving included; the others once they have moved on.
        deadline, reached = time.monotonic() + 60, steps[-1] if steps else 0
        while number % 2 and child.is_alive() and time.monotonic() < deadline and _step(work) <= reached:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.4))
        child.kill()
        child.join()
        steps.append(_step(work))
    assert not killed.target.exists(), "it was finished before the last kill: give it more epochs"
    assert steps == sorted(steps) and steps[-1] > 0
    record = train(job(tmp_path / "killed"), screen=Screen(), show=False)
    assert record is not None and record["resumed_from"] == steps[-1] and record["steps"] == 96
    assert file_digest(killed.target / "model.safetensors") == file_digest(whole.target / "model.safetensors"), steps
    reference = json.loads((whole.target / "training.json").read_text())
    assert record["losses"] == reference["losses"] and record["validation_loss"] == reference["validation_loss"]


def _step(work: Path) -> int:
    return max((checkpoints.finished_step(folder) or 0 for folder in work.glob("checkpoint-*")), default=0)
