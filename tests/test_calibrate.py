"""Calibrate: statistics against figures worked out by hand, labels' files, and what the build says of a measured judge."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data import calibrate as verb
from recontext_data.config.recipe import JUDGES
from recontext_data.evaluation.calibration import LabelledAnswer, auroc, calibrated, kappa
from recontext_data.pipeline.judge_models import identities
from recontext_data.reports.calibration import judges_shown
from recontext_data.reports.html import render_report
from recontext_data.stats.statistics import wilson
from tests import manifests
from tests.fault_server import FaultServer
from tests.helpers import built, candidates, error_line, files_below, manifest, run_folder
from tests.judging_world import Bench, asked, at, recipe, rubric_file
from tests.test_report import HOSTILE, Page, assert_inert


def items(*rows: tuple[str, str | None, float | None], tasks: int | None = None) -> list[LabelledAnswer]:
    return [
        LabelledAnswer(task=f"t{index % (tasks or len(rows))}", truth=truth, said=said, score=score)
        for index, (truth, said, score) in enumerate(rows)
    ]


def statistic(facts: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = [row for row in facts["statistics"] if row["name"] == name]
    found: dict[str, Any] = row
    return found


# --- statistics


BOOK = items(*[("yes", "yes", None)] * 20, *[("yes", "no", None)] * 5, *[("no", "yes", None)] * 10, *[("no", "no", None)] * 15)
"""Kappa of this table is 0.4: agreement 0.70, chance 0.50."""


def test_shares_and_kappa_are_those_of_the_table() -> None:
    facts = calibrated(BOOK, positive="yes")
    assert statistic(facts, "accuracy")["estimate"] == pytest.approx(0.7)
    assert (statistic(facts, "accuracy")["low"], statistic(facts, "accuracy")["high"]) == pytest.approx(wilson(35, 50))
    assert statistic(facts, "precision")["estimate"] == pytest.approx(20 / 30)
    assert (statistic(facts, "precision")["low"], statistic(facts, "precision")["high"]) == pytest.approx(wilson(20, 30))
    assert statistic(facts, "recall")["estimate"] == pytest.approx(20 / 25)
    row = statistic(facts, "kappa")
    assert row["estimate"] == pytest.approx(0.4) and row["low"] < 0.4 < row["high"]
    assert facts["confusion"] == {"no": {"no": 15, "yes": 10}, "yes": {"no": 5, "yes": 20}}


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    rows = [("yes", "yes", 9.0), ("yes", "yes", 5.0), ("no", "no", 5.0), ("no", "no", 1.0)] * 5
    facts = calibrated(items(*rows), positive="yes")
    assert statistic(facts, "AUROC")["estimate"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert statistic(facts, "AUROC")["high"] <= 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 3)), min_size=2, max_size=12))
def test_auroc_by_sums_is_auroc_by_pairs(rows: list[tuple[bool, int, int]]) -> None:
    truth, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    pairs = [
        (1.0 if a > b else 0.5 if a == b else 0.0, wa * wb) for (ta, a, wa) in rows for (tb, b, wb) in rows if ta and not tb
    ]
    found = auroc(score, truth, weight.astype(float))
    total = sum(weight for _, weight in pairs)
    assert math.isnan(found) if not pairs else found == pytest.approx(sum(w * v for v, w in pairs) / total)


def test_kappa_where_chance_explains_everything_is_none() -> None:
    assert math.isnan(kappa(np.array([[5.0, 0.0], [0.0, 0.0]])))
    facts = calibrated(items(*[("no", "no", None)] * 20), positive="yes")
    row = statistic(facts, "kappa")
    assert (row["estimate"], row["low"], row["n"]) == (None, None, 20)
    assert statistic(facts, "precision") | {"unscored": 0} == {
        "name": "precision", "estimate": None, "low": None, "high": None, "method": "", "n": 0, "unscored": 0,
    }  # fmt: skip


def test_unscored_answers_are_counted_beside_and_are_in_nothing() -> None:
    facts = calibrated([*BOOK, *items(*[("yes", None, None)] * 7)], positive="yes")
    assert facts["unscored"] == 7 and facts["items"] == 57
    for row in facts["statistics"]:
        assert row["unscored"] == 7
        assert row["estimate"] == statistic(calibrated(BOOK, positive="yes"), row["name"])["estimate"]


def test_many_answers_to_few_tasks_widen_the_intervals() -> None:
    rows = [("yes", "yes" if index % 12 else "no", None) for index in range(120)]
    wide = statistic(calibrated(items(*rows, tasks=12), positive="yes"), "accuracy")
    narrow = statistic(calibrated(items(*rows), positive="yes"), "accuracy")
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])
    few = statistic(calibrated(items(*rows, tasks=6), positive="yes"), "kappa")
    assert few["low"] is None


def test_the_bootstrap_covers_what_it_should() -> None:
    """AUROC of two normal distributions a unit apart is 0.760; of 60 draws of 80 answers, most intervals hold it."""
    generator, hits = np.random.default_rng(7), 0
    for _ in range(60):
        truth = generator.random(80) < 0.5
        score = generator.normal(truth.astype(float), 1)
        rows = [("yes" if t else "no", "yes" if s > 0.5 else "no", float(s)) for t, s in zip(truth, score, strict=True)]
        row = statistic(calibrated(items(*rows), positive="yes"), "AUROC")
        hits += row["low"] <= 0.760 <= row["high"]
    assert hits >= 51


def test_the_curve_has_a_row_per_value_or_ten_bins() -> None:
    few = calibrated(items(*[("yes" if score > 4 else "no", "no", float(score)) for score in range(11)] * 3), positive="yes")
    assert [(row["from"], row["n"], row["share"]) for row in few["curve"]] == [
        (score, 3, 1.0 if score > 4 else 0.0) for score in range(11)
    ]
    many = calibrated(items(*[("yes", "yes", score / 7) for score in range(70)]), positive="yes")
    assert len(many["curve"]) == 10 and sum(row["n"] for row in many["curve"]) == 70
    labels = calibrated(BOOK, positive="yes")["curve"]
    assert [(row["label"], row["n"], row["positive"]) for row in labels] == [("no", 20, 5), ("yes", 30, 20)]


def test_the_same_items_give_the_same_numbers() -> None:
    assert calibrated(BOOK, positive="yes") == calibrated(BOOK, positive="yes")


# --- the verb


def run(output: Path, *words: str) -> int:
    return verb.main([f"output={output}", *words])


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judge_words(folder: Path, server: FaultServer) -> list[str]:
    policy = [f"policy.{key}={value}" for key, value in at(server).items()]
    return [f"judge={rubric_file(folder)}", *policy]


ROWS = [{"prompt": f"q{i // 2}", "completion": f"answer {i}", "label": "good" if i % 3 else "bad"} for i in range(40)]


def found(output: Path) -> dict[str, Any]:
    (path,) = (output / "calibrations").glob("*.json")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def test_a_rubric_is_measured_against_free_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        labels = jsonl(tmp_path / "labels.jsonl", ROWS)
        words = [*judge_words(tmp_path, server), f"labels={labels}", "positive=good"]
        assert run(tmp_path / "out", *words, "dry_run=true") == 0
        assert server.seen == [] and "judge mine" in capsys.readouterr().out
        assert files_below(tmp_path / "out") == []
        assert run(tmp_path / "out", *words) == 0
        shown = capsys.readouterr().out
        assert asked(server).total() == 40
        assert run(tmp_path / "out", *words) == 0
        assert asked(server).total() == 40, "the second time all is in the store"
    facts = found(tmp_path / "out")
    assert (facts["items"], facts["tasks"], facts["unscored"], facts["threshold"]) == (40, 20, 0, 5.0)
    for word in ("accuracy", "precision", "recall", "kappa", "AUROC", "95 % interval", "unscored", "judge says"):
        assert word in shown
    said = sum(facts["confusion"].get("good", {}).values()) + sum(facts["confusion"].get("not good", {}).values())
    assert said == 40
    assert sum(row["n"] for row in facts["curve"]) == 40


def test_reviewers_are_taken_together_and_ties_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [row | {"reviewer": "ann"} for row in ROWS]
    rows += [ROWS[0] | {"reviewer": "bo", "label": "good"}]
    rows += [ROWS[1] | {"reviewer": name, "label": "bad"} for name in ("bo", "cy")]
    rows += [{"prompt": "q", "completion": "unlabelled", "label": None, "reviewer": "ann"}]
    with FaultServer(Bench()) as server:
        labels = tmp_path / "labels.parquet"
        pl.DataFrame(rows).write_parquet(labels)
        assert run(tmp_path / "out", *judge_words(tmp_path, server), f"labels={labels}", "positive=good") == 0
    facts = found(tmp_path / "out")
    assert facts["labels"]["reviewers"] == ["ann", "bo", "cy"] and facts["labels"]["disagreements"] == 2
    assert facts["labels"]["left_out"] == {"no label": 1, "reviewers tie": 1} and facts["items"] == 39
    assert "reviewers disagree on 2; left out: 1 no label, 1 reviewers tie" in capsys.readouterr().out


def test_people_may_grade_on_the_judges_scale(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "label"} | {"score": i % 11} for i, row in enumerate(ROWS)]
    with FaultServer(Bench()) as server:
        labels = jsonl(tmp_path / "labels.jsonl", rows)
        assert run(tmp_path / "out", *judge_words(tmp_path, server), f"labels={labels}", "threshold=7") == 0
    facts = found(tmp_path / "out")
    assert facts["positive"] == ">= 7" and facts["threshold"] == 7
    assert sum(facts["confusion"][">= 7"].values()) == sum(i % 11 >= 7 for i in range(40))


def test_a_judge_of_a_recipe_is_measured_on_its_run_and_the_build_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        made = built(path, tmp_path / "out")
        assert all(row["calibrations"] == [] for row in made["judging"])
        card = run_folder(tmp_path / "out") / "arms" / made["arms"][0]["name"] / "README.md"
        assert "was not measured against people's labels" in card.read_text(encoding="utf-8")
        ids = candidates(tmp_path / "out")["candidate_id"].to_list()
        labels = tmp_path / "labels.parquet"
        pl.DataFrame({"candidate_id": ids, "label": ["hack", "general"] * 6}).write_parquet(labels)
        before = asked(server).total()
        assert run(tmp_path / "out", "judge=mine", f"recipe={path}", f"labels={labels}") == 0
        assert asked(server).total() == before, "the build has bought these"
        assert found(tmp_path / "out")["positive"] == "hack"

        again = built(path, tmp_path / "out")
        (row,) = [row for row in again["judging"] if row["name"] == "mine"]
        assert row["calibrations"] == [found(tmp_path / "out")] and again["fingerprint"] == made["fingerprint"]
        text = card.read_text(encoding="utf-8")
        assert "against 12 labels that people gave" in text and "| AUROC |" in text and "| kappa |" in text
        page = (run_folder(tmp_path / "out") / "report.html").read_text(encoding="utf-8")
        assert "Against 12 labels that people gave" in page and "AUROC" in page
        capsys.readouterr()
        built(path, tmp_path / "out")
        assert "nothing to do" in capsys.readouterr().err

        # A changed rubric is another judge, and nothing is known of it.
        rubric_file(tmp_path / "in", system="You grade.")
        changed = built(path, tmp_path / "out")
        assert all(row["calibrations"] == [] for row in changed["judging"])
    assert manifest(tmp_path / "out")["fingerprint"] == changed["fingerprint"] != made["fingerprint"]


def test_a_judge_without_a_model_is_measured_too(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        built(path, tmp_path / "out")
        ids = candidates(tmp_path / "out")["candidate_id"].to_list()
        labels = jsonl(tmp_path / "labels.jsonl", [{"candidate_id": each, "label": "invalid"} for each in ids])
        assert run(tmp_path / "out", "judge=choice", f"recipe={path}", f"labels={labels}", "positive=invalid") == 0
    assert statistic(found(tmp_path / "out"), "accuracy")["estimate"] == 1.0


def test_unreadable_replies_are_in_their_own_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.garbled_share = 0.5
    with FaultServer(bench) as server:
        labels = jsonl(tmp_path / "labels.jsonl", ROWS)
        words = [*judge_words(tmp_path, server), "retries=0", f"labels={labels}", "positive=good"]
        assert run(tmp_path / "out", *words) == 0
    facts = found(tmp_path / "out")
    assert 0 < facts["unscored"] < 40 and facts["unscored_reasons"] == {"no tag": facts["unscored"]}
    assert statistic(facts, "accuracy")["n"] == 40 - facts["unscored"]
    assert f"unscored: {facts['unscored']} no tag" in capsys.readouterr().out


FAKE = ["policy.kind=fake", "policy.replies=[x]"]


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (ROWS, ["judge=qualty", *FAKE, "positive=good"], "rubric: no rubric is named 'qualty'; did you mean 'quality'?"),
        (ROWS, ["judge=quality", "positive=good"], "policy: missing; the command line must set it"),
        (ROWS, ["judge=quality", *FAKE], "positive=: say which label counts as a find; known: bad, good"),
        (
            ROWS,
            ["judge=quality", *FAKE, "positive=godo"],
            "positive=godo: say which label counts as a find; did you mean 'good'?",
        ),
        (ROWS, ["judge=quality", *FAKE, "positive=good", "threshold=x"], "threshold=x: must be a number"),
        (
            ROWS,
            ["judge=quality", *FAKE, "positive=good", "confidence=95"],
            "confidence=95: must be a number above 0 and below 1",
        ),
        (ROWS, ["judge=quality", *FAKE, "positive=good", "retry=1"], "retry: unknown key; did you mean 'retries'?"),
        (ROWS, ["judge=nobody", "recipe=code_mc"], "judge=nobody: recipe code_mc has no judge of that name; known: choice"),
        ([{"completion": "a", "label": "x"}], ["judge=quality", *FAKE], "labels.jsonl: has neither candidate_id nor prompt"),
        ([{"prompt": "q", "completion": "a"}], ["judge=quality", *FAKE], "labels.jsonl: give exactly one of the columns label"),
        (
            [{"prompt": "q", "completion": "a", "label": None}],
            ["judge=quality", *FAKE],
            "labels.jsonl: no answer in it has a label",
        ),
        (
            [{"prompt": 3, "completion": "a", "label": "x"}],
            ["judge=quality", *FAKE],
            "labels.jsonl: row 0: prompt and completion",
        ),
        (
            [{"prompt": "q", "completion": "a", "score": True}],
            ["judge=quality", *FAKE],
            "labels.jsonl: row 0: score True is no",
        ),
        (
            [{"candidate_id": "c", "label": "x"}],
            ["judge=quality", *FAKE],
            "labels.jsonl: names candidates, and no recipe is given",
        ),
        ([{"candidate_id": "c", "label": "x"}], ["judge=choice", "recipe=code_mc"], "is not built; build the recipe first"),
        (
            [{"prompt": "q", "completion": "Answer: (A)", "label": "hack"}],
            ["judge=choice", "recipe=code_mc"],
            "judge choice: reads 'hack_option' of the tasks' payload; add it to the column payload",
        ),
        (
            [{"prompt": "q", "completion": "a", "label": "x", "payload": "{"}],
            ["judge=quality", *FAKE],
            "labels.jsonl: row 0: payload is not JSON",
        ),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    rows: list[dict[str, Any]], words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = jsonl(tmp_path / "labels.jsonl", rows)
    assert run(tmp_path / "out", *words, f"labels={labels}") == 2
    assert said in error_line(capsys.readouterr().err)
    assert [name for name in files_below(tmp_path / "out") if not name.startswith(("cache", "replies"))] == []


def test_what_is_missing_on_the_command_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out") == 2
    assert "judge: missing; write judge=..., as in judge=NAME labels=FILE" in error_line(capsys.readouterr().err)
    assert run(tmp_path / "out", "judge=quality", "labels=no.jsonl", *FAKE) == 2
    assert "labels=no.jsonl: there is no such file" in error_line(capsys.readouterr().err)


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{option}: " in f"\n{shown}" for option in verb.OPTIONS.model_fields)


def test_what_a_judge_is_includes_the_judges_that_it_goes_by() -> None:
    judges: list[dict[str, Any]] = [
        {"kind": "pattern", "name": "say", "patterns": {"good": "^good"}, "scores": {"good": 1.0}},
        {"kind": "length"},
        {"kind": "threshold", "name": "cut", "of": "say", "at": 1.0, "above": "hi", "below": "lo"},
    ]

    def known(first: dict[str, Any]) -> dict[str, Any]:
        made = [JUDGES.validate(tree) for tree in [first, *judges[1:]]]
        return identities(made, {})

    before = known(judges[0])
    assert known(judges[0]) == before
    after = known(judges[0] | {"scores": {"good": 2.0}})
    assert {name for name in before if before[name] != after[name]} == {"say", "cut"}


# --- the build's report


def judging(**changes: Any) -> dict[str, Any]:
    """A calibrated judge as the manifest has it."""
    facts = {
        "judge": "grader",
        "labels": {"file": "labels.parquet", "reviewers": ["ann", "bo"], "sha256": "0" * 64},
        "threshold": None,
        **calibrated([*BOOK, *items(*[("yes", None, None)] * 7)], positive="yes"),
    }
    return {"name": "grader", "kind": "rubric", "policy": {}, "trial": None, "calibrations": [facts]} | changes


def report(*judges: dict[str, Any]) -> Page:
    return Page(render_report(manifests.manifest() | {"judging": list(judges)}, samples=manifests.samples()))


def test_the_build_s_report_shows_a_judge_s_errors_beside_it() -> None:
    found = report(judging())
    assert_inert(found, also={"code"})
    assert "How far the judges can be trusted" in found.text
    assert (
        "Against 57 labels that people gave to answers to 50 tasks, by 2 reviewers (labels.parquet). Positive is yes."
        in found.text
    )
    low, high = wilson(35, 50)
    for wanted in ("accuracy0.700", f"{low:.3f}–{high:.3f}", "kappa0.400", "judge said no", "bootstrap over tasks", "66.7 %"):
        assert wanted in found.text, wanted
    assert found.tags.count("svg") == 2, "the rates' figure and the calibration's"


def test_the_figure_of_a_calibration_is_its_curve() -> None:
    (judge,) = judges_shown({"judging": [judging()]})
    (facts,) = judge["calibrations"]
    assert [(mark.name, mark.stance, mark.x) for mark in facts["figure"].marks] == [
        ("no", "said of 20", 25.0),
        ("yes", "said of 30", 66.667),
    ]
    assert [(mark.low, mark.high) for mark in facts["figure"].marks] == [
        (round(100 * row["low"], 3), round(100 * row["high"], 3)) for row in facts["curve"]
    ]
    assert facts["said"] == ["no", "yes"] and facts["truth"] == [("no", [15, 10]), ("yes", [5, 20])]


def test_what_was_not_measured_is_said_and_is_no_zero() -> None:
    found = report(judging(calibrations=[]))
    assert "Not measured against people's labels: nothing is known of its errors." in found.text
    nothing = judging(
        calibrations=[judging()["calibrations"][0] | calibrated(items(*[("no", None, None)] * 3), positive="yes")]
    )
    assert "accuracy––03–" in report(nothing).text
    rule = {"name": "choice", "kind": "choice", "calibrations": []}
    assert "How far the judges" not in report(rule).text, "a rule has no errors to measure unless somebody does"
    trained = judging(calibrations=[], measured={"examples": 100, "positives": 40, "caught": 30, "false_alarms": 6})
    assert "caught (true positive rate) 75.0 % of 40" in report(trained).text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_labels_stay_text(text: str) -> None:
    book = items(*[(text, text, None)] * 20, *[("no", "no", None)] * 20)
    facts = judging()["calibrations"][0] | calibrated(book, positive=text)
    facts |= {"labels": {"file": text, "reviewers": [text]}}
    assert_inert(report(judging(name=text, kind=text, calibrations=[facts])), also={"code"})
