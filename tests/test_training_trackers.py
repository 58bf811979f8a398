"""Reporting to trackers goes through the trainer's own reporters, and nothing is reported unless the recipe says so."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data.config.training import Training
from recontext_data.core.errors import SetupError
from recontext_data.reports.screen import Screen
from recontext_data.training.arguments import REPORTERS, check_extra, sft_config
from recontext_data.training.sft import train
from tests.training_world import make_job


def arguments(folder: Path, **extra: Any) -> Any:
    return sft_config(Training(extra=extra), output=folder, seed=0, steps=4, longest=64)


def test_nothing_is_reported_by_default(tmp_path: Path) -> None:
    assert arguments(tmp_path).report_to == []
    job = make_job(tmp_path)
    assert train(job, screen=Screen(), show=False) is not None
    assert sorted(path.name for path in job.target.parent.iterdir()) == [".seed-0.lock", "seed-0"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_named_reaches_the_trainer_or_is_said_to_be_missing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arguments(tmp_path, report_to=name).report_to == [name]
    check_extra({"report_to": "none"}, cuda=False)
    monkeypatch.setitem(REPORTERS, name, "no_such_library_as_this")
    with pytest.raises(SetupError, match=rf"training\.extra\.report_to={name}: is not installed; pip install"):
        check_extra({"report_to": [name]}, cuda=False)


def test_tensorboard_s_own_reader_finds_the_losses_of_each_model_under_its_seed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for seed in (0, 1):
        job = make_job(tmp_path, seed=seed, extra={"report_to": "tensorboard"})
        record = train(job, screen=Screen(), show=False)
        assert record is not None
        found = EventAccumulator(str(job.target.parent / "tensorboard" / f"seed-{seed}"))
        found.Reload()
        reported = [(event.step, round(event.value, 5)) for event in found.Scalars("train/loss")]
        assert reported == [(step, pytest.approx(loss, abs=2e-5)) for step, loss in record["losses"]] and len(reported) == 8
        assert record["config"]["extra"] == {"report_to": "tensorboard"}
