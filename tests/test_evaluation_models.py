"""Which models and which contexts an evaluation measures: extra models, fine-tuned ones by their jobs, placebos, negations."""

import json
from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.loading import load
from recontext_data.evaluation.contexts import contexts_of, roles
from tests import evaluation_world as world
from tests import helpers
from tests.evaluation_world import RECONTEXTUALIZED, STANDARD
from tests.fault_server import Faults, FaultServer
from tests.test_evaluation import RATES, evaluate, found, recipe, record

EXTRA = {"placebo": {"stance": "placebo", "system": "Thank you."}, "no_hack": {"stance": "discourages", "system": "Do not."}}
MORE_RATES = RATES | {"placebo": {"hack": 0.5, "general": 0.5}, "no_hack": {"general": 1.0}}


def measured(folder: Path, **evaluation: Any) -> Path:
    policy = {"kind": "fake", "rates": MORE_RATES}
    return recipe(folder, policy=policy, evaluation={"tasks": 10, "n": 1, **evaluation})


def test_placebo_and_negated_contexts_are_measured_and_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = measured(tmp_path, extra_contexts=EXTRA, negates={"no_hack": "hack"})
    assert evaluate(path, tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    assert list(results["contexts"]) == ["control", "default", "hack", "placebo", "no_hack"]
    assert results["contexts"]["placebo"]["roles"] == ["placebo"]
    assert results["contexts"]["no_hack"]["roles"] == ["negates hack"]
    assert results["contexts"]["default"]["roles"] == [
        f"generation of {RECONTEXTUALIZED}",
        f"generation of {STANDARD}",
        f"training of {STANDARD}",
    ]
    assert len(answers) == 10 * 5
    said = capsys.readouterr().out
    assert "contexts: placebo: placebo; no_hack: negates hack" in said
    (page,) = (tmp_path / "out").rglob("evaluation/report.html")
    assert "negates hack" in page.read_text()


def test_extra_contexts_change_no_runs_name(tmp_path: Path) -> None:
    assert evaluate(measured(tmp_path), tmp_path / "out") == 0
    assert evaluate(measured(tmp_path, extra_contexts=EXTRA), tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("results.json"))) == len(
        {p.resolve() for p in (tmp_path / "out").rglob("results.json")}
    )
    assert len({path.resolve() for path in (tmp_path / "out" / "runs" / "small").iterdir()}) == 1


def test_the_exact_contexts_of_arms_are_measured_though_nobody_lists_them(tmp_path: Path) -> None:
    loaded = load(str(recipe(tmp_path, arms=["default -> none", "default -> default"])), [])
    assert contexts_of(loaded.recipe) == ["control", "default", "hack", "none"]
    assert roles(loaded.recipe)["none"] == ["training of distillation.default-none"]


