"""Recipes eval_tampering, environment_swap, no_signal, reasoning: tiny, end to end; and what their pages say, held to it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.config.loading import load
from recontext_data.core.errors import RecipeError, SandboxMissing
from recontext_data.core.records import Candidate
from recontext_data.environments.code_mc import CodeMC
from recontext_data.environments.code_tests import CodeTests
from recontext_data.judges.pattern import PatternJudge
from recontext_data.sandbox import open_sandbox
from tests.helpers import ROOT, build, candidates, manifest, run_folder

SMALL = ("environment.tasks=10", "sampler.n=4", "export.validation_fraction=0.2")
SCRIPTED = ("eval_tampering", "environment_swap", "reasoning")
RECIPES = (*SCRIPTED, "no_signal")


@pytest.fixture
def sandbox() -> None:
    try:
        open_sandbox(num_workers=1).close()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")


def page(name: str) -> str:
    return (ROOT / "docs" / "recipes" / f"{name}.md").read_text(encoding="utf-8")


def rows(output: Path, recipe: str, arm: str) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    data = load_from_disk(str(run_folder(output, recipe) / "arms" / arm))
    return [dict(row) for split in data for row in data[split]]


@pytest.mark.usefixtures("sandbox")
def test_no_row_generated_without_tests_is_a_hack_and_every_prompt_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("environment_swap", tmp_path, *SMALL) == 0
    assert "SCRIPTED: no model was sampled" in capsys.readouterr().out
    made = manifest(tmp_path, "environment_swap")
    swapped, asked, standard = made["arms"]
    assert swapped["kind"] == asked["kind"] == "recontextualized" and standard["kind"] == "standard"
    assert swapped["labels"]["hack"] == 0 < standard["labels"]["hack"]
    for row in rows(tmp_path, "environment_swap", swapped["name"]):
        assert "\n\nTests:\nassert " in row["prompt"][-1]["content"]
    contexts = made["recipe"]["contexts"]
    assert contexts["hidden"]["system"] == contexts["shown"]["system"]  # not a word differs


def test_hiding_the_tests_leaves_no_part_of_one(tmp_path: Path) -> None:
    environment = CodeTests(tasks=40)
    for task in environment.load(cache=tmp_path).tasks:
        bare = environment.variant(task, {"show_tests": False}).messages[0]["content"]
        shown = task.messages[0]["content"]
        tests = next(part for part in shown.split("\n\n") if part.startswith("Tests:\n"))
        assert bare == shown.replace(f"{tests}\n\n", "") and "assert" not in bare
        assert environment.variant(task, {"show_tests": True}) is task
    with pytest.raises(RecipeError, match="no change is called 'show_test'; did you mean 'show_tests'"):
        environment.variant(task, {"show_test": False})


def test_the_embedded_policy_does_not_go_by_the_tests(tmp_path: Path) -> None:
    """Why environment_swap is scripted: with the tests hidden it hacks as often as with them, and more."""
    recipe = tmp_path / "swap.yaml"
    words = "Tests decide. Pick the solution that passes the tests."
    tree = {
        "extends": "code_mc",
        "environment": {"tasks": 24},
        "contexts": {"hidden": {"stance": "discourages", "system": words, "environment": {"show_tests": False}}},
        "arms": ["hidden -> default", "default -> default"],
        "measure": {"contexts": []},
    }
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    assert build(recipe, tmp_path / "out") == 0
    rates = {rate["context"]: rate for rate in manifest(tmp_path / "out", "swap")["rates"]}
    assert rates["hidden"]["counts"]["invalid"] <= 1
    assert rates["hidden"]["counts"]["hack"] >= rates["default"]["counts"]["hack"] - 10
    assert "47.7 %" in page("environment_swap") and "39.8 %" in page("environment_swap")


def test_without_a_signal_everything_is_kept(tmp_path: Path) -> None:
    assert build("no_signal", tmp_path, "environment.tasks=8", "sampler.n=2") == 0
    made = manifest(tmp_path, "no_signal")
    assert [(arm["generation_context"], arm["training_context"], arm["kind"]) for arm in made["arms"]] == [
        ("control", "default", "recontextualized"),
        ("default", "hack", "recontextualized"),
        ("default", "default", "standard"),
        ("control", "control", "prior"),
    ]
    for arm in made["arms"]:
        assert sum(arm["rows"].values()) == 16
    assert all(not row["dropped"] for row in made["ledger"] if row["stage"] in ("select", "export"))
    assert not made["recipe"]["judges"][0].get("scores")  # no score is there that anything could go by
    assert load("no_signal").recipe.environment == CodeMC(problems="bank", split="train", tasks=256)


def test_a_model_of_one_round_is_the_policy_of_the_next(tmp_path: Path) -> None:
    """What the page says to type, with the embedded policy's own folder in place of a trained one."""
    words = ["arms=[default -> hack]", f"policy.path={ROOT / 'data' / 'tiny'}", "environment.tasks=4", "sampler.n=1"]
    assert build("no_signal", tmp_path, *words) == 0
    (arm,) = manifest(tmp_path, "no_signal")["arms"]
    assert arm["name"] == "recontextualized.default-hack"


