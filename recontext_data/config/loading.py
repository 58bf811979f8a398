"""Reads a recipe: by name or path, `extends`, `key=value` overrides, and errors of one line.

`load` returns the validated recipe together with where each value came from, which `--help` shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from recontext_data.config.options import integers, split_list
from recontext_data.config.recipe import Recipe
from recontext_data.contexts.paraphrases import read_pools
from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.resources import shipped
from recontext_data.core.validation import one_line
from recontext_data.core.yaml_text import half_character, read_yaml

SUFFIXES = (".yaml", ".yml")

MAX_EXTENDS = 8
"""The depth to which recipes may extend each other; more is taken for a circle."""


@dataclass(frozen=True)
class Loaded:
    """A validated recipe and where its values come from."""

    name: str
    recipe: Recipe
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted key -> the recipe file's name, or `command line`; a key that is not here has its default."""


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or by path."""
    looks_like_path = "/" in name or "\\" in name or name.endswith(SUFFIXES)
    if looks_like_path:
        path = Path(name).expanduser()
        if not path.is_file():
            raise RecipeError(f"recipe={name}: there is no such file; give a path to a YAML file or a name")
        return path
    known = shipped_recipes()
    if name not in known:
        raise RecipeError(f"recipe={name}: no recipe has that name; {did_you_mean(name, known)}")
    return known[name]


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """The recipe of that name or path, with overrides such as `sampler.n=6` applied in order.

    Raises:
        RecipeError: one line with the key, the value and the fix.
    """
    path, tree, origins = read_tree(name, overrides)
    return validated(path.stem, tree, origins, said=path.name)


def read_tree(name: str, overrides: Sequence[str] = ()) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A recipe's file, its plain data with the overrides, and where each value comes from; not validated yet.

    Raises:
        RecipeError: there is no such recipe, the file is not YAML, or an override names a key that does not exist.
    """
    path = find_recipe(name)
    origins: dict[str, str] = {}
    tree = _read(path, origins)
    for override in overrides:
        _apply(tree, override, origins)
    read_pools(tree, Path())
    return path, tree, origins


def validated(name: str, tree: dict[str, Any], origins: Mapping[str, str], *, said: str) -> Loaded:
    """The recipe made of plain data. `said`: its name in errors.

    Raises:
        RecipeError: one line with the key, the value and the fix.
    """
    half = half_character(tree)
    if half is not None:
        raise RecipeError(f"{said}: {half!r}: holds half a character (a lone surrogate), which no file can hold; remove it")
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{said}: {describe(error, tree)}") from None
    return Loaded(name=name, recipe=recipe, origins=origins)


def _read(path: Path, origins: dict[str, str], depth: int = 0) -> dict[str, Any]:
    if depth > MAX_EXTENDS:
        raise RecipeError(f"{path.name}: `extends` goes deeper than {MAX_EXTENDS} recipes; is there a circle?")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(f"{path}: line {line} is not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is not valid YAML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values; found {type(tree).__name__}")
    parent = tree.pop("extends", None)
    if parent is None:
        base: dict[str, Any] = {}
    else:
        base = _read(_parent_path(str(parent), path), origins, depth + 1)
    read_pools(tree, path.parent)
    _note_origins(tree, path.name, origins)
    merged: dict[str, Any] = _merge(base, tree)
    return merged


def _parent_path(parent: str, child: Path) -> Path:
    """A parent's path is relative to the file that names it, not to where the command runs."""
    beside = child.parent / parent
    return beside if parent.endswith(SUFFIXES) and beside.is_file() else find_recipe(parent)


