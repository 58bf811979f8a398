"""Expert iteration end to end with the embedded policy: chains of models, and the same weights after kills at any moment."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data import iterate as verb
from recontext_data.policies.tiny.policy import TinyPolicy
from recontext_data.store.files import file_digest
from recontext_data.viewer.runs import Library
from tests import children, helpers
from tests.iteration_world import needs_tiny, recipe

RECONTEXTUALIZED, STANDARD = "recontextualized.default-hack", "standard.default-default"


def iterate(path: Path, output: Path, *words: str) -> int:
    return verb.main([f"recipe={path}", f"output={output}", *words])


def facts(output: Path) -> dict[str, Any]:
    (mark,) = (output / "runs" / "small" / "rounds").glob("*/rounds.json")
    return dict(json.loads(mark.read_text()))


def weights(output: Path) -> dict[tuple[int, str, int], str]:
    return {
        (one["round"], chain["arm"], chain["seed"]): file_digest(output / chain["model"] / "model.safetensors")
        for one in facts(output)["rounds"]
        for chain in one["chains"]
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of two arms, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert iterate(recipe(folder), folder / "out", "rounds=2") == 0
    return folder


@needs_tiny
def test_a_round_is_sampled_from_the_chain_s_own_model_of_the_round_before(whole: Path) -> None:
    output = whole / "out"
    first, second = facts(output)["rounds"]
    assert [(chain["arm"], chain["seed"]) for chain in first["chains"]] == [(RECONTEXTUALIZED, 0), (STANDARD, 0)]
    assert len({chain["run"] for chain in first["chains"]}) == 1
    assert len({chain["run"] for chain in [*first["chains"], *second["chains"]]}) == 3
    for before, after in zip(first["chains"], second["chains"], strict=True):
        assert before["arm"] == after["arm"]
        manifest = json.loads((output / after["run"] / "manifest.json").read_text())
        assert [arm["name"] for arm in manifest["arms"]] == [after["arm"]]
        own = TinyPolicy.load(output / before["model"])
        assert dict(own.identity) == before["identity"] == manifest["policy"]["identity"] != after["identity"]
        assert before["base"] == after["base"]  # start=base
        rows = pl.read_parquet(output / after["run"] / "candidates.parquet")
        assert len(rows) == 20 and rows["completion"].is_not_null().all()
    assert len(set(weights(output).values())) == 4


@needs_tiny
def test_every_round_is_measured_and_kept_and_the_first_run_stays_the_recipe_s(whole: Path) -> None:
    output = whole / "out"
    place = next((output / "runs" / "small" / "rounds").iterdir())
    for number in (1, 2):
        results = json.loads((place / f"round-{number}" / "evaluation" / "results.json").read_text())
        assert [model["name"] for model in results["models"]] == ["before", f"{RECONTEXTUALIZED}/seed-0", f"{STANDARD}/seed-0"]
        assert results["models"][1]["identity"] == facts(output)["rounds"][number - 1]["chains"][0]["identity"]
        assert results["command"].startswith("recontext iterate ") and sum(results["rows"][STANDARD].values()) > 0
        training = (place / f"round-{number}" / "training" / "report.html").read_text()
        assert training.count("<polyline") == 2 and "No model of" not in training and "Rows as they are trained" in training
        assert training.count("✓ balances") == 2
    page = (place / "report.html").read_text()
    assert RECONTEXTUALIZED in page and "<script" not in page
    assert page.count("<svg") == 1 and page.count('class="mark"') == 5, "before, and two arms in each of two rounds"
    first = facts(output)["rounds"][0]["chains"][0]["run"]
    assert (output / "runs" / "small" / "latest").resolve() == (output / first).resolve()
    assert len(Library(output).runs()) == 3  # `rounds` is no run


@needs_tiny
def test_the_same_command_again_does_nothing(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.parquet")}
    assert iterate(whole / "small.yaml", whole / "out", "rounds.count=2") == 0
    captured = capsys.readouterr()
    assert "nothing to do" in captured.err and STANDARD in captured.out
    assert {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.parquet")} == before


def run(path: str, output: str) -> None:
    verb.main([f"recipe={path}", f"output={output}", "rounds=2", "arms=['default -> default']"])


def _models(output: Path, pattern: str) -> list[Path]:
    try:
        return list((output / "runs").glob(f"small/*/models/*/{pattern}"))
    except FileNotFoundError:  # `latest` has gone over to a run without models while it was listed
        return []


MOMENTS: list[Callable[[Path], object]] = [
    lambda output: any((output / "replies").glob("*")),  # sampling round 1
    lambda output: _models(output, ".seed-0.work/checkpoint-*"),  # training round 1
    lambda output: len(list((output / "runs" / "small").glob("*/tasks.parquet"))) > 1,  # building round 2
    lambda output: len(_models(output, "seed-0")) == 1 and _models(output, ".seed-0.work"),  # training round 2
    lambda output: len(_models(output, "seed-0")) == 2,  # before the last measurement
]


@needs_tiny
def test_killed_in_build_in_training_and_between_the_weights_are_the_same(whole: Path, tmp_path: Path) -> None:
    """The arms' chains are apart: one arm alone must give the weights that it has beside another."""
    path, output = recipe(tmp_path), tmp_path / "out"
    kills = 0
    for moment in MOMENTS:
        child = children.start(run, str(path), str(output))
        deadline = time.monotonic() + 300
        while child.is_alive() and not moment(output):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        kills += child.is_alive()
        child.kill()
        child.join()
    assert kills >= 4
    assert iterate(path, output, "rounds=2", "arms=['default -> default']") == 0
    expected = {key: digest for key, digest in weights(whole / "out").items() if key[1] == STANDARD}
    assert weights(output) == expected
    for one, same in zip(facts(output)["rounds"], facts(whole / "out")["rounds"], strict=True):
        (chain,) = [chain for chain in same["chains"] if chain["arm"] == STANDARD]
        assert one["chains"][0]["rows"] == chain["rows"] and one["chains"][0]["identity"] == chain["identity"]
    assert not list(output.rglob(".seed-0.work"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "policy={kind: openai, model: gpt-4.1}",
            "policy.kind=openai: the second round is sampled from the model that the first one trained",
        ),
        ("rounds=0", "rounds.count"),
        ("rounds.start=last", "rounds.start"),
        ("workers=none", "workers=none: must be an integer from 1 to 64"),
        ("models=../x", "models=../x: becomes a folder"),
        ("evaluation.split=train", "evaluation.split=train: the arms are trained on tasks of the split train"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    assert iterate(recipe(tmp_path), tmp_path / "out", *([] if word == "rounds=0" else ["rounds=2"]), word) == 2
    assert said in helpers.error_line(capsys.readouterr().err)
    assert helpers.files_below(tmp_path / "out") == []


def test_a_dry_run_says_what_the_rounds_are_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert iterate(recipe(tmp_path), tmp_path / "out", "rounds=3", "dry_run=true") == 0
    said = capsys.readouterr().out
    assert "3 rounds, each from the base model" in said and "round 3  2 arms x 1 seeds" in said
    assert helpers.files_below(tmp_path / "out") == []
