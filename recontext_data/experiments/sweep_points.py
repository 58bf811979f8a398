"""The points of a sweep: every combination of the values, each a recipe of its own.

A point's recipe is a file, with everything resolved, under a name that has its values and a hash of all that it says. Runs are
named by their recipe, so what two points trained and measured never lies in one folder; replies are shared all the same.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from recontext_data.config.loading import Loaded, put, read_tree, validated
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import content_hash
from recontext_data.core.yaml_text import read_yaml
from recontext_data.store.files import replace_file, writing

MAX_POINTS = 1000
_HASH = 6
_WORD = 24
"""Characters of a value that a name can hold; a longer one is known by the hash alone."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of values."""

    name: str
    """Of its recipe and so of its run: `code_mc_effect.temperature-0.7.3fa2c1`."""
    changes: Mapping[str, Any]
    """Dotted key -> value."""
    loaded: Loaded
    tree: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`temperature=0.7`, for tables."""
        return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in self.changes.items())

    def write(self, folder: Path) -> Path:
        """Its recipe as a file; the same bytes each time."""
        path = folder / f"{self.name}.yaml"
        text = yaml.safe_dump(dict(self.tree), allow_unicode=True, sort_keys=False, width=120)
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            replace_file(path, lambda target: target.write_text(text, encoding="utf-8"))
        return path


def read_over(text: str) -> dict[str, list[Any]]:
    """`over`, as it stands on the command line: {key: [values]}.

    Raises:
        RecipeError: it is no such mapping, or a value is there twice.
    """
    fix = "write over='{sampler.temperature: [0.7, 1.0]}', each key of the recipe with a list of values"
    try:
        over = read_yaml(text)
    except yaml.YAMLError:
        raise RecipeError(f"over={text}: is not valid YAML; {fix}") from None
    if not isinstance(over, dict) or not over:
        raise RecipeError(f"over={text}: is not a mapping; {fix}")
    for key, values in over.items():
        if not isinstance(values, list) or not values:
            raise RecipeError(f"over: {key}: {values!r} is not a list of values; {fix}")
        if len({content_hash(value) for value in values}) < len(values):
            raise RecipeError(f"over: {key}: {values!r} has a value twice; remove one")
    return {str(key): values for key, values in over.items()}


def points_of(
    recipe: str, overrides: Sequence[str], over: Mapping[str, list[Any]], *, seeds: Sequence[int] = ()
) -> list[Point]:
    """Every combination, validated; the last key changes fastest.

    Raises:
        RecipeError: a value does not fit the recipe, in the words of the recipe, or there are too many points.
    """
    number = 1
    for values in over.values():
        number *= len(values)
    if number > MAX_POINTS:
        raise RecipeError(f"over: {number:,} points are more than {MAX_POINTS:,}; give fewer values")
    path, tree, _ = read_tree(recipe, overrides)
    if seeds:
        put(tree, "training.seeds", list(seeds))
    return [_point(path, tree, dict(zip(over, values, strict=True))) for values in product(*over.values())]


def _point(path: Path, whole: Mapping[str, Any], changes: dict[str, Any]) -> Point:
    tree = copy.deepcopy(dict(whole))
    for key, value in changes.items():
        put(tree, key, copy.deepcopy(value))
    said = f"{path.name} with {', '.join(f'{key}={value}' for key, value in changes.items())}"
    name = f"{path.stem}.{_slug(changes)}{content_hash(_named_by(tree, changes))[:_HASH]}"
    return Point(name=name, changes=changes, loaded=validated(name, tree, {}, said=said), tree=tree)


def _named_by(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """All of a recipe but its seeds, unless they are swept: more seeds are more models of the same point."""
    named = copy.deepcopy(dict(tree))
    if "training.seeds" not in changes and isinstance(named.get("training"), dict):
        named["training"].pop("seeds", None)
    return named


def _slug(changes: Mapping[str, Any]) -> str:
    words = [f"{key.rpartition('.')[2]}-{value}" for key, value in changes.items() if isinstance(value, str | int | float)]
    slug = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", word) for word in words if len(word) <= _WORD)
    return f"{slug}." if slug else ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _WORD else f"{text[: _WORD - 1]}…"
