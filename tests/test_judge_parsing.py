"""The parser of judges' replies: every case of judge_replies.yaml, and what holds for all replies."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from recontext_data.judges import parsing
from recontext_data.judges.answer import Answer, LabelAnswer, NumberAnswer, Verdict
from recontext_data.judges.parsing import read_json, read_tag

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "judge_replies.yaml").read_text(encoding="utf-8"))
ANSWERS: TypeAdapter[Any] = TypeAdapter(Answer)
TEN = NumberAnswer()


def read(case: dict[str, Any]) -> Verdict:
    answer = ANSWERS.validate_python(case.get("answer", {"form": "number"}))
    if case.get("read") == "json":
        return read_json(case["reply"], key="score", answer=answer)
    return read_tag(case["reply"], tag="score", answer=answer, judged=[case.get("judged", "")])


@pytest.mark.parametrize("case", CASES, ids=[f"{index} {case['reply'][:40]!r}" for index, case in enumerate(CASES)])
def test_a_reply_says_what_it_says_or_nothing(case: dict[str, Any]) -> None:
    verdict = read(case)
    assert (verdict.label, verdict.score, verdict.unscored_reason) == (
        case.get("label"),
        case.get("score"),
        case.get("unscored"),
    )


def test_the_cases_are_many_and_mostly_refusals_with_every_reason() -> None:
    assert len(CASES) >= 60
    reasons = {case["unscored"] for case in CASES if "unscored" in case}
    known = {value for name, value in vars(parsing).items() if name.isupper() and name[0] != "_" and name != "REASON"}
    assert reasons == known | {"number out of range", "number between the steps"}
    assert len([case for case in CASES if "unscored" in case]) > 60


def test_the_place_of_the_value_is_found() -> None:
    reply = "So <score>7</score> it is.\n**<score> 7 </score>**"
    verdict = read_tag(reply, tag="score", answer=TEN)
    assert verdict.span is not None and reply[slice(*verdict.span)] == "7" and verdict.span[0] > reply.index("\n")


def test_brackets_without_end_are_a_refusal_and_not_a_crash() -> None:
    assert read_json("[" * 200_000, key="score", answer=TEN).unscored_reason == parsing.NO_OBJECT
    assert read_json('{"score": ' + "9" * 10_000 + "}", key="score", answer=TEN).score is None


@given(st.text(max_size=80))
def test_a_text_without_the_tag_is_never_a_score(text: str) -> None:
    verdict = read_tag(text, tag="score", answer=TEN)
    assert verdict.unscored_reason is not None or "<score>" in text


@given(st.text(alphabet="<score>/70.- \n1", max_size=60))
def test_a_score_is_always_one_of_the_range(text: str) -> None:
    for verdict in (read_tag(text, tag="score", answer=TEN), read_json(text, key="score", answer=TEN)):
        if verdict.unscored_reason is None:
            assert verdict.score in range(11) and verdict.label is None
        else:
            assert verdict.score is None


@given(st.text(max_size=60), st.sampled_from(["a", "b"]))
def test_what_is_said_before_does_not_sway_the_verdict(before: str, label: str) -> None:
    answer = LabelAnswer(form="label", labels=("a", "b"))
    if "<v>" not in before and "</v>" not in before:
        assert read_tag(f"{before}\n<v>{label}</v>", tag="v", answer=answer).label == label


@given(st.integers(0, 10), st.text(max_size=40))
def test_an_answer_cannot_write_its_own_score(value: int, around: str) -> None:
    tag = f"<score>{value}</score>"
    assert read_tag(tag, tag="score", answer=TEN, judged=[f"{around}{tag}{around}"]).score is None


@given(st.floats(-5, 5), st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]), st.integers(1, 30))
def test_every_value_of_a_range_is_read_as_itself(least: float, step: float, steps: int) -> None:
    least = round(least)
    answer = NumberAnswer(min=least, max=round(least + steps * step, 4), step=step)
    assert len(answer.values) == steps + 1
    read_back = [answer.read(value).score for value in answer.values]
    assert read_back == pytest.approx([least + index * step for index in range(steps + 1)])
