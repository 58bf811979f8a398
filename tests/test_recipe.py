"""Reading recipes: names and paths, `extends`, overrides, YAML's traps, and where each value came from."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recontext_data.config.loading import find_recipe, load, shipped_recipes
from recontext_data.core.errors import RecipeError
from recontext_data.core.yaml_text import read_yaml
from tests.helpers import CONTEXTS, recipe_tree, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def child(tmp_path: Path, text: str, name: str = "child") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_every_shipped_recipe_loads_and_describes_itself(name: str) -> None:
    recipe = load(name).recipe
    assert recipe.description and "\n" not in recipe.description


def test_a_name_and_a_path_lead_to_the_same_recipe() -> None:
    assert load("code_mc").recipe == load(str(find_recipe("code_mc"))).recipe


def test_an_override_reaches_any_depth(recipe: Path) -> None:
    words = [
        "sampler.n=6",
        "judges.0.scores={hack: 1}",
        "arms.0.training=control",
        "contexts.hack.system=New",
        "arms.1.name=base",
    ]
    loaded = load(str(recipe), words).recipe
    assert loaded.sampler.n == 6
    assert loaded.model_dump()["judges"][0]["scores"] == {"hack": 1.0}
    assert [arm.pair for arm in loaded.arms] == ["default -> control", "default -> default"]
    assert loaded.arms[1].name == "base"
    assert loaded.contexts["hack"].text == "New"


def test_the_last_override_wins(recipe: Path) -> None:
    assert load(str(recipe), ["sampler.n=6", "sampler.n=7"]).recipe.sampler.n == 7


@pytest.mark.parametrize(
    "text",
    [
        "Tests decide: pass them",
        "50 % # not a comment",
        " blanks around ",
        "{x} and {{ y }}",
        "[maybe",
        "a 'quote",
        "%s",
        "- dash",
        "“é” 🧪",
        "@at",
        "&and",
        "*star",
        "!bang",
        "a=b=c",
    ],
)
def test_a_bare_text_is_taken_as_it_stands(text: str, recipe: Path) -> None:
    assert load(str(recipe), [f"contexts.hack.system={text}"]).recipe.contexts["hack"].text == text


def test_a_quoted_text_is_yaml(recipe: Path) -> None:
    words = ['contexts.hack.system="two\\nlines\\n"', "contexts.default.system='7'"]
    contexts = load(str(recipe), words).recipe.contexts
    assert [contexts["hack"].text, contexts["default"].text] == ["two\nlines\n", "7"]


def test_another_kind_drops_the_fields_of_the_old_one(recipe: Path) -> None:
    loaded = load(str(recipe), ["policy.kind=openai", "policy.model=gpt-4.1"]).recipe
    assert loaded.policy.kind == "openai"
    assert load(str(recipe), ["policy=openai", "policy.model=gpt-4.1"]).recipe.policy == loaded.policy


def test_one_of_two_aliases_can_be_overridden_alone(tmp_path: Path) -> None:
    text = yaml.safe_dump(recipe_tree(contexts={}, arms=["default -> default"])).replace(
        "contexts: {}", "contexts:\n  default: &x {stance: neutral, system: same}\n  hack: *x"
    )
    loaded = load(str(child(tmp_path, text)), ["contexts.hack.system=other", "contexts.hack.stance=permits"]).recipe
    assert [loaded.contexts[name].text for name in ("default", "hack")] == ["same", "other"]


def test_a_child_changes_what_it_names_and_keeps_the_rest(recipe: Path, tmp_path: Path) -> None:
    path = child(tmp_path, "extends: small.yaml\nsampler: {temperature: 0.5}\narms: [hack -> default]\n")
    loaded = load(str(path))
    assert (loaded.recipe.sampler.n, loaded.recipe.sampler.temperature) == (4, 0.5)
    assert [arm.pair for arm in loaded.recipe.arms] == ["hack -> default"]
    assert loaded.name == "child"
    assert loaded.origins["sampler.temperature"] == "child.yaml"
    assert loaded.origins["sampler.n"] == "small.yaml"


def test_a_parent_is_found_beside_the_child_from_anywhere(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = child(tmp_path, "extends: small.yaml\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(str(path)).recipe == load(str(recipe)).recipe


def test_extends_by_name_and_through_three_generations(tmp_path: Path) -> None:
    child(tmp_path, "extends: code_mc\nsampler: {n: 2}\n", "one")
    child(tmp_path, "extends: one.yaml\nsampler: {temperature: 0.3}\n", "two")
    sampler = load(str(child(tmp_path, "extends: two.yaml\nsampler: {n: 9}\n", "three"))).recipe.sampler
    assert (sampler.n, sampler.temperature) == (9, 0.3)


def test_a_child_of_another_kind_takes_nothing_from_the_old_one(recipe: Path, tmp_path: Path) -> None:
    loaded = load(str(child(tmp_path, "extends: small.yaml\npolicy: {kind: openai, model: m}\n"))).recipe
    assert loaded.policy.kind == "openai"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-2E+3", -2000.0),
        ("1.5e3", 1500.0),
        ("1e5x", "1e5x"),
        ("12", 12),
        ("1.5", 1.5),
        ("e5", "e5"),
        (".5e1", 5.0),
    ],
)
def test_numbers_are_numbers(text: str, value: Any) -> None:
    assert read_yaml(text) == value


def test_a_merge_key_is_no_duplicate() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: *a, x: 4}\n"
    assert read_yaml(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 2}}


@pytest.mark.parametrize(
    "text", ["{a: 1, a: 2}", "a: 1\nb: 2\na: 3\n", "{x: {a: 1, a: 1}}", "{1: a, 1: b}", "- {a: 1, 'a': 2}"]
)
def test_a_key_that_is_there_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="is there twice"):
        read_yaml(text)


def test_a_recipe_is_frozen_and_survives_a_round_trip(recipe: Path) -> None:
    from pydantic import ValidationError

    from recontext_data.config.recipe import Recipe

    loaded = load(str(recipe)).recipe
    with pytest.raises(ValidationError, match="frozen"):
        loaded.description = "x"  # type: ignore[misc]
    assert Recipe.model_validate(loaded.model_dump()) == loaded
    assert Recipe.model_validate_json(loaded.model_dump_json()) == loaded


def test_best_takes_the_named_judge(tmp_path: Path) -> None:
    judges = [{"kind": "choice"}, {"kind": "choice", "name": "reward", "scores": {"hack": 1.0}}]
    with pytest.raises(RecipeError, match=r"select\.judge: say whose score `best` goes by; judges: choice, reward"):
        load(str(write_recipe(tmp_path, judges=judges, select={"keep": "best"})))
    loaded = load(str(write_recipe(tmp_path, judges=judges, select={"keep": "best", "judge": "reward"}))).recipe
    assert loaded.selecting_judge.name == "reward"


def test_the_short_forms_are_short_for_the_long_ones(tmp_path: Path) -> None:
    long = write_recipe(tmp_path, "long", judges=[{"kind": "choice"}], arms=[{"generation": "default", "training": "hack"}])
    short = write_recipe(tmp_path, "short", judges=["choice"], arms=["default -> hack"])
    assert load(str(long)).recipe == load(str(short)).recipe
    assert set(load(str(short)).recipe.contexts) == set(CONTEXTS)
