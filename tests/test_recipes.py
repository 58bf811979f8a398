"""Every shipped recipe, found by its file: it is documented, builds tiny from end to end, and its clean rows alarm no gate."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.loading import load
from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import context_or_none
from recontext_data.contexts.context import Context, render
from recontext_data.core.errors import SandboxMissing
from recontext_data.core.prices import price_of
from recontext_data.core.records import Task
from recontext_data.environments.base import fill
from recontext_data.gates.rules import GateRow, leak, presence
from recontext_data.policies.fake import FakeConfig
from recontext_data.sandbox import open_sandbox
from tests.helpers import ROOT, arm_hashes, build, manifest, run_folder

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
PAGES = ROOT / "docs" / "recipes"
TINY = ("environment.tasks=8", "sampler.n=2", "measure.n=1", "export.validation_fraction=0.25")
CLEAN_ROWS = 10_000
"""Over all recipes, for the leak gate."""


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def header(name: str) -> str:
    """The comment that a recipe begins with."""
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def needs_sandbox(name: str) -> None:
    if any(judge.kind == "tests" for judge in load(name, ()).recipe.judges):
        try:
            open_sandbox(num_workers=1).close()
        except SandboxMissing as error:
            pytest.skip(f"needs bubblewrap: {error}")


def test_recipes_are_found() -> None:
    assert {"code_mc", "metric_gaming", "sycophancy", "deception", "politeness_placebo"} <= set(RECIPES)
    assert sorted(path.stem for path in PAGES.glob("*.md")) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_why_what_to_type_and_what_to_expect(name: str) -> None:
    command = rf"recontext \w+ recipe={name}\b"
    assert re.search(command, header(name)) and "Why:" in header(name) and "Expect" in header(name)
    assert re.search(rf"^    {command}", page(name), re.MULTILINE), "the page names no command of the recipe"
    for part in ("## Why", "## What to expect", "Cost", "$"):
        assert part in page(name), part
    assert load(name, ()).recipe.description


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_a_real_model_and_says_where_its_data_come_from(name: str) -> None:
    assert "policy.kind=openai" in page(name) or "policy.kind=vllm" in page(name)
    assert re.search(r"policy\.kind=|extends:", (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert re.search(r"environment\.problems|\*\*Data\*\*|docs/recipes/code_mc\.md has", page(name))
    if isinstance(load(name, ()).recipe.policy, FakeConfig):
        assert "SCRIPTED" in header(name) and "**scripted**" in page(name)


SUM = re.compile(r"([\d,]+) x ([\d,]+) x \$([\d.]+) / 1,000,000 = \$([\d,.]+\d)")


@pytest.mark.parametrize("name", ["metric_gaming", "sycophancy", "deception"])
def test_the_costs_on_a_page_add_up_at_the_listed_prices(name: str) -> None:
    listed = price_of("gpt-4.1-mini", {})
    assert listed is not None
    sums = SUM.findall(page(name))
    assert sums
    for count, tokens, price, total in sums:
        assert float(price) in (listed.input, listed.output)
        exact = float(count.replace(",", "")) * float(tokens.replace(",", "")) * float(price) / 1e6
        assert float(total.replace(",", "")) == pytest.approx(exact, abs=0.005), f"{count} x {tokens}"
    (whole,) = re.findall(r"Together \$([\d,.]+\d)", page(name))
    assert float(whole.replace(",", "")) == pytest.approx(sum(float(row[3].replace(",", "")) for row in sums), abs=0.011)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_tiny_and_the_second_time_finds_everything(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_sandbox(name)
    first = built_as(name, tmp_path)
    said = capsys.readouterr()
    assert first["requests"]["sampled"] == first["requests"]["wanted"] > 0
    assert all(row["in"] == row["kept"] + sum(row["dropped"].values()) for row in first["ledger"])
    assert all(sum(arm["rows"].values()) > 0 for arm in first["arms"])
    assert first["gates"] and {gate["gate"] for gate in first["gates"]} >= {"leak", "presence"}
    _says_what_is_scripted(name, first, said.out + said.err, tmp_path)
    before = arm_hashes(tmp_path, name, cards=False)
    shutil.rmtree(tmp_path / "runs")
    second = built_as(name, tmp_path)
    assert second["requests"]["sampled"] == 0 == second["requests"]["failed"]
    assert all(judge["requests"]["sampled"] == 0 for judge in second["judging"])
    assert arm_hashes(tmp_path, name, cards=False) == before


def built_as(name: str, output: Path) -> dict[str, Any]:
    assert build(name, output, *TINY) == 0
    return manifest(output, name)


def _says_what_is_scripted(name: str, facts: dict[str, Any], screen: str, output: Path) -> None:
    recipe = load(name, ()).recipe
    card = (run_folder(output, name) / "arms" / facts["arms"][0]["name"] / "README.md").read_text(encoding="utf-8")
    scripted = isinstance(recipe.policy, FakeConfig)
    assert ("SCRIPTED: no model was sampled" in screen) == scripted == ("The policy is scripted" in card)
    judges = [judge.name for judge in recipe.judges if isinstance(getattr(judge, "policy", None), FakeConfig)]
    for judge in judges:
        assert f"SCRIPTED: judge {judge} asks no model" in screen
    assert ("Scripted judges, behind which there is no model" in card) == bool(judges)
    assert all(judge in card for judge in judges)


def completions(recipe: Recipe, task: Task) -> Iterator[str]:
    """What can be said of a task: the environment's answers and those of the recipe's script."""
    own = recipe.policy.texts if isinstance(recipe.policy, FakeConfig) else {}
    for text in {**recipe.environment.texts, **own}.values():
        yield fill(text, recipe.environment.scripted(task))


def clean_rows(recipe: Recipe, training: str, tasks: list[Task]) -> Iterator[GateRow]:
    """Rows as a build makes them, task by task and answer by answer."""
    context = context_or_none(recipe.contexts, training)
    for task in tasks:
        prompt = render(task, context, name=training, how=recipe.how)
        for place, text in enumerate(completions(recipe, task)):
            yield GateRow(row_id=f"{task.task_id} {place}", task=task, prompt=prompt, completion=text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def alarms(rows: list[GateRow], generation: Context | None, training: Context | None, recipe: Recipe) -> list[Any]:
    return [
        *leak(rows, generation=generation, training=training, how=recipe.how),
        *presence(rows, training=training, how=recipe.how),
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_clean_rows_of_a_recipe_alarm_no_gate_and_a_planted_leak_does(name: str, cache: Path) -> None:
    recipe = load(name, ["environment.tasks=600"]).recipe
    tasks = list(recipe.environment.load(cache=cache).tasks)
    wanted = -(-CLEAN_ROWS // len(RECIPES) // len(recipe.arms)) + 1
    count = 0
    for arm in recipe.arms:
        generation, training = (context_or_none(recipe.contexts, side) for side in (arm.generation, arm.training))
        rows = list(itertools.islice(clean_rows(recipe, arm.training, tasks), wanted))
        assert len(rows) == wanted, f"{name}: too few rows of {arm.pair}"
        assert alarms(rows, generation, training, recipe) == [], arm.pair
        count += len(rows)
        # What the training context says too, such as where only the environment differs, is not a secret.
        is_secret = generation is not None and (training is None or generation.text not in training.text)
        if generation is not None and is_secret and arm.generation != arm.training:
            said = f"{rows[0].completion} I was told: {generation.text_for(rows[0].task)}"
            planted = GateRow(row_id="planted", task=rows[0].task, prompt=rows[0].prompt, completion=said)
            assert [found.row_id for found in alarms([*rows, planted], generation, training, recipe)] == ["planted"], arm.pair
    assert count >= CLEAN_ROWS / len(RECIPES)