def _merge(base: Any, change: Any) -> Any:
    """Mappings merge key by key; anything else, and a mapping of another `kind`, replaces."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    if change.get("kind", base.get("kind")) != base.get("kind"):
        return change
    return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}


def _note_origins(value: Any, origin: str, origins: dict[str, str], prefix: str = "") -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _note_origins(inner, origin, origins, f"{prefix}.{key}" if prefix else str(key))
    else:
        origins[prefix] = origin


def _apply(tree: dict[str, Any], override: str, origins: dict[str, str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override!r} is not an option; write key=value, such as sampler.n=6")
    put(tree, key, _as_list(key, _value(text), text))
    for known in [name for name in origins if name == key or name.startswith(f"{key}.")]:
        del origins[known]
    origins[key] = "command line"


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of plain data to a value.

    Raises:
        RecipeError: the key does not exist.
    """
    path = key.split(".")
    node: Any = tree
    for depth, part in enumerate(path[:-1]):
        node = _step(node, part, ".".join(path[: depth + 1]))
    _set(node, path[-1], value, key)


def overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with overrides such as `policy.model=gpt-4.1` applied to it, in order.

    Raises:
        RecipeError: an override is not key=value, or names a key that does not exist.
    """
    for override in overrides:
        _apply(tree, override, {})
    return tree


def _as_list(key: str, value: Any, text: str) -> Any:
    """The value of an override; `a, b` as a list where the recipe has a list, and `0-9` where it has one of integers."""
    info = _field_at(key)
    if info is None or get_origin(info.annotation) is not list or not isinstance(value, str | int) or not text.strip():
        return value
    parts = split_list(text)
    return integers(key, parts) if get_args(info.annotation) == (int,) else parts


def _field_at(key: str) -> FieldInfo | None:
    """The recipe's field of that key, where it can be told without importing the kinds of a section."""
    model: type[Config] = Recipe
    *sections, name = key.split(".")
    for section in sections:
        info = model.model_fields.get(section)
        inner = info.annotation if info else None
        if not (isinstance(inner, type) and issubclass(inner, Config)):
            return None
        model = inner
    return model.model_fields.get(name)


def _value(text: str) -> Any:
    """The value of an override: YAML, but a bare text is that text, colons, ` #` and blanks at its ends included."""
    try:
        value = read_yaml(text) if text else ""
    except yaml.YAMLError:
        return text
    bare = text.lstrip()[:1] not in tuple("{['\"")
    if value is None and text.strip().lower() not in ("", "~", "null"):
        return text  # YAML read a comment or an anchor
    return text if bare and isinstance(value, str | dict | list) else value


def _step(node: Any, part: str, where: str) -> Any:
    place: Any = _index(node, part, where) if isinstance(node, list) else part
    child = _long_form(node[place] if isinstance(node, list) else node.get(part))
    if not isinstance(child, dict | list):
        raise RecipeError(f"{where}: holds {child!r} and has no keys below it")
    node[place] = child
    return child


def _long_form(value: Any) -> Any:
    """The long form, which can have keys: of `tiny`, short for a kind; of `a -> b`, an arm; of null, an empty mapping."""
    if value is None:
        return {}
    if not isinstance(value, str):
        return value
    generation, arrow, training = value.partition("->")
    return {"generation": generation.strip(), "training": training.strip()} if arrow else {"kind": value}


def _set(node: Any, part: str, value: Any, where: str) -> None:
    if isinstance(node, list):
        node[_index(node, part, where)] = value
        return
    if part == "kind" and node.get("kind") not in (None, value):
        node.clear()  # the fields of another kind do not fit this one
    old = node.get(part)
    if isinstance(old, dict) and isinstance(value, dict):
        value = _merge(old, value)
    node[part] = value


def _index(node: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(f"{where}: a list of {len(node)}; the key below it is a number from 0 to {len(node) - 1}")
    return int(part)


def describe(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """A pydantic error about a recipe as one line: the key, the value, what was expected."""

    def keys_beside(where: str) -> list[str]:
        """The keys that are known where an unknown one stands."""
        from recontext_data.config.help import keys_at

        *path, wrong = where.split(".")
        # Another kind of judge or policy may have this very key; suggesting it would not help.
        return [key for key in keys_at(path, tree) if key != wrong]

    return one_line(error, tree, whole="recipe", keys_beside=keys_beside)
