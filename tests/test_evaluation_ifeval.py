"""Instruction following: IFEval's own prompts and lm_eval's own checkers, with scripted answers whose verdict is known."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.evaluation import Costs
from recontext_data.evaluation.instructions import check, ifeval_prompts
from tests import helpers
from tests.test_evaluation import evaluate, found, recipe

NEEDS = pytest.mark.skipif(
    find_spec("lm_eval") is None or find_spec("langdetect") is None,
    reason="lm_eval[ifeval] is not installed: pip install 'recontext_data[ifeval]'",
)
ROWS: list[dict[str, Any]] = [
    {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 2,
        "prompt": "No commas, and two placeholders.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_content:number_placeholders"],
        "kwargs": [{}, {"num_placeholders": 2}],
    },
    {
        "key": 3,
        "prompt": "Lower case only.",
        "instruction_id_list": ["detectable_format:number_bullet_lists"],
        "kwargs": [{"num_bullets": 1}],
    },
]

TABLED = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""Checkers that cut text up with nltk's table."""


def prompts_file(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ifeval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@NEEDS
def test_followed_instructions_are_counted_by_prompt_and_by_instruction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = {"kind": "fake", "replies": ["Dear [name] of [place]"]}
    costs = {"ifeval": str(prompts_file(tmp_path / "in"))}
    path = recipe(tmp_path, policy=policy, evaluation={"tasks": 2, "n": 1, "costs": costs})
    assert evaluate(path, tmp_path / "out") == 0
    results, _ = found(tmp_path / "out")
    rows = {row["name"]: row for row in results["costs"]["instruction_following"]}
    assert rows["prompts, strict"]["value"]["estimate"] == pytest.approx(2 / 3)
    assert rows["instructions, strict"]["value"]["estimate"] == pytest.approx(3 / 4)
    assert rows["prompts, strict"]["arm"] == "before" and rows["prompts, strict"]["unscored"] == 0
    captured = capsys.readouterr()
    assert "follows" in captured.out and "ifeval: 3 completions" in captured.err
    assert evaluate(path, tmp_path / "out") == 0
    assert "ifeval:" not in capsys.readouterr().err, "the answers are in the store"


@NEEDS
def test_loose_forgives_what_strict_does_not(tmp_path: Path) -> None:
    prompts = ifeval_prompts(Costs(ifeval=str(prompts_file(tmp_path))))
    verdicts = check(prompts, {"ifeval/0001": "Sure, here it is:\nno comma in this"})
    assert verdicts["ifeval/0001 strict"] == [False] and verdicts["ifeval/0001 loose"] == [True]
    assert verdicts["ifeval/0002 strict"] is None, "no answer is not a failure"


@NEEDS
def test_every_real_prompt_can_be_checked(shared: Path) -> None:
    prompts = ifeval_prompts(Costs(ifeval=str(shared / "data" / "ifeval.jsonl")))
    assert len(prompts) == 541
    verdicts = check(prompts, {task.task_id: "A plain answer without any of it." for task in prompts})
    for task in prompts:
        followed = verdicts[f"{task.task_id} strict"]
        if followed is None:
            assert TABLED.intersection(task.payload["instruction_id_list"]), "only nltk's table may be missing"
        else:
            assert len(followed) == len(task.payload["instruction_id_list"])
    assert (
        0
        < sum(bool(verdicts[f"{task.task_id} strict"] and all(verdicts[f"{task.task_id} strict"] or [])) for task in prompts)
        < 400
    )


@NEEDS
def test_fewer_prompts_are_the_same_ones_whatever_their_order(tmp_path: Path) -> None:
    one = ifeval_prompts(Costs(ifeval=str(prompts_file(tmp_path / "a")), ifeval_prompts=2))
    other = ifeval_prompts(Costs(ifeval=str(prompts_file(tmp_path / "b", ROWS[::-1])), ifeval_prompts=2))
    assert [task.task_id for task in one] == [task.task_id for task in other] and len(one) == 2


@NEEDS
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "evaluation.costs.ifeval: "),
        ([{"prompt": "x"}], "row 1 has no key as IFEval has it"),
        ([ROWS[0], {**ROWS[1], "kwargs": "x"}], "row 2 has no kwargs as IFEval has it"),
        ([{**ROWS[0], "instruction_id_list": ["punctuation:no_coma"]}], "no checker for 'punctuation:no_coma'; did you mean"),
    ],
)
def test_files_that_are_not_ifevals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]] | None, said: str
) -> None:
    path = tmp_path / "absent.jsonl" if rows is None else prompts_file(tmp_path / "in", rows)
    assert evaluate(recipe(tmp_path), tmp_path / "out", f"evaluation.costs.ifeval={path}") == 2
    assert said in helpers.error_line(capsys.readouterr().err)


def test_without_the_library_the_fix_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as where it is not installed
    assert evaluate(recipe(tmp_path), tmp_path / "out", f"evaluation.costs.ifeval={prompts_file(tmp_path / 'in')}") == 2
    assert "evaluation.costs.ifeval needs lm_eval: pip install 'recontext_data[ifeval]'" in helpers.error_line(
        capsys.readouterr().err
    )