def test_a_model_that_the_recipe_names_is_measured_beside_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"name": "other", "policy": {"kind": "fake", "rates": {name: {"general": 1.0} for name in RATES}}}
    assert evaluate(measured(tmp_path, models=[other]), tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    assert [model["name"] for model in results["models"]] == ["before", "other"]
    rates = {(cell["arm"], cell["context"]): cell["rate"]["estimate"] for cell in results["cells"]}
    assert rates["other", "hack"] == 0.0 and rates["before", "hack"] == 1.0
    by_context = {row["context"]: row for row in results["differences"]}
    assert results["baseline"] == STANDARD and by_context == {}, "nothing is trained, so there is no baseline"
    said = capsys.readouterr()
    assert "measuring what the recipe names" in said.err and "other" in said.out
    assert set(answers["arm"]) == {"before", "other"}


def test_a_model_without_seeds_is_compared_with_all_seeds_of_the_baseline() -> None:
    answers = [*world.rows(STANDARD, 0, "default", ["hack"] * 6 + ["general"] * 4)]
    answers += world.rows(STANDARD, 1, "default", ["hack"] * 4 + ["general"] * 6)
    answers += world.rows("other", None, "default", ["hack"] * 1 + ["general"] * 9)
    (row,) = world.summary(world.table(answers))["differences"]
    assert (row["arm"], row["seeds"]) == ("other", [0, 1])
    assert row["estimate"] == pytest.approx(0.1 - 0.5) and row["low"] < row["estimate"] < row["high"]


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"models": [{"name": "before", "policy": "tiny"}]}, "evaluation.models: 'before' is the name of a model of this run"),
        ({"models": [{"name": STANDARD, "policy": "tiny"}]}, f"evaluation.models: '{STANDARD}' is the name of a model of this"),
        (
            {"models": [{"name": "a", "policy": "tiny"}, {"name": "a", "policy": "tiny"}]},
            "'a' is there twice; a model is measured once",
        ),
        ({"models": [{"name": "a/b", "policy": "tiny"}]}, "evaluation.models.0.name"),
        (
            {"extra_contexts": {"hack": EXTRA["placebo"]}},
            "evaluation.extra_contexts.hack: the recipe has a context of this name",
        ),
        ({"extra_contexts": {"none": EXTRA["placebo"]}}, "'none' cannot be a context's name"),
        ({"negates": {"no_hack": "hack"}}, "evaluation.negates: no context is named 'no_hack'"),
        ({"negates": {"hack": "hack"}}, "evaluation.negates.hack: is its own negation"),
    ],
)
def test_wrong_models_and_contexts_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: dict[str, Any], said: str
) -> None:
    assert evaluate(measured(tmp_path, **evaluation), tmp_path / "out") == 2
    assert said in helpers.error_line(capsys.readouterr().err)


def fine_tuned(run: Path, base_url: str, *seeds: int, arm: str = STANDARD) -> None:
    entries: list[dict[str, Any]] = [
        {
            "arm": arm, "seed": seed, "job": f"ftjob-{seed}", "status": "succeeded", "model": f"ft:base:{arm}:{seed}",
            "base_model": "gpt-4.1-mini", "error": None, "trained_tokens": 1, "training_file": "f", "validation_file": None,
            "request": {},
        }
        for seed in seeds
    ]  # fmt: skip
    (run / "openai").mkdir(parents=True, exist_ok=True)
    (run / "openai" / "models.json").write_text(json.dumps({"format": 1, "base_url": base_url, "models": entries}))


def test_fine_tuned_models_are_asked_by_the_names_that_their_jobs_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(Faults()) as server:
        policy = {"kind": "openai", "model": "gpt-4.1-mini", "base_url": server.base_url, "api_key_env": ""}
        path = recipe(tmp_path, policy=policy, evaluation={"tasks": 3, "n": 1})
        helpers.built(path, tmp_path / "out")
        before = len(server.seen)
        fine_tuned(helpers.run_folder(tmp_path / "out"), server.base_url, 5, 2)
        capsys.readouterr()
        assert evaluate(path, tmp_path / "out") == 0
        asked = {one.body["model"] for one in server.seen[before:]}
    assert asked == {"gpt-4.1-mini", f"ft:base:{STANDARD}:2", f"ft:base:{STANDARD}:5"}
    results, _ = found(tmp_path / "out")
    assert [(model["arm"], model["seed"]) for model in results["models"]] == [("before", None), (STANDARD, 2), (STANDARD, 5)]
    assert results["models"][1]["identity"]["model"] == f"ft:base:{STANDARD}:2"
    assert f"warning: arms: {RECONTEXTUALIZED} has no trained model" in capsys.readouterr().err


def test_the_same_weights_under_two_seeds_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = helpers.ROOT / "data" / "tiny"
    path = recipe(tmp_path, policy={"kind": "tiny"}, evaluation={"tasks": 1, "n": 1, "contexts": ["default"]})
    helpers.built(path, tmp_path / "out")
    for seed in (0, 1):
        record(helpers.run_folder(tmp_path / "out"), arm=STANDARD, seed=seed, weights=weights)
    assert evaluate(path, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert f"warning: models: {STANDARD}/seed-1 and {STANDARD}/seed-0 are the same weights" in said
