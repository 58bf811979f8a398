"""Options: `--help` shows each with type, value and origin, and the JSON Schema for editors is current and right."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml

from recontext_data import build as verb
from recontext_data.config.help import configs_in, keys_at, options_of
from recontext_data.config.loading import load, shipped_recipes
from recontext_data.config.recipe import ENVIRONMENTS, Recipe
from recontext_data.core.config import Config
from recontext_data.core.field_docs import field_docs
from recontext_data.environments.coding import CodingProblems
from scripts.make_schema import SCHEMA, schema
from tests.helpers import ROOT, recipe_tree, write_recipe


def help_text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert verb.main(["--help", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows(*words: str, recipe: str = "code_mc") -> dict[str, Any]:
    return {option.key: option for option in options_of(load(recipe, words))}


def test_help_shows_type_value_origin_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys, "sampler.n=6")
    assert "sampler.n = 6   [command line]   integer >= 1\n    Completions per task" in text
    assert "sampler.temperature = 1.0   [code_mc.yaml]   number >= 0" in text
    assert 'select.keep = "all"   [code_mc.yaml]   all | random | best' in text
    assert "limits.max_failure_rate = 0.05   [default]   number >= 0 <= 1" in text
    assert "recipe: text | null\n    The name of a shipped recipe" in text
    assert "dry_run: true | false" in text


def test_help_shows_the_recipe_that_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys, f"recipe={write_recipe(tmp_path)}")
    assert "[small.yaml]" in text and 'policy.kind = "fake"' in text
    assert "policy.delay_seconds = 0.0   [default]   number >= 0" in text


def test_every_field_of_every_config_is_an_option_with_a_meaning() -> None:
    for row in rows().values():
        assert row.meaning or row.key.endswith(".kind"), row.key
        assert row.type, row.key


def documented(config: type[Config]) -> list[str]:
    return [f"{config.__name__}.{name}" for name in config.model_fields if not field_docs(config).get(name) and name != "kind"]


def test_every_config_is_documented() -> None:
    from recontext_data.config.recipe import Export, Limits, Measure, Sampler
    from recontext_data.config.selection import Select
    from recontext_data.contexts.arms import Arm, Grid
    from recontext_data.contexts.context import Context
    from recontext_data.contexts.placement import Rendering
    from recontext_data.environments.code_mc import CodeMC
    from recontext_data.gates.rules import Gates
    from recontext_data.judges.choice import ChoiceJudge
    from recontext_data.policies.fake import FakeConfig
    from recontext_data.policies.local.transformers import TransformersConfig
    from recontext_data.policies.openai.chat import OpenAIConfig
    from recontext_data.policies.tiny.policy import TinyConfig

    configs: list[type[Config]] = [
        Arm,
        Context,
        CodeMC,
        ChoiceJudge,
        FakeConfig,
        OpenAIConfig,
        TinyConfig,
        TransformersConfig,
        Export,
        Limits,
        Gates,
        Grid,
        Measure,
        Rendering,
        Sampler,
        Select,
    ]
    sections = [
        "Recipe.rendering",
        "Recipe.gates",
        "Recipe.sampler",
        "Recipe.select",
        "Recipe.measure",
        "Recipe.export",
        "Recipe.limits",
    ]
    assert [name for config in configs for name in documented(config)] == []
    assert set(documented(Recipe)) <= set(sections)


class Base(Config):
    one: int = 1
    """Of the base."""
    two: int = 2
    """Of the base, and said again below."""
    three: int = 3


class Derived(Base):
    two: int = 4
    """Of its own."""
    one: int = 5


def test_a_field_has_its_base_s_documentation_unless_the_class_has_one_of_its_own() -> None:
    assert field_docs(Base) == {"one": "Of the base.", "two": "Of the base, and said again below."}
    assert field_docs(Derived) == {"one": "Of the base.", "two": "Of its own."}


@pytest.mark.parametrize("kind", ["code_mc", "code_tests", "eval_tampering"])
def test_environments_over_coding_problems_read_the_same_keys_with_the_same_meanings(kind: str) -> None:
    found = ENVIRONMENTS.config(kind)
    assert list(found.model_fields) == ["kind", *field_docs(CodingProblems)] and found.model_fields["kind"].default == kind
    assert field_docs(found) == field_docs(CodingProblems) != {}


WIDER = {
    "Recipe": "its fields are the sections of the file",
    "Context": "eight of them say the place, of which one is written",
    "OpenAIConfig": "`kind` and twelve settings, under the names that servers and their users know",
}
"""Configs of more than 12 fields, and why each may be."""


def test_a_config_has_at_most_twelve_fields() -> None:
    found: set[type[Config]] = {Recipe}
    waiting: list[type[Config]] = [Recipe]
    while waiting:
        fields = waiting.pop().model_fields.values()
        new = {config for info in fields for config in configs_in(info.annotation, info.metadata)} - found
        found |= new
        waiting += new
    assert len(found) > 40
    assert {config.__name__ for config in found if len(config.model_fields) > 12} == set(WIDER)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ([], "sampler"),
        (["sampler"], "n"),
        (["policy"], "delay_seconds"),
        (["contexts", "any"], "stance"),
        (["arms", "0"], "name"),
    ],
)
def test_known_keys_are_found_below_any_path(path: list[str], key: str) -> None:
    assert key in keys_at(path)


def test_the_schema_in_the_repository_is_current() -> None:
    text = SCHEMA.read_text(encoding="utf-8")
    assert json.loads(text) == schema(), f"run `python scripts/make_schema.py` to write {SCHEMA.relative_to(ROOT)} again"


def problems(tree: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema()).iter_errors(tree)]


@pytest.mark.parametrize("path", list(shipped_recipes().values()), ids=lambda path: path.stem)
def test_shipped_recipes_fit_the_schema_and_name_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert problems(yaml.safe_load(text)) == []
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")


@pytest.mark.parametrize(
    "tree",
    [
        recipe_tree(),
        recipe_tree(policy="tiny", environment="code_mc", judges=["choice"]),
        recipe_tree(arms=[{"generation": "a", "training": "b"}]),
        {"extends": "code_mc", "sampler": {"n": 2}},
        {"extends": "code_mc", "policy": {"batch": 2}},
    ],
)
def test_what_loads_fits_the_schema(tree: dict[str, Any]) -> None:
    assert problems(tree) == []


@pytest.mark.parametrize(
    "tree",
    [
        recipe_tree(samplr={}),
        recipe_tree(sampler={"n": 0}),
        recipe_tree(sampler={"n": "4"}),
        recipe_tree(arms=["default"]),
        recipe_tree(policy="tinny"),
        recipe_tree(policy={"kind": "fake", "rate": {}}),
        {"sampler": {"n": 2}},
    ],
)
def test_what_does_not_load_does_not_fit(tree: dict[str, Any]) -> None:
    assert problems(tree) != []
