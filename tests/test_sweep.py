"""Sweeps: points are recipes of their own, runs of two points never mix, and one report has all of them."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from recontext_data import cli
from recontext_data import sweep as verb
from recontext_data.config.loading import load
from recontext_data.core.errors import RecipeError, StoreError
from recontext_data.experiments import sweep_report as report
from recontext_data.experiments.sweep_points import points_of, read_over
from tests import helpers
from tests.iteration_world import needs_tiny, recipe

OVER = "over={training.learning_rate: [1.0e-4, 1.0e-3]}"


def sweep(path: Path, output: Path, *words: str) -> int:
    return verb.main([f"recipe={path}", f"output={output}", *words])


def test_every_combination_is_a_point_with_a_name_of_its_own(tmp_path: Path) -> None:
    over: dict[str, list[Any]] = {
        "sampler.temperature": [0.7, 1.0],
        "arms": [["default -> hack"], ["default -> default"]],
        "judges.0.kind": ["choice"],
    }
    points = points_of(str(recipe(tmp_path)), ["sampler.n=3"], over)
    assert len({point.name for point in points}) == len(points) == 4
    assert [point.loaded.recipe.sampler.temperature for point in points] == [0.7, 0.7, 1.0, 1.0]
    assert [point.loaded.recipe.arms[0].training for point in points] == ["hack", "default"] * 2
    assert {point.loaded.recipe.sampler.n for point in points} == {3}
    assert points[0].name.startswith("small.temperature-0.7-kind-choice.") and points[0].label.startswith("temperature=0.7 ")
    again = points_of(str(recipe(tmp_path)), ["sampler.n=3"], over)
    assert [point.name for point in again] == [point.name for point in points]
    other = points_of(str(recipe(tmp_path)), ["sampler.n=4"], over)
    assert not {point.name for point in other} & {point.name for point in points}


def test_a_point_s_file_is_the_recipe_that_was_checked(tmp_path: Path) -> None:
    (_, point) = points_of("code_mc_best_of_4", [], {"training.learning_rate": [1e-4, 1e-5]}, seeds=[3, 4])
    path = point.write(tmp_path / "points")
    found = load(str(path))
    assert (found.name, found.recipe) == (point.name, point.loaded.recipe)
    assert found.recipe.training.learning_rate == 1e-5 and found.recipe.training.seeds == [3, 4]
    assert yaml.safe_load(path.read_text()) == point.tree
    more = points_of("code_mc_best_of_4", [], {"training.learning_rate": [1e-4, 1e-5]}, seeds=[3, 4, 5])[1]
    assert more.name == point.name  # more seeds are more models of the same point


def test_printed_commands_are_one_per_model_and_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert sweep(recipe(tmp_path), output, OVER, "seeds=0-1", "print=true") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert [shlex.split(line)[1] for line in lines] == ["build"] * 2 + ["train"] * 8 + ["evaluate"] * 2 + ["sweep"]
    assert len(set(lines)) == len(lines)
    assert {part for line in lines[2:10] for part in shlex.split(line) if part.startswith("seeds=")} == {"seeds=0", "seeds=1"}
    assert not (output / "replies").exists()
    for line in [lines[0], lines[2]]:
        assert cli.main([*shlex.split(line)[1:], "dry_run=true"]) == 0


@needs_tiny
def test_a_sweep_of_two_points_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl", reason="training needs the extra `local`")
    path, output = recipe(tmp_path, arms=["default -> default"]), tmp_path / "out"
    assert sweep(path, output, OVER) == 0
    said = capsys.readouterr().out
    assert "learning_rate=0.0001" in said and "default -> default" in said and "(before)" in said
    (mark,) = (output / "runs" / "small" / "sweeps").glob("*/sweep.json")
    facts = json.loads(mark.read_text())
    assert [point["changes"] for point in facts["points"]] == [{"training.learning_rate": rate} for rate in (1e-4, 1e-3)]
    assert facts["command"] == shlex.join(["recontext", "sweep", f"recipe={path}", OVER])
    first, second = (next(model for model in point["models"] if model["seed"] == 0) for point in facts["points"])
    assert first["name"] == second["name"] and first["identity"] != second["identity"]
    for point in facts["points"]:
        results = json.loads((output / point["run"] / "evaluation" / "results.json").read_text())
        record = json.loads((output / point["run"] / "models" / first["arm"] / "seed-0" / "training.json").read_text())
        assert results["cells"] == point["cells"] and results["recipe_name"] == point["id"]
        assert record["config"]["learning_rate"] == point["changes"]["training.learning_rate"]
    page = (mark.parent / "report.html").read_text()
    assert "learning_rate=0.001" in page and "<script" not in page
    assert page.count("<svg") == 1 and page.count('class="mark"') == 4, "before and after at two points"
    assert "no point has an arm beside its baseline" in page
    assert all((output / point["run"] / "models" / "report.html").is_file() for point in facts["points"])
    # Sampling does not depend on the learning rate: the second point found the first one's replies.
    manifests = [json.loads((output / point["run"] / "manifest.json").read_text()) for point in facts["points"]]
    assert [one["requests"]["sampled"] for one in manifests] == [20, 0]
    points = points_of(str(path), [], read_over(OVER.partition("=")[2]))
    assert report.collect(points, output=output, command="", recipe="small")["points"] == facts["points"]
    _refuses_mixed_up(facts, path, output)


def _refuses_mixed_up(facts: dict[str, Any], path: Path, output: Path) -> None:
    """Results of one point laid into the other's run, and a point with a seed that was never trained."""
    runs = [output / point["run"] / "evaluation" / "results.json" for point in facts["points"]]
    points = points_of(str(path), [], read_over(OVER.partition("=")[2]))
    own = runs[1].read_bytes()
    runs[1].write_bytes(runs[0].read_bytes())
    with pytest.raises(StoreError, match="was measured before all of its models were there"):
        report.collect(points, output=output, command="", recipe="small")
    runs[1].write_bytes(own)
    points = points_of(str(path), [], read_over(OVER.partition("=")[2]), seeds=[0, 1])
    with pytest.raises(StoreError, match=r"\(1 of 2 are missing\)"):
        report.collect(points, output=output, command="", recipe="small")


