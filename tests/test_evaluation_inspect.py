"""Logs of Inspect: its own reader reads them back, with every prompt, answer, score and context."""

import sys
from pathlib import Path

import polars as pl
import pytest

from tests import helpers
from tests.test_evaluation import RATES, evaluate, recipe


def test_a_log_per_model_is_read_back_by_inspect(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed: pip install 'recontext_data[inspect]'")
    other = {"name": "other", "policy": {"kind": "fake", "rates": {name: {"general": 1.0} for name in RATES}}}
    path = recipe(tmp_path, evaluation={"tasks": 5, "n": 2, "models": [other], "inspect": True})
    assert evaluate(path, tmp_path / "out") == 0
    (folder,) = {one.resolve() for one in (tmp_path / "out").rglob("evaluation/inspect")}
    assert sorted(one.name for one in folder.iterdir()) == ["before.eval", "other.eval"]
    answers = pl.read_parquet(folder.parent / "outcomes.parquet")
    for name in ("before", "other"):
        read = log.read_eval_log(str(folder / f"{name}.eval"))
        own = answers.filter(pl.col("arm") == name)
        assert read.status == "success" and read.eval.model == name and len(read.samples) == len(own) == 30
        by_key = {(row["context"], row["task_id"], row["k"]): row for row in own.iter_rows(named=True)}
        for sample in read.samples:
            row = by_key.pop((sample.metadata["context"], sample.metadata["task_id"], sample.epoch - 1))
            assert sample.output.completion == row["completion"] == sample.messages[-1].content
            assert sample.scores["choice"].value == row["label"]
            assert sample.input[0].role == "system"
            assert sample.input[0].content == helpers.CONTEXTS[row["context"]]["system"]
        assert by_key == {}
    metrics = log.read_eval_log(str(folder / "before.eval"), header_only=True).results.scores[0].metrics
    assert metrics["hack under hack"].value == 1.0 and metrics["hack under control"].value == 0.0
    assert evaluate(path, tmp_path / "out", "evaluation.inspect=false") == 0
    assert not folder.exists(), "logs of an earlier evaluation do not stay beside other results"


def test_without_the_library_the_fix_is_said_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)  # as where it is not installed
    assert evaluate(recipe(tmp_path), tmp_path / "out", "evaluation.inspect=true") == 2
    said = helpers.error_line(capsys.readouterr().err)
    assert "evaluation.inspect=true needs inspect_ai: pip install 'recontext_data[inspect]'" in said
    assert not (tmp_path / "out" / "replies").exists()


def test_a_log_of_exact_probabilities_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, policy={"kind": "tiny"})
    assert evaluate(path, tmp_path / "out", "evaluation.inspect=true", "evaluation.exact=true") == 2
    assert "a log is of answers and evaluation.exact samples none" in helpers.error_line(capsys.readouterr().err)
