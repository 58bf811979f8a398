"""Judges without a model: patterns, lengths, and those that go by other judges. A missing word stays missing."""

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from recontext_data.config.loading import load
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Candidate, Judgement, Task
from recontext_data.judges.base import AnyJudge
from recontext_data.judges.derived import NoiseJudge, PanelJudge, ThresholdJudge, WeightedJudge
from recontext_data.judges.length import LengthJudge
from recontext_data.judges.pattern import MAX_CHARACTERS, PatternJudge
from recontext_data.pipeline.judge import judge
from tests.helpers import write_recipe

Word = tuple[str | None, float | None, str | None]


def candidate(completion: str, *, reasoning: str | None = None) -> Candidate:
    return Candidate(candidate_id="c", task_id="t", messages=[], completion=completion, payload={}, reasoning=reasoning)


def read(judge: PatternJudge | LengthJudge, completion: str, *, reasoning: str | None = None) -> Judgement:
    [word] = judge.judge([candidate(completion, reasoning=reasoning)])
    return word


def words(**judges: list[Word]) -> pl.DataFrame:
    rows = len(next(iter(judges.values())))
    columns: dict[str, Any] = {"candidate_id": [f"c{i}" for i in range(rows)], "reply_key": [f"key-{i}" for i in range(rows)]}
    types: dict[str, Any] = {}
    for name, said in judges.items():
        parts = [("label", pl.String), ("score", pl.Float64), ("unscored_reason", pl.String)]
        for index, (column, type_) in enumerate(parts):
            columns[f"{name}.{column}"] = [word[index] for word in said]
            types[f"{name}.{column}"] = type_
    return pl.DataFrame(columns, schema_overrides=types)


def test_the_first_label_with_a_pattern_that_is_found_is_given() -> None:
    judge = PatternJudge(patterns={"refused": [r"i can(no|')t", "sorry"], "hedged": "perhaps"}, otherwise="answered")
    assert read(judge, "Perhaps. But I can't say.").label == "refused"
    assert read(judge, "perhaps").label == "hedged"
    assert read(judge, "It is 4.").label == "answered"
    assert read(judge, "Perhaps. But I can't say.").raw == "I can't"


def test_a_text_without_any_pattern_is_unscored_unless_the_recipe_says_what_it_is() -> None:
    word = read(PatternJudge(patterns={"refused": "sorry"}, scores={"refused": 0.0}), "It is 4.")
    assert (word.label, word.score, word.unscored_reason) == (None, None, "no pattern was found")


@pytest.mark.parametrize(
    ("where", "completion", "reasoning", "label"),
    [
        ("last_line", "no\nyes", None, "yes"),
        ("last_line", "yes\nno", None, "other"),
        ("last_line", "", None, "other"),
        ("reasoning", "no", "yes", "yes"),
        ("reasoning", "yes", None, None),
    ],
)
def test_a_pattern_looks_where_it_is_told(where: str, completion: str, reasoning: str | None, label: str | None) -> None:
    judge = PatternJudge.model_validate({"patterns": {"yes": "yes"}, "otherwise": "other", "text": where})
    assert read(judge, completion, reasoning=reasoning).label == label


def test_case_counts_when_asked_to() -> None:
    assert read(PatternJudge(patterns={"yes": "Yes"}, otherwise="no", ignore_case=False), "yes").label == "no"


def test_a_text_too_long_to_search_is_unscored() -> None:
    word = read(PatternJudge(patterns={"yes": "yes"}, otherwise="no"), "yes" * MAX_CHARACTERS)
    assert word.label is None
    assert word.unscored_reason == f"longer than {MAX_CHARACTERS} characters"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"patterns": {"a": "("}}, "patterns.a: '(' is not a valid regular expression"),
        ({"patterns": {"a": "x*"}}, "patterns.a: 'x*' is found in an empty text"),
        ({"patterns": {"a": "x"}, "scores": {"b": 1.0}}, "scores: it never says 'b'"),
        ({"patterns": {}}, "at least 1"),
    ],
)
def test_a_pattern_that_will_not_do_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=r".*") as caught:
        PatternJudge.model_validate(config)
    assert said in str(caught.value)


def test_lengths_are_scores_and_bounds_are_labels() -> None:
    judge = LengthJudge(unit="words", at_least=2, at_most=3)
    assert [read(judge, text).label for text in ("one", "one two", "one two three", "a b c d")] == [
        "short",
        "fits",
        "fits",
        "long",
    ]
    assert read(judge, "").score == 0.0  # an empty completion has a length
    assert read(LengthJudge(unit="characters"), "naïve").score == 5.0
    assert read(LengthJudge(unit="lines"), "a\nb\n").score == 2.0
    assert read(LengthJudge(), "a b").label is None
    with pytest.raises(ValidationError, match="nothing would fit"):
        LengthJudge(at_least=3, at_most=2)


def test_a_sum_is_exact_and_missing_where_a_term_is() -> None:
    table = words(
        quality=[(None, 8.0, None), (None, None, "no tag"), (None, 0.0, None)],
        sycophancy=[(None, 4.0, None), (None, 3.0, None), ("odd", None, None)],
    )
    made = WeightedJudge(terms={"quality": 1.0, "sycophancy": 0.25}).derive(table)
    assert made["score"].to_list() == [9.0, None, None]
    assert made["unscored_reason"].to_list() == [None, "quality: no tag", "sycophancy: gave no score"]
    assert made["raw"].to_list() == ["1.0 x quality 8.0 + 0.25 x sycophancy 4.0", "", ""]


