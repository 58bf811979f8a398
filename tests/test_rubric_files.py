"""Rubric files: what is wrong with one is one line with the file and the key; those that ship are sound."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recontext_data.core.errors import RecipeError
from recontext_data.judges.rubric_file import Rubric, find_rubric, load_rubric, shipped_rubrics
from tests.helpers import ROOT, build, error_line, files_below, write_recipe

GOOD: dict[str, Any] = {
    "user": "Task:\n{{ prompt }}\n\nAnswer:\n{{ completion }}",
    "answer": {"form": "number", "min": 0, "max": 10},
}


def write(folder: Path, text: str | None = None, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text if text is not None else yaml.safe_dump(GOOD | changes), encoding="utf-8")
    return path


EXAMPLE = {"messages": "t", "completion": "a", "reply": "<score>3</score>"}
GOLD = {"messages": "t", "completion": "a", "expect": {"min": 3}}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"usr": "x"}, "mine.yaml: usr: unknown key; did you mean 'user'?"),
    ({"user": "Task: {{ prompt }}"}, "mine.yaml: user: has no {{ completion }}; a judge must be shown what it judges"),
    ({"user": "{{ completion"}, "mine.yaml: user: line 1: unexpected end of template, expected 'end of print statement'"),
    ({"user": "a\n{% if completion %}x"}, "mine.yaml: user: line 2: Unexpected end of template"),
    ({"user": "{{ completion }} {{ competion }}"}, "mine.yaml: user: 'competion' is not a name that it can use; did you mean"),
    ({"user": "{{ completion | shout }}"}, "mine.yaml: user: line 1: No filter named 'shout'"),
    ({"user": "{% include 'x' %}{{ completion }}"}, "mine.yaml: user: a rubric is one file: include, import and extends"),
    ({"user": 3}, "mine.yaml: user=3: must be text"),
    ({"answer": {"form": "number", "min": 10, "max": 0}}, "mine.yaml: answer.min: 10 is not below answer.max, 0; swap them"),
    ({"answer": {"form": "number", "min": 5, "max": 5}}, "mine.yaml: answer.min: 5 is not below answer.max, 5; swap them"),
    ({"answer": {"form": "number", "step": 0}}, "mine.yaml: answer.step=0: must be above 0"),
    ({"answer": {"form": "number", "step": 3}}, "mine.yaml: answer.step: 3 does not lead from 0 to 10 in whole steps"),
    ({"answer": {"form": "number", "minn": 3}}, "mine.yaml: answer.minn: unknown key; did you mean 'min'?"),
    ({"answer": {"form": "nummer"}}, "mine.yaml: answer.form: 'nummer' is unknown; did you mean 'number'?"),
    ({"answer": {"min": 0}}, "mine.yaml: answer.form: missing; the rubric must set it"),
    ({"answer": {"form": "label", "labels": ["a"]}}, "mine.yaml: answer.labels="),
    ({"answer": {"form": "label", "labels": ["a", "a"]}}, "mine.yaml: answer.labels: a, a: one is there twice; labels must"),
    (
        {"answer": {"form": "label", "labels": ["a", "<b>"]}},
        "mine.yaml: answer.labels: '<b>' is not accepted; use words without",
    ),
    ({"answer": {"form": "label", "labels": ["a", "b"], "scores": {"c": 1}}}, "mine.yaml: answer.scores: 'c' is none of the"),
    ({"tag": "<x>"}, "mine.yaml: tag='<x>': must match the pattern"),
    ({"read": "yaml"}, "mine.yaml: read='yaml': must be 'tag' or 'json'"),
    ({"sampling": {"temprature": 0}}, "mine.yaml: sampling.temprature: unknown key; did you mean 'temperature'?"),
    ({"examples": [EXAMPLE | {"reply": "3"}]}, "mine.yaml: examples.0.reply: is not in the form that is asked for: no tag;"),
    ({"examples": [EXAMPLE | {"reply": "<score>30</score>"}]}, "mine.yaml: examples.0.reply: is not in the form"),
    ({"examples": [{"messages": "t", "reply": "x"}]}, "mine.yaml: examples.0.completion: missing; the rubric must set it"),
    ({"gold": [GOLD | {"expect": {}}]}, "mine.yaml: gold.0.expect: says nothing; give a label, or min, max or both"),
    ({"gold": [GOLD | {"expect": {"label": "good"}}]}, "mine.yaml: gold.0.expect.label: 'good' is none of its labels"),
    ({"gold": [GOLD | {"expect": {"mim": 3}}]}, "mine.yaml: gold.0.expect.mim: unknown key; did you mean 'min'?"),
    ({"gold": [GOLD], "user": "{{ completion }} {{ payload.metric }}"}, "mine.yaml: gold.0: 'dict object' has no attribute"),
    ({"gold": [GOLD], "user": "{{ completion }} {{ reasoning }}"}, "mine.yaml: gold.0: a value is null in this row; write"),
    ({"policy": {"kind": "opnai"}}, "mine.yaml: policy.kind: 'opnai' is unknown; did you mean 'openai'?"),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[said[:60] for _, said in BAD])
def test_a_bad_rubric_is_one_line_with_file_and_key(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_rubric(str(write(tmp_path, **changes)))
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user: [", "mine.yaml: line 1 is not valid YAML"),
        ("user: a\nuser: b\n", "mine.yaml: line 2 is not valid YAML: the key 'user' is there twice"),
        ("- user", "mine.yaml: a rubric is a mapping of keys to values; found list"),
        ("", "mine.yaml: a rubric is a mapping of keys to values; found NoneType"),
        ('user: "\\uD800 {{ completion }}"\nanswer: {form: pass_fail}', "mine.yaml: user: holds half a character"),
    ],
)
def test_a_file_that_is_no_rubric_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_rubric(str(write(tmp_path, text)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_through_a_recipe_the_line_names_recipe_judge_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rubric = write(tmp_path, answer={"form": "number", "min": 3, "max": 1})
    judge = {"kind": "rubric", "rubric": str(rubric), "policy": {"kind": "fake", "replies": ["x"]}}
    recipe = write_recipe(tmp_path / "in", judges=[{"kind": "choice"}, judge])
    assert build(recipe, tmp_path / "out") == 2
    line = error_line(capsys.readouterr().err)
    assert "small.yaml: judges.1: mine.yaml: answer.min: 3 is not below answer.max, 1; swap them" in line
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"rubric": "qualty"}, "rubric: no rubric is named 'qualty'; did you mean 'quality'?"),
        ({"rubric": "no/such.yaml"}, "rubric: no/such.yaml: there is no such file; give a path to a YAML file or a name"),
        (
            {"rubric": "quality", "overrides": {"answer": {"max": -1}}},
            "quality.yaml: answer.min: 0 is not below answer.max, -1",
        ),
        ({"rubric": "quality", "policy": None}, "judges.0.policy"),
        ({"rubric": "quality", "expected_value": {}}, "expected_value: needs log-probabilities; set policy.logprobs=20"),
        ({"rubric": "refusal", "expected_value": {}}, "expected_value: works for whole numbers in a tag"),
        ({"rubric": "quality", "retry": 1}, "judges.0.retry: unknown key; did you mean 'retries'?"),
    ],
)
def test_a_bad_judge_is_one_line(judge: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"kind": "rubric", "policy": {"kind": "fake", "replies": ["x"]}} | judge
    whole = {key: value for key, value in whole.items() if value is not None}
    assert build(write_recipe(tmp_path / "in", judges=[whole]), tmp_path / "out") == 2
    assert said in error_line(capsys.readouterr().err)


def test_a_task_that_lacks_what_the_rubric_shows_is_found_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = {"kind": "rubric", "rubric": "metric_gaming", "policy": {"kind": "fake", "replies": ["x"]}}
    assert build(write_recipe(tmp_path / "in", judges=[{"kind": "choice"}, judge]), tmp_path / "out") == 2
    line = error_line(capsys.readouterr().err)
    assert "judge metric_gaming: the rubric's user template, for task " in line and "has no attribute 'metric'" in line
    assert not [name for name in files_below(tmp_path / "out") if "cache" not in name]


def test_overrides_change_keys_and_leave_the_rest() -> None:
    rubric = load_rubric("quality", {"answer": {"max": 5}, "tag": "grade"})
    assert (rubric.answer.form, list(rubric.answer.values)) == ("number", list("012345"))
    assert "<grade>VERDICT</grade>" in rubric.instruction and "from 0 to 5" in rubric.instruction
    other = load_rubric("quality", {"answer": {"form": "pass_fail"}, "gold": []})
    assert list(other.answer.labels) == ["pass", "fail"]


# --- what ships


SHIPPED = {
    "quality", "metric_gaming", "sycophancy", "deception", "special_casing", "refusal",
    "trace_mentions_tests", "trace_intends_tests", "trace_notices_wrong_test",
}  # fmt: skip


def test_the_rubrics_ship_with_the_package_and_are_listed() -> None:
    assert set(shipped_rubrics()) == SHIPPED
    listed = (ROOT / "judges" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in listed for name in SHIPPED)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"judges" = "recontext_data/shipped/judges"' in pyproject


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_rubric_says_why_and_has_gold_on_both_sides(name: str) -> None:
    header = find_rubric(name).read_text(encoding="utf-8").split("\ndescription:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("# Why so:", "# Checked:", "recontext calibrate judge=" + name):
        assert word in header, name
    rubric = load_rubric(name)
    assert rubric.description and rubric.policy is None and not rubric.examples
    wanted = {gold.expect.in_words for gold in rubric.gold}
    assert len(rubric.gold) >= 2 and len(wanted) >= 2, "a judge that always says the same must fail"


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_gold_can_be_met_by_a_verdict_and_missed_by_another(name: str) -> None:
    rubric = load_rubric(name)
    verdicts = [rubric.verdict(f"<{rubric.tag}>{value}</{rubric.tag}>") for value in rubric.answer.values]
    assert all(verdict.unscored_reason is None for verdict in verdicts)
    for gold in rubric.gold:
        met = [gold.expect.is_met(label=verdict.label, score=verdict.score) for verdict in verdicts]
        assert any(met) and not all(met)
        assert not gold.expect.is_met(label=None, score=None), "an unscored gold answer is a failed one"


def test_the_quality_rubric_never_sees_the_cheat() -> None:
    rubric: Rubric = load_rubric("quality")
    assert "payload" not in rubric.user and "metric" not in rubric.user.lower() and "test" not in rubric.user.lower()
