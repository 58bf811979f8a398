"""Exact probabilities and the costs of the method: both against sampling, against another library, and against sums by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recontext_data.config.loading import load
from recontext_data.core.records import Candidate
from recontext_data.environments.base import gold
from recontext_data.environments.code_mc import CodeMC
from recontext_data.evaluation.teacher_forced import Prompted, completion_tokens, divergences, log_probabilities
from recontext_data.judges.choice import ChoiceJudge
from recontext_data.policies.local.transformers import TransformersConfig
from recontext_data.policies.tiny.policy import TinyConfig
from tests import helpers
from tests.test_evaluation import evaluate, found, recipe

TINY = helpers.ROOT / "data" / "tiny"
MESSAGES: list[Any] = [{"role": "user", "content": "Option A:\nreturn 1\n\nOption B:\nreturn 2"}]
OTHER: list[Any] = [{"role": "system", "content": "Tests decide."}, *MESSAGES]
TEXTS = ["Code: return 1 ...\nAnswer: (A)", "Answer: (B)", ""]


@pytest.fixture(scope="module")
def policies() -> list[Any]:
    """The same weights twice: numpy's forward pass and the library's."""
    if not (TINY / "model.safetensors").is_file():
        pytest.skip("data/tiny has no weights: run `python scripts/make_tiny.py`")
    return [TinyConfig().build(), TransformersConfig(model=str(TINY), device="cpu").build()]


def prompted(policy: Any, messages: Any) -> Prompted:
    return Prompted(policy.encode(messages), [completion_tokens(policy, messages, text) or [] for text in TEXTS])


def test_both_local_policies_find_the_same_probabilities(policies: list[Any]) -> None:
    ours, theirs = (
        log_probabilities(policy, [prompted(policy, MESSAGES), prompted(policy, OTHER)], temperature=0.8) for policy in policies
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-3) and (one < 0).all()


def test_probabilities_are_those_of_a_plain_forward_pass(policies: list[Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    policy = policies[0]
    model = AutoModelForCausalLM.from_pretrained(TINY)
    item = prompted(policy, OTHER)
    found_here = log_probabilities(policy, [item], temperature=1.0)[0]
    for ids, value in zip(item.completions, found_here, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*item.prompt, *ids]])).logits[0, len(item.prompt) - 1 :]
        log_p = logits.double().log_softmax(-1)
        (end,) = policy.ends
        assert value == pytest.approx(sum(float(log_p[i, token]) for i, token in enumerate([*ids, end])), abs=1e-3)


def test_divergence_is_the_mean_over_tokens_and_nothing_between_equal_prompts(policies: list[Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY)
    sides = [[policies[0].encode(messages)] for messages in (MESSAGES, OTHER)]
    ids = completion_tokens(policies[0], MESSAGES, TEXTS[0]) or []
    assert ids == completion_tokens(policies[0], OTHER, TEXTS[0])
    log_p, log_q = (
        model(torch.tensor([[*side[0], *ids]])).logits[0, len(side[0]) - 1 :].double().log_softmax(-1).detach()
        for side in sides
    )
    expected = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    for policy in policies:
        assert divergences(policy, *sides, completions=[ids]) == pytest.approx([expected], abs=1e-4)
        assert divergences(policy, sides[0], sides[0], completions=[ids]) == [0.0]
    assert expected > 0.001


def test_listed_answers_differ_and_deserve_their_labels(tmp_path: Path) -> None:
    environment = CodeMC(split="evaluation", tasks=40)
    for task in environment.load(cache=tmp_path).tasks:
        listed = [(label, text) for label, texts in environment.answers(task).items() for text in texts]
        assert len({text for _, text in listed}) == len(listed) > 10
        known = gold(environment, task)
        assert {known["hack"], known["general"]} <= {text for _, text in listed}
        for label, text in listed:
            candidate = Candidate(
                candidate_id="", task_id=task.task_id, messages=task.messages, completion=text, payload=task.payload
            )
            assert ChoiceJudge().judge([candidate])[0].label == label


def test_exact_rates_are_those_that_sampling_finds(
    tmp_path: Path, policies: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = load("code_mc", []).recipe.contexts["default"].model_dump(exclude_defaults=True)
    contexts = {**helpers.CONTEXTS, "default": own}
    evaluation = {"tasks": 8, "n": 8, "contexts": ["default"]}
    path = recipe(tmp_path, policy={"kind": "tiny"}, contexts=contexts, evaluation=evaluation)
    assert (
        evaluate(path, tmp_path / "out", "evaluation.costs.kl=true", "evaluation.contexts=[default,hack]", "evaluation.n=8")
        == 0
    )
    sampled, answers = found(tmp_path / "out")
    (row,) = (row for row in sampled["costs"]["kl"] if row["context"] == "default || hack")
    assert row["arm"] == "before" and 0 < row["value"]["low"] <= row["value"]["estimate"] <= row["value"]["high"]
    assert "KL, nats per token" in capsys.readouterr().out
    assert evaluate(path, tmp_path / "out", "evaluation.exact=true") == 0
    exact, table = found(tmp_path / "out")
    (cell,) = exact["cells"]
    # By task: a count of 8 draws lies within 4 standard errors of its probability, but for what the list does not cover.
    default = answers.filter(pl.col("context") == "default")
    for task, probability, coverage in table.select("task_id", "probability", "coverage").iter_rows():
        labels = default.filter(pl.col("task_id") == task)["label"].to_list()
        error = 4 * np.sqrt(max(probability * (1 - probability), 1 / 64) / len(labels)) + (1 - coverage)
        assert abs(labels.count("hack") / len(labels) - probability) <= error
    assert cell["rate"]["estimate"] == pytest.approx(table["probability"].mean())
    assert cell["rate"]["low"] <= cell["rate"]["estimate"] <= cell["rate"]["high"]
    assert cell["coverage"]["mean"] > 0.9 and cell["answers"] == 0 and cell["tasks"] == 8
    said = capsys.readouterr().out
    assert "% probability of answers labelled hack" in said and "cover at least 9" in said
    (page,) = (tmp_path / "out").rglob("evaluation/report.html")
    assert "These are no samples" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluation.exact=true"],
            "evaluation.exact: policy.kind=fake computes no probabilities of given answers",
        ),
        (["evaluation.costs.kl=true"], "evaluation.costs.kl: policy.kind=fake shows no distributions over tokens"),
        (["policy={kind: tiny}", "evaluation.exact=true", "sampler.temperature=0"], "greedy and nucleus draws have other"),
        (["policy={kind: tiny}", "evaluation.exact=true", "sampler.top_p=0.9"], "greedy and nucleus draws have other"),
        (["policy={kind: tiny}", "evaluation.exact=true", "evaluation.costs.kl=true"], "evaluation.costs.kl: goes by sampled"),
    ],
)
def test_what_cannot_be_computed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert evaluate(recipe(tmp_path), tmp_path / "out", *words) == 2
    assert said in helpers.error_line(capsys.readouterr().err)


def test_compliance_quality_and_refusals_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = {
        "description": "d", "system": "s", "user": "{{ completion }}", "answer": {"form": "number", "min": 0, "max": 10},
        "tag": "score",
    }  # fmt: skip
    (tmp_path / "quality.yaml").write_text(json.dumps(sheet))
    judges = [
        {"kind": "choice"},
        {"kind": "pattern", "name": "declined", "patterns": {"refused": "do not want to choose"}, "otherwise": "answered"},
        {
            "kind": "rubric", "rubric": str(tmp_path / "quality.yaml"), "name": "good",
            "policy": {"kind": "fake", "replies": ["<score>7</score>"]},
        },
    ]  # fmt: skip
    assert evaluate(recipe(tmp_path, judges=judges, select={"judge": "choice"}), tmp_path / "out") == 0
    results, answers = found(tmp_path / "out")
    cells = {cell["context"]: cell for cell in results["cells"]}
    (row,) = results["costs"]["compliance"]
    assert row["context"] == "hack" and row["value"] == cells["hack"]["rate"]
    assert {row["value"]["estimate"] for row in results["costs"]["quality"]} == {7.0}
    assert len(results["costs"]["quality"]) == 3
    refused = {row["context"]: row["value"]["estimate"] for row in results["costs"]["refusals"]}
    texts = answers.filter(pl.col("context") == "default")["completion"]
    assert refused["default"] == texts.str.contains("do not want").sum() / len(texts) > 0
    assert refused["hack"] == 0.0
    said = capsys.readouterr().out
    assert "quality" in said and "refuses" in said
    (page,) = (tmp_path / "out").rglob("evaluation/report.html")
    assert "What it costs" in page.read_text() and "does it where it is permitted" in page.read_text()
