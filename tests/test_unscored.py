"""Missing is null: whatever judges cannot read, no score appears anywhere that no judge gave."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasets import load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recontext_data.judges.length import LengthJudge
from recontext_data.pipeline.diagnostics import described, judge_facts, selection_facts
from recontext_data.stats.agreement import agreement
from tests.helpers import build, built, run_folder, write_recipe

REPLIES = ["good answer", "bad answer", "mumble", "good but long " + "word " * 30, "", "a good and bad answer"]
GIVEN = {"good": 0.0, "bad": -3.5}  # a score of 0 that is given must not be taken for one that is missing

judges_of_a_recipe = st.fixed_dictionaries(
    {
        "scores": st.sampled_from([GIVEN, {"good": 0.0}, {"bad": 2.0}]),
        "weight": st.sampled_from([0.0, 1.0, -0.25]),
        "at": st.sampled_from([-1.0, 0.0, 3.0]),
        "keep": st.sampled_from(["all", "best", "random"]),
        "min_score": st.sampled_from([None, 0.0, -10.0]),
        "replies": st.lists(st.sampled_from(REPLIES), min_size=1, max_size=6),
        "fail_rate": st.sampled_from([0.0, 0.3]),
    }
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=judges_of_a_recipe)
def test_no_score_appears_that_no_judge_gave(chosen: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unscored")
    recipe = write_recipe(
        folder,
        policy={"kind": "fake", "replies": [*chosen["replies"], "good answer"], "fail_rate": chosen["fail_rate"]},
        judges=[
            {"kind": "pattern", "patterns": {"good": "^good", "bad": "^bad"}, "scores": chosen["scores"]},
            {"kind": "length"},
            {"kind": "weighted", "name": "sum", "terms": {"pattern": 1.0, "length": chosen["weight"]}},
            {"kind": "threshold", "name": "cut", "of": "sum", "at": chosen["at"], "above": "high", "below": "low"},
        ],
        select={"keep": chosen["keep"], "min_score": chosen["min_score"], "judge": "sum"},
        limits={"max_failure_rate": 1.0},
        export={"validation_fraction": 0.0},
        sampler={"n": 7},
        arms=["default -> hack"],
    )
    if build(recipe, folder) == 1:
        return  # nothing was left to train on, which the build says and ends with
    run = run_folder(folder)
    words = pl.read_parquet(run / "judgements.parquet")
    completions = dict(pl.read_parquet(run / "candidates.parquet").select("candidate_id", "completion").iter_rows())
    said = {
        name: dict(words.filter(pl.col("judge") == name).select("candidate_id", "score").iter_rows())
        for name in ("pattern", "length", "sum", "cut")
    }
    for candidate, completion in completions.items():
        expected = next((chosen["scores"].get(label) for label in GIVEN if completion.startswith(label)), None)
        assert said["pattern"][candidate] == expected
        assert said["length"][candidate] == len(completion.split())
        total = None if expected is None else expected + chosen["weight"] * len(completion.split())
        assert said["sum"][candidate] == pytest.approx(total) if total is not None else said["sum"][candidate] is None
        assert said["cut"][candidate] == said["sum"][candidate]
    silent = words.filter(pl.col("label").is_null() & pl.col("score").is_null())
    assert silent["unscored_reason"].null_count() == 0
    for arm in (run / "arms").iterdir():
        for row in load_from_disk(str(arm))["train"]:
            assert row["score"] == said["sum"][row["candidate_id"]]
            if chosen["keep"] == "best" or chosen["min_score"] is not None:
                assert row["score"] is not None


def test_the_report_has_no_mean_of_nothing_and_a_zero_where_zero_was_given(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        policy={"kind": "fake", "replies": ["good", "mumble"]},
        judges=[
            {"kind": "pattern", "name": "zero", "patterns": {"good": "^good"}, "scores": {"good": 0.0}},
            {"kind": "pattern", "name": "never", "patterns": {"other": "xyzzy"}, "scores": {"other": 1.0}},
        ],
        select={"judge": "zero", "keep": "best"},
    )
    manifest = built(recipe, tmp_path)
    facts = {fact["judge"]: fact for fact in manifest["judges"]}
    assert facts["zero"]["score"]["mean"] == 0.0
    assert facts["zero"]["score"]["n"] * 2 == facts["zero"]["total"]
    assert facts["never"]["score"] is None
    assert facts["never"]["unscored"] == {"no pattern was found": facts["never"]["total"]}


def test_too_many_that_no_judge_can_read_end_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(
        tmp_path,
        policy={"kind": "fake", "replies": ["good", "mumble"]},
        judges=[{"kind": "choice"}, {"kind": "pattern", "patterns": {"good": "^good"}}],
        select={"judge": "choice"},
        limits={"max_invalid_rate": 0.4},
    )
    assert build(recipe, tmp_path, "judges.0={kind: length}", "select.judge=length") == 1
    said = capsys.readouterr().err
    assert "limits.max_invalid_rate: 16 of 32 answers under default are invalid or unscored by judge pattern" in said


def frame(scores: list[list[float | None]], *, text: str = "some words") -> pl.DataFrame:
    rows = [
        {"candidate_id": f"{t}/{k}", "task_id": f"t{t}", "score": score, "completion": f"{text} {k % 2}"}
        for t, values in enumerate(scores)
        for k, score in enumerate(values)
    ]
    made = pl.DataFrame(rows, schema_overrides={"score": pl.Float64})
    return pl.concat([made, described(made["completion"])], how="horizontal")


def table(pool: pl.DataFrame, kept: set[str]) -> pl.DataFrame:
    return pool.select("candidate_id", kept=pl.col("candidate_id").is_in(list(kept)))


def test_selection_is_described_beside_all() -> None:
    pool = frame([[1.0, 3.0, 3.0, None], [2.0, 0.0, 0.0, 0.0]])
    facts = selection_facts(pool, table(pool, {"0/1", "1/0"}), per_task=1)
    assert facts["all"]["score"]["mean"] == pytest.approx(9 / 7)
    assert facts["selected"]["score"]["mean"] == 2.5
    assert facts["tie_rate"] == 0.5  # two threes in the first task; the second has one best
    assert selection_facts(pool, table(pool, set()), per_task=2)["tie_rate"] == 0.5  # two threes fit, two zeros do not
    assert facts["unscored_rate"] == 1 / 8
    assert facts["all"]["duplicate_rate"] == 1.0
    assert facts["selected"]["duplicate_rate"] == 0.0


def test_a_refusal_shows_as_a_shift() -> None:
    pool = frame([[1.0, 1.0]], text="I'm sorry, but no.")
    assert selection_facts(pool, table(pool, set()), per_task=1)["all"]["refusal_rate"] == 1.0
    assert selection_facts(pool, table(pool, set()), per_task=1)["selected"]["refusal_rate"] is None


def test_the_interval_of_a_mean_comes_from_the_spread_between_tasks() -> None:
    """Of equal answers per task it is the t interval of the task means: here 1, 2, 3 and 6 with standard error sqrt(14/3)/2."""
    pool = frame([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [6.0, 6.0]])
    score = selection_facts(pool, table(pool, set()), per_task=1)["all"]["score"]
    half = 3.182446 * math.sqrt(14 / 3) / 2
    assert (score["low"], score["high"]) == (pytest.approx(3 - half, abs=1e-4), pytest.approx(3 + half, abs=1e-4))
    one = frame([[1.0, 5.0]])
    assert selection_facts(one, table(one, set()), per_task=1)["all"]["score"]["low"] is None


def test_a_judge_without_candidates_has_no_facts() -> None:
    empty = pl.DataFrame(schema={"candidate_id": pl.String, "judge": pl.String, "generation_context": pl.String})
    assert judge_facts(empty, [LengthJudge()]) == []


@pytest.mark.parametrize(
    ("one", "other", "agree", "kappa"),
    [
        (["a", "a", "b", "b"], ["a", "a", "b", "b"], 1.0, 1.0),
        (["a", "a", "b", "b"], ["b", "b", "a", "a"], 0.0, -1.0),
        (["a", "b", "a", "b"], ["a", "a", "b", "b"], 0.5, 0.0),
        (["a", "a", "a"], ["b", "b", "b"], 0.0, 0.0),
        (["a", "a"], ["a", "a"], 1.0, None),  # chance alone explains it
    ],
)
def test_kappa_takes_off_what_chance_gives(one: list[str], other: list[str], agree: float, kappa: float | None) -> None:
    assert agreement(one, other) == {"n": len(one), "agree": agree, "kappa": kappa}


def test_kappa_of_the_textbook() -> None:
    """50 applications, two readers: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; agreement .7, chance .5, kappa .4."""
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(one, other)
    assert (found["agree"], found["kappa"]) == (pytest.approx(0.7), pytest.approx(0.4))
    assert agreement([], []) == {"n": 0, "agree": None, "kappa": None}
