"""Every option of a recipe, read from the types, for `--help` and for suggestions."""

import json
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from recontext_data.config.loading import Loaded, load, shipped_recipes
from recontext_data.config.options import HELP, OptionalRecipeOptions, VerbOptions, help_lines, print_options, read_options
from recontext_data.config.recipe import Recipe
from recontext_data.core.config import Config
from recontext_data.core.field_docs import field_docs
from recontext_data.core.registry import Kinds, is_own
from recontext_data.core.validation import type_words
from recontext_data.reports import modes

HELP_RECIPE = "code_mc"
"""The recipe whose values `--help` shows when no recipe is named."""


@dataclass(frozen=True, slots=True)
class Option:
    """One line of `--help`."""

    key: str
    type: str
    value: Any
    origin: str
    meaning: str


def options_of(loaded: Loaded) -> Iterator[Option]:
    """Every option of a recipe with its value and where the value came from, in the order of the types."""
    yield from _options(loaded.recipe, "", loaded.origins)


def _options(config: Config, prefix: str, origins: typing.Mapping[str, str]) -> Iterator[Option]:
    docs = field_docs(type(config))
    for name, info in type(config).model_fields.items():
        value, key = getattr(config, name), f"{prefix}{name}"
        if isinstance(value, Config):
            yield from _options(value, f"{key}.", origins)
        else:
            yield Option(key, type_words(info), plain(value), _origin(key, origins), docs.get(name, ""))


def _origin(key: str, origins: typing.Mapping[str, str]) -> str:
    """Where a value came from: its own key, a key below it, or the nearest key above that was set as a whole."""
    below = [origin for name, origin in origins.items() if name == key or name.startswith(f"{key}.")]
    if below:
        return "command line" if "command line" in below else below[-1]
    parent = key.rpartition(".")[0]
    return origins[parent] if parent and parent in origins and key.endswith(".kind") else "default"


def plain(value: Any) -> Any:
    """A config value as plain data."""
    if isinstance(value, Config):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def keys_at(path: list[str], tree: object = None) -> list[str]:
    """The keys that a recipe knows below a path such as ["sampler"].

    Where a section has kinds: those of the kind that the recipe's plain data names there, else of every kind.
    """
    models: list[type[Config]] = [Recipe]
    node = tree
    for part in path:
        found: list[type[Config]] = []
        node = _below(node, part)
        for model in models:
            info = model.model_fields.get(part)
            found += configs_in(info.annotation, info.metadata, node) if info else []
        # A part that is not a field is a list's index or a mapping's key; its models were found one step before.
        models = found or models
        models = [model for model in models if _is_of_kind(model, node)] or models
    return sorted({name for model in models for name in model.model_fields})


def _below(node: object, part: str) -> object:
    if isinstance(node, dict):
        return node.get(part)
    return node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else None


def _is_of_kind(model: type[Config], node: object) -> bool:
    field = model.model_fields.get("kind")
    return not isinstance(node, dict) or field is None or field.default == node.get("kind")


def configs_in(annotation: Any, metadata: typing.Sequence[Any] = (), node: object = None) -> list[type[Config]]:
    """The configs that a field of this type may hold; of every kind where there are kinds and `node` names none."""
    kinds = next((mark for mark in (annotation, *metadata) if isinstance(mark, Kinds)), None)
    if kinds is not None:
        named = [one.get("kind") for one in (node if isinstance(node, list) else [node]) if isinstance(one, dict)]
        own = [kinds.config(kind) for kind in dict.fromkeys(map(str, named)) if is_own(kind)]
        return [*own, *kinds.configs()]
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for part in typing.get_args(annotation) for config in configs_in(part, (), node)]


def build_help(loaded: Loaded) -> str:
    """The help of build: every option of a recipe with its value, where the value comes from, its type and its meaning."""
    lines = [f"usage: recontext build recipe=NAME [key=value ...]      values below are those of recipe={loaded.name}\n"]
    run_options = {**help_lines(OptionalRecipeOptions), **modes.OPTION}
    lines += [f"{option}: {type_}\n    {meaning}" for option, (type_, meaning) in run_options.items()]
    lines.append("")
    for row in options_of(loaded):
        lines.append(f"{row.key} = {_short(row.value)}   [{row.origin}]   {row.type}")
        lines += [f"    {row.meaning}"] if row.meaning else []
    lines.append(
        "\nLists and mappings are YAML: arms='[default -> hack]'. Dots go deeper: policy.kind=openai policy.model=gpt-4.1"
    )
    return "\n".join(lines) + "\n"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 72 else text[:69] + "..."


def verb_help(kind: type[VerbOptions], words: Sequence[str], *, section: str) -> int:
    """Prints the help of a verb: its own options, and the section of the recipe that it reads."""
    given = [word for word in words if word not in HELP]
    if not any(word.startswith("recipe=") for word in given):
        given.append(f"recipe={HELP_RECIPE}")
    options, overrides = read_options(kind, given)
    name = str(getattr(options, "recipe", HELP_RECIPE))
    print(f"usage: recontext {kind.verb} recipe=NAME [key=value ...]      values below are those of recipe={name}\n")
    print_options(kind)
    print()
    for row in options_of(load(name, overrides)):
        if row.key.startswith(f"{section}."):
            print(f"{row.key} = {row.value}   [{row.origin}]   {row.type}\n    {row.meaning}")
    print(f"\nEvery other option of the recipe is build's: recontext build recipe={name} --help")
    return 0


def list_recipes() -> int:
    """Prints the shipped recipes with their descriptions."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    print("recipes (recontext build recipe=NAME; or a path to your own YAML file):\n")
    for name, path in shipped_recipes().items():
        description = yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
        # Wrapped beside its name, so that at 80 columns the names can still be read down the edge.
        print(textwrap.fill(description, width, initial_indent=f"  {name:19} ", subsequent_indent=" " * 22))
    print("\n`recontext build recipe=NAME --help` shows every option with its value.")
    return 0