def test_the_threshold_itself_is_above() -> None:
    made = ThresholdJudge(of="s", at=6.0, above="high", below="low").derive(
        words(s=[(None, 5.999, None), (None, 6.0, None), (None, None, "garbled")])
    )
    assert made["label"].to_list() == ["low", "high", None]
    assert made["score"].to_list() == [5.999, 6.0, None]
    assert made["unscored_reason"].to_list() == [None, None, "s: garbled"]


def test_a_panel_needs_more_than_half_of_all_its_judges() -> None:
    table = words(
        a=[("x", None, None), ("x", None, None), ("x", None, None), ("z", None, None)],
        b=[("x", None, None), ("y", None, None), (None, None, "lost"), ("z", None, None)],
        c=[("y", None, None), (None, None, "lost"), (None, None, "lost"), ("z", None, None)],
    )
    panel = PanelJudge(of=["a", "b", "c"], labels=["x", "y"], scores={"x": 1.0})
    made = panel.derive(table)
    assert made["label"].to_list() == ["x", None, None, None]  # z is no label of this panel
    assert made["score"].to_list() == [1.0, None, None, None]
    assert made["raw"][1] == "a: x, b: y, c: nothing"
    strict = PanelJudge(of=["a", "b"], labels=["x", "y"], rule="unanimous").derive(table)
    assert strict["label"].to_list() == ["x", None, None, None]


def test_noise_has_the_rates_it_is_given_and_belongs_to_the_reply() -> None:
    said: list[Word] = [("hack" if i % 2 else "general", None, None) for i in range(20_000)]
    said[0] = (None, None, "lost")
    said[2] = ("invalid", None, None)
    said[4] = ("new", None, None)
    table = words(j=said)
    judge = NoiseJudge(of="j", positive="hack", negative="general", tpr=0.8, fpr=0.1, also=["invalid"], scores={"hack": 1.0})
    made = judge.derive(table)
    truth = table["j.label"]
    found = {label: made.filter(truth == label)["label"].eq("hack").mean() for label in ("hack", "general")}
    assert found["hack"] == pytest.approx(0.8, abs=0.012)  # three standard errors of 10,000 draws
    assert found["general"] == pytest.approx(0.1, abs=0.009)
    assert made["unscored_reason"].to_list()[:5:2] == ["j: lost", None, "j says new, which has no rate"]
    assert made["label"][2] == "invalid"
    assert made["score"].drop_nulls().unique().to_list() == [1.0]
    assert judge.derive(table.reverse()).reverse().equals(made)
    other = NoiseJudge(of="j", positive="hack", negative="general", tpr=0.8, fpr=0.1, seed=1).derive(table)
    assert not other["label"].equals(made["label"])


def test_a_flip_rate_of_one_flips_all_and_none_flips_none() -> None:
    table = words(j=[("hack", None, None), ("general", None, None)])
    flipped = NoiseJudge(of="j", positive="hack", negative="general", tpr=0.0, fpr=1.0).derive(table)
    assert flipped["label"].to_list() == ["general", "hack"]
    same = NoiseJudge(of="j", positive="hack", negative="general").derive(table)
    assert same["label"].to_list() == ["hack", "general"]


CHAIN = [
    {"kind": "pattern", "patterns": {"hack": "every test"}, "otherwise": "general"},
    {"kind": "length", "unit": "words"},
]


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        ([{"kind": "weighted", "terms": {"length": 1.0}}], "depends on judge 'length', which must be listed earlier"),
        ([*CHAIN, {"kind": "weighted", "terms": {"pattern": 1.0}}], "needs the scores of 'pattern', which gives none"),
        (
            [*CHAIN, {"kind": "noise", "of": "pattern", "positive": "hac", "negative": "general"}],
            "'pattern' never says 'hac'; did you mean 'hack'?",
        ),
        ([*CHAIN, {"kind": "threshold", "of": "length", "at": 3.0, "above": "x", "below": "x"}], "the labels must differ"),
    ],
)
def test_a_judge_that_cannot_go_by_another_is_refused(judges: list[Any], said: str, tmp_path: Any) -> None:
    path = write_recipe(tmp_path, judges=judges)
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert said in str(caught.value)


def test_a_hundred_thousand_candidates_are_judged_and_combined() -> None:
    """How fast is in benchmarks/judging.py; here that it holds at that size, in order and complete."""
    size = 100_000
    frame = pl.DataFrame(
        {
            "candidate_id": [f"c{i}" for i in range(size)],
            "task_id": ["t"] * size,
            "reply_key": [f"k{i}" for i in range(size)],
            "generation_context": ["default"] * size,
            "completion": [f"answer {i} passes every test" if i % 3 else f"answer {i}" for i in range(size)],
            "reasoning": [None] * size,
        },
        schema_overrides={"reasoning": pl.String},
    )
    judges: list[AnyJudge] = [
        PatternJudge(patterns={"hack": "every test"}, otherwise="general", scores={"hack": 1.0, "general": 0.5}),
        LengthJudge(unit="words"),
        WeightedJudge(terms={"pattern": 1.0, "length": -0.1}),
    ]
    table, entries = judge(frame, tasks={"t": Task(task_id="t", messages=[], payload={}, split="train")}, judges=judges)
    combined = table.filter(pl.col("judge") == "weighted")
    assert combined["candidate_id"].to_list() == frame["candidate_id"].to_list()
    assert combined["score"][:2].to_list() == pytest.approx([0.5 - 0.2, 1.0 - 0.5])
    assert [entry.kept for entry in entries] == [size] * 3
