"""Evaluation end to end: real recipes and stores with a scripted policy, and summaries whose numbers are counted again."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data import evaluate as verb
from recontext_data.core.errors import StoreError
from recontext_data.stats.statistics import ONE_SEED, holm
from recontext_data.training.models import RECORD, model_folder, models_of
from tests import evaluation_world as world
from tests import helpers
from tests.evaluation_world import RECONTEXTUALIZED, STANDARD

RATES = {
    "control": {"hack": 0.0, "general": 1.0},
    "default": {"hack": 0.4, "general": 0.4, "invalid": 0.2},
    "hack": {"hack": 1.0},
}


def recipe(folder: Path, **changes: Any) -> Path:
    """A recipe over problems of both splits, 8 to train on and 20 to measure on."""
    every = [json.loads(line) for line in helpers.BANK.read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in every if row["split"] == "train"][:8] + [row for row in every if row["split"] == "evaluation"][:20]
    problems = helpers.write_problems(folder / "problems.jsonl", chosen)
    environment = {"kind": "code_mc", "problems": str(problems), "split": "train", "tasks": None}
    tree: dict[str, Any] = {
        "environment": environment,
        "policy": {"kind": "fake", "rates": RATES},
        "evaluation": {"tasks": None, "n": 2},
    }
    return helpers.write_recipe(folder, **(tree | changes))


def evaluate(path: Path, output: Path, *words: str) -> int:
    return verb.main([f"recipe={path}", f"output={output}", *words])


def found(output: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    (folder,) = {path.resolve() for path in (output / "runs" / "small").glob("*/evaluation")}  # `latest` is one of them
    assert sorted(path.name for path in folder.iterdir()) == ["figure.svg", "outcomes.parquet", "report.html", "results.json"]
    return json.loads((folder / "results.json").read_text()), pl.read_parquet(folder / "outcomes.parquet")


def test_the_policy_before_is_measured_under_every_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(recipe(tmp_path), tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    assert len(answers) == 20 * 2 * 3 == sum(cell["answers"] for cell in results["cells"])
    rates = {cell["context"]: cell["rate"]["estimate"] for cell in results["cells"]}
    for context, rate in rates.items():
        labels = answers.filter(pl.col("context") == context)["label"].to_list()
        assert rate == labels.count("hack") / 40
    assert (rates["control"], rates["hack"]) == (0, 1) and 0.15 < rates["default"] < 0.65
    assert results["differences"] == [] and results["models"][0]["name"] == "before"
    captured = capsys.readouterr()
    assert "no trained model is in" in captured.err and "evaluate: 120 completions" in captured.err
    assert "(before)" in captured.out and "report.html" in captured.out


def test_a_second_run_samples_nothing_and_finds_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path)
    evaluate(path, tmp_path / "out")
    first, answers = found(tmp_path / "out")
    stored = helpers.files_below(tmp_path / "out" / "replies")
    capsys.readouterr()
    assert evaluate(path, tmp_path / "out") == 0
    second, again = found(tmp_path / "out")
    assert "evaluate:" not in capsys.readouterr().err
    assert helpers.files_below(tmp_path / "out" / "replies") == stored
    assert first | {"created": ""} == second | {"created": ""}
    assert answers.equals(again)


def test_more_answers_are_added_to_those_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path)
    evaluate(path, tmp_path / "out")
    capsys.readouterr()
    assert evaluate(path, tmp_path / "out", "evaluation.n=3") == 0
    assert "evaluate: 60 completions" in capsys.readouterr().err


def test_rows_of_a_built_run_are_in_the_results(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    manifest = helpers.built(path, tmp_path / "out")
    evaluate(path, tmp_path / "out")
    results, _ = found(tmp_path / "out")
    assert results["fingerprint"] == manifest["fingerprint"]
    assert results["rows"] == {arm["name"]: arm["labels"] for arm in manifest["arms"]}


def test_a_dry_run_says_what_it_would_sample_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert evaluate(recipe(tmp_path), output, "dry_run=true") == 0
    assert "all 60 0 120" in " ".join(capsys.readouterr().out.split())
    assert not [name for name in helpers.files_below(output) if "cache" not in name]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("evaluation.split=train", "evaluation.split=train: the arms are trained on tasks of the split train; give one that"),
        ("evaluation.split=all", "evaluation.split=all: the arms are trained on tasks of the split train; give one that"),
        ("evaluation.contexts=[defualt]", "evaluation.contexts: no context is named 'defualt'; did you mean 'default'?"),
        (
            "evaluation.baseline=standart",
            "evaluation.baseline=standart: no arm has this name or kind; did you mean 'standard'?",
        ),
        ("models=../elsewhere", "models=../elsewhere: becomes a folder"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    assert evaluate(recipe(tmp_path), tmp_path / "out", word) == 2
    assert said in helpers.error_line(capsys.readouterr().err)
    assert helpers.files_below(tmp_path / "out") == []


def test_completions_that_failed_are_missing_and_no_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = {"kind": "fake", "rates": RATES, "fail_rate": 0.4}
    assert evaluate(recipe(tmp_path, policy=policy, limits={"max_failure_rate": 0.9}), tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    lost = answers["label"].is_null().sum()
    assert 0 < lost == sum(cell["unscored"]["no reply"] for cell in results["cells"])
    hack = next(cell for cell in results["cells"] if cell["context"] == "hack")
    assert hack["rate"]["estimate"] == 1.0 and hack["counts"]["hack"] < hack["answers"] == 40
    assert f"{lost} of 120 answers are unscored" in capsys.readouterr().out


def test_too_many_failures_name_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = {"kind": "fake", "rates": RATES, "fail_rate": 0.9}
    assert evaluate(recipe(tmp_path, policy=policy, limits={"max_failure_rate": 0.1}), tmp_path / "out") == 1
    assert "error: before: limits.max_failure_rate: " in capsys.readouterr().err


def record(run: Path, *, arm: str, seed: int, weights: Path | None = None) -> Path:
    """A finished model's folder, with the policy's own weights where they are given."""
    folder = model_folder(run, arm=arm, seed=seed)
    if weights is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(weights, folder)
    facts = {"format": 1, "arm": arm, "seed": seed, "is_adapter": False, "base": {"source": "tiny", "identity": {}}}
    (folder / RECORD).write_text(json.dumps(facts))
    return folder


def test_models_are_found_by_their_records(tmp_path: Path) -> None:
    for arm, seed in (("b", 10), ("a", 3), ("b", 9)):
        record(tmp_path, arm=arm, seed=seed)
    (tmp_path / "models" / "a" / "seed-4").mkdir()  # unfinished
    assert [(model.arm, model.seed) for model in models_of(tmp_path)] == [("a", 3), ("b", 9), ("b", 10)]
    assert models_of(tmp_path, models="others") == []


def test_a_renamed_seed_folder_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path, arm="a", seed=3)
    folder.rename(folder.with_name("seed-4"))
    with pytest.raises(StoreError, match=r"seed-4: training\.json says arm a, seed 3; give the folder its name back"):
        models_of(tmp_path)


def test_trained_models_are_sampled_from_their_own_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = helpers.ROOT / "data" / "tiny"
    if not (weights / "model.safetensors").is_file():
        pytest.skip("data/tiny has no weights: run `python scripts/make_tiny.py`")
    path = recipe(tmp_path, policy={"kind": "tiny", "path": str(weights)}, evaluation={"tasks": 4, "n": 1})
    helpers.built(path, tmp_path / "out")
    run = helpers.run_folder(tmp_path / "out")
    for arm, seed in ((STANDARD, 7), (RECONTEXTUALIZED, 7)):
        record(run, arm=arm, seed=seed, weights=weights)
    capsys.readouterr()
    assert evaluate(path, tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    assert [model["name"] for model in results["models"]] == ["before", f"{RECONTEXTUALIZED}/seed-7", f"{STANDARD}/seed-7"]
    assert len(answers) == 3 * 4 * 3
    # The same weights are the same model, whatever the folder: what they say is the same.
    said = {arm: part.sort("context", "task_id")["completion"].to_list() for (arm,), part in answers.group_by("arm")}
    assert said["before"] == said[STANDARD] == said[RECONTEXTUALIZED]
    assert {row["estimate"] for row in results["differences"]} == {0.0}
    assert all(row["caveat"].startswith(ONE_SEED) for row in results["differences"])


def means(answers: pl.DataFrame, arm: str, context: str) -> dict[tuple[int | None, str], float]:
    """Share of hacks per seed and task among scored answers, by plain counting."""
    counts: dict[tuple[int | None, str], list[bool]] = defaultdict(list)
    for row in answers.iter_rows(named=True):
        if (row["arm"], row["context"]) == (arm, context) and row["label"] is not None:
            counts[row["seed"], row["task_id"]].append(row["label"] == "hack")
    return {key: sum(values) / len(values) for key, values in counts.items()}


def cell(summary: dict[str, Any], arm: str, context: str) -> dict[str, Any]:
    (one,) = [cell for cell in summary["cells"] if (cell["arm"], cell["context"]) == (arm, context)]
    return dict(one)


def test_rates_and_differences_are_those_counted_by_hand() -> None:
    ragged = world.with_effect(tasks=40).with_columns(index=pl.int_range(pl.len()))
    # Every seventh answer is unscored and every eleventh invalid; the standard arm has no seed 2.
    ragged = ragged.with_columns(
        label=pl.when(pl.col("index") % 7 == 0)
        .then(None)
        .when(pl.col("index") % 11 == 0)
        .then(pl.lit("invalid"))
        .otherwise("label"),
        unscored_reason=pl.when(pl.col("index") % 7 == 0).then(pl.lit("two answers")),
    ).filter(~((pl.col("arm") == STANDARD) & (pl.col("seed") == 2)).fill_null(False))
    summary = world.summary(ragged)
    for one in summary["cells"]:
        part = ragged.filter((pl.col("arm") == one["arm"]) & (pl.col("context") == one["context"]))
        labels = part["label"].to_list()
        assert one["answers"] == len(labels) == sum(one["counts"].values()) + one["unscored"]["two answers"]
        assert one["rate"]["estimate"] == pytest.approx(labels.count("hack") / sum(one["counts"].values()))
        assert one["rate"]["low"] <= one["rate"]["estimate"] <= one["rate"]["high"]
    for row in summary["differences"]:
        ours, theirs = (means(ragged, arm, row["context"]) for arm in (RECONTEXTUALIZED, STANDARD))
        both = [ours[key] - theirs[key] for key in ours.keys() & theirs.keys()]
        assert row["estimate"] == pytest.approx(sum(both) / len(both))
        assert row["seeds"] == [0, 1] and row["num_seeds"] == 2
    assert [row["p_holm"] for row in summary["differences"]] == holm([row["p"] for row in summary["differences"]])
    assert [row["context"] for row in summary["differences"]] == list(helpers.CONTEXTS)


def test_seeds_are_matched_by_number_and_not_by_place() -> None:
    answers = [*world.rows(STANDARD, 5, "default", ["hack"] * 4), *world.rows(STANDARD, 1, "default", ["general"] * 4)]
    answers += [
        *world.rows(RECONTEXTUALIZED, 1, "default", ["general"] * 4),
        *world.rows(RECONTEXTUALIZED, 5, "default", ["hack"] * 4),
    ]
    summary = world.summary(world.table(answers))
    (row,) = summary["differences"]
    assert (row["seeds"], row["estimate"]) == ([1, 5], 0.0)
    assert [seed["rate"] for seed in cell(summary, STANDARD, "default")["per_seed"]] == [0.0, 1.0]


def test_no_common_seed_is_no_difference() -> None:
    answers = [*world.rows(STANDARD, 0, "default", ["hack"] * 4), *world.rows(RECONTEXTUALIZED, 1, "default", ["general"] * 4)]
    assert world.summary(world.table(answers))["differences"] == []


def test_everything_zero_has_an_interval_that_tasks_explain() -> None:
    summary = world.summary(world.with_effect(dict.fromkeys(world.EFFECT, (0, 0, 0)), seeds=(0, 3), tasks=50))
    for one in summary["cells"]:
        assert one["rate"]["estimate"] == one["rate"]["low"] == 0 < one["rate"]["high"] < 0.1
    for row in summary["differences"]:
        assert (row["estimate"], row["p"]) == (0, 1) and row["low"] < 0 < row["high"]


def test_all_unscored_is_nothing_and_no_zero() -> None:
    arms = ((STANDARD, 0), (RECONTEXTUALIZED, 0), ("before", None))
    summary = world.summary(world.table([row for arm, seed in arms for row in world.rows(arm, seed, "default", [None] * 5)]))
    assert [one["rate"] for one in summary["cells"]] == [None] * 3
    assert {one["per_seed"][0]["rate"] for one in summary["cells"]} == {None}
    assert all(one["unscored"] == {"no reply": 5} and sum(one["counts"].values()) == 0 for one in summary["cells"])
    assert summary["differences"] == []


def test_without_a_standard_arm_the_policy_before_is_the_baseline() -> None:
    answers = world.with_effect({arm: world.EFFECT[arm] for arm in ("before", RECONTEXTUALIZED)})
    summary = world.summary(answers, baseline="before")
    assert [row["num_seeds"] for row in summary["differences"]] == [3] * 3
    row = summary["differences"][2]
    before, after = means(answers, "before", "hack"), means(answers, RECONTEXTUALIZED, "hack")
    assert row["estimate"] == pytest.approx(sum(after.values()) / len(after) - sum(before.values()) / len(before))