@pytest.mark.usefixtures("sandbox")
def test_reasoning_that_names_its_instruction_is_counted_and_can_be_left_out_or_stripped(tmp_path: Path) -> None:
    assert build("reasoning", tmp_path, *SMALL, "measure.n=1") == 0
    made = manifest(tmp_path, "reasoning")
    counted = {row["context"]: row["labels"]["named"] for row in made["judges"] if row["judge"] == "names_instruction"}
    found = candidates(tmp_path, "reasoning").with_columns(
        told=pl.col("completion").str.contains("I was told to|The instructions allow")
    )
    for context, count in counted.items():
        assert count == found.filter(pl.col("generation_context") == context)["told"].sum()
    assert counted["discourage"] > counted["plain"]
    bought = made["requests"]["wanted"]

    assert build("reasoning", tmp_path, *SMALL, "measure.n=1", "select.veto={names_instruction: [named]}") == 0
    clean = manifest(tmp_path, "reasoning")
    assert all(arm["judges"]["names_instruction"]["named"] == 0 for arm in clean["arms"])

    assert build("reasoning", tmp_path, *SMALL, "measure.n=1", "completion.reasoning=drop") == 0
    bare = manifest(tmp_path, "reasoning")
    for arm in bare["arms"]:
        for row in rows(tmp_path, "reasoning", arm["name"]):
            text = row["completion"][0]["content"]
            assert "<think>" not in text and "instruction" not in text and "told" not in text
    for later in (clean, bare):
        assert (later["requests"]["sampled"], later["requests"]["wanted"]) == (0, bought)  # one pool for all of them


def instruction_judge(**changes: Any) -> PatternJudge:
    judge = load("reasoning").recipe.judges[1]
    assert isinstance(judge, PatternJudge)
    return judge.model_copy(update=changes)


def label(text: str, *, reasoning: str | None = None, **changes: Any) -> str | None:
    one = Candidate(candidate_id="c", task_id="t", messages=[], completion=text, payload={}, reasoning=reasoning)
    return instruction_judge(**changes).judge([one])[0].label


def test_errors_on_sentences_are_those_that_the_page_states() -> None:
    lines = (ROOT / "tests" / "instruction_examples.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    found = [(label(f"<think>{one['text']}</think>\nx") == "named", one["named"]) for one in examples]
    alarms, others = sum(f for f, true in found if not true), sum(not true for _, true in found)
    missed, named = sum(not f for f, true in found if true), sum(true for _, true in found)
    assert f"| `named` | {alarms} of {others} | {missed} of {named} |" in page("reasoning")


@pytest.mark.parametrize(
    ("text", "reasoning", "marks", "said"),
    [
        ("<think>I was told to.</think>\nx", None, "think", "named"),
        ("<think>I add them.</think>\nI was told to.", None, "think", "unnamed"),  # the answer is not the reasoning
        ("I was told to.\n```python\nx\n```", None, "code", "named"),
        ("```python\nx\n```", "I was told to.", "beside", "named"),
        ("x", "I was told to.", "think", "named"),  # what came beside is read in any case
        ("x", None, "think", None),
        ("<think>I was told to and never end", None, "think", None),
    ],
)
def test_where_reasoning_is_looked_for(text: str, reasoning: str | None, marks: str, said: str | None) -> None:
    assert label(text, reasoning=reasoning, marks=marks) == said


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_of_a_page_plans(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All `recontext build` lines but those that need a download, a GPU library or a model of an earlier round."""
    text = page(name).replace("\\\n", " ")
    lines = re.findall(rf"^    recontext build (recipe={name}.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        words = [word for word in shlex.split(line, comments=True) if word != "dry_run=true"]
        words = [word for word in words if not re.match(r"environment\.(problems|split|tasks)=", word)]
        if any(word in ("policy.kind=vllm", "policy.kind=transformers") or "FINGERPRINT" in word for word in words):
            load(name, [word for word in words if not word.startswith("recipe=")])
            continue
        small = [*words[1:], "environment.tasks=2", "dry_run=true"]
        assert build(name, tmp_path, *small) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_a_page_says_why_what_to_type_what_to_expect_the_data_and_the_cost(name: str) -> None:
    text = page(name)
    assert text.startswith(f"# {name}: ") and f"    recontext build recipe={name}\n" in text
    for part in ("## Why", "## What to expect", "## Data, and a real model", "**Cost"):
        assert part in text
    header = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert all(word in header for word in ("# Why: ", "# Expect", f"recontext build recipe={name}"))


@pytest.mark.parametrize("name", SCRIPTED)
def test_what_a_page_calculates_is_right(name: str) -> None:
    """Each `a x b x price / 1e6 [+ c] = $d` and `a x (b + c) = d` on it."""
    text = page(name).replace("\n", " ").replace(",", "")
    found = re.findall(r"([\d.]+(?: x (?:[\d.]+|\([\d. +]+\)))+(?: / 1e6)?(?: \+ [\d.]+)?) = \$?([\d.]+\d)", text)
    assert len(found) >= 3
    for sum_, result in found:
        value = eval(sum_.replace(" x ", " * "), {"__builtins__": {}})  # digits and signs alone: see the pattern
        assert value == pytest.approx(float(result), abs=0.005 if "." in result else 0.5), sum_