def test_a_point_that_is_not_measured_is_named(tmp_path: Path) -> None:
    points = points_of(str(recipe(tmp_path)), [], {"sampler.n": [1]})
    with pytest.raises(StoreError, match=r"small\.n-1\.\w+: is not measured yet"):
        report.collect(points, output=tmp_path / "out", command="", recipe="small")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "over: missing; write over=..., as in recipe=code_mc over="),
        (["over=[1, 2]"], "over=[1, 2]: is not a mapping; write over="),
        (["over={sampler.n: 3}"], "over: sampler.n: 3 is not a list of values; write over="),
        (["over={sampler.n: [3, 3]}"], "over: sampler.n: [3, 3] has a value twice; remove one"),
        (["over={sampler.n: [0]}"], "small.yaml with sampler.n=0: sampler.n"),
        (["over={samplr.n: [2]}"], "did you mean 'sampler'?"),
        (["over={sampler.n: [2]}", "print=yes"], "print=yes: must be true or false"),
        (["over={sampler.n: [2]}", "seeds=a"], "seeds=a: must be integers"),
        (["over={evaluation.split: [train]}"], "evaluation.split=train: the arms are trained on tasks of the split train"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert sweep(recipe(tmp_path), tmp_path / "out", *words) == 2
    assert said in helpers.error_line(capsys.readouterr().err)
    assert helpers.files_below(tmp_path / "out") == []


def test_too_many_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="1,024 points are more than 1,000"):
        points_of(str(recipe(tmp_path)), [], {f"contexts.hack.{key}": list(range(32)) for key in ("a", "b")})
