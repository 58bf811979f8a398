"""Every option of a recipe, read off the types: for `--help` and for did-you-mean."""

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from recontext_data.cli import HELP_RECIPE, RUN_OPTIONS, Arguments
from recontext_data.config.loading import Loaded, load
from recontext_data.config.recipe import Recipe
from recontext_data.core.config import Config
from recontext_data.core.field_docs import field_docs
from recontext_data.core.registry import Kinds

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true | false", type(None): "null", Any: "anything"}
_BOUNDS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}


@dataclass(frozen=True, slots=True)
class Option:
    """One line of `--help`."""

    key: str
    type: str
    value: Any
    origin: str
    meaning: str


def options(loaded: Loaded) -> Iterator[Option]:
    """Every option of a recipe with its value and where the value came from, in the order of the types."""
    yield from _options(loaded.recipe, "", loaded.origins)


def _options(config: Config, prefix: str, origins: typing.Mapping[str, str]) -> Iterator[Option]:
    docs = field_docs(type(config))
    for name, info in type(config).model_fields.items():
        value, key = getattr(config, name), f"{prefix}{name}"
        if isinstance(value, Config):
            yield from _options(value, f"{key}.", origins)
        else:
            yield Option(key, type_text(info), plain(value), _origin(key, origins), docs.get(name, ""))


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


def type_text(info: FieldInfo) -> str:
    """A field's type in words: `integer >= 1`, `all | random | best`, `list of arm`."""
    bounds = [
        f"{sign} {getattr(mark, attribute):g}"
        for mark in info.metadata
        for kind, (attribute, sign) in _BOUNDS.items()
        if isinstance(mark, kind)
    ]
    bounds += [f"of at least {mark.min_length}" for mark in info.metadata if isinstance(mark, MinLen)]
    return " ".join([_words(info.annotation), *bounds])


def _words(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated and isinstance(inner[1], Kinds):
        return f"({' | '.join(inner[1].homes)})"
    if origin is typing.Annotated:
        bounds = [f"{s} {getattr(m, a):g}" for m in inner[1:] for kind, (a, s) in _BOUNDS.items() if isinstance(m, kind)]
        return " ".join([_words(inner[0]), *bounds])
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(_words(part) for part in inner)
    if origin in (list, tuple):
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"mapping of {_words(inner[0])} to {_words(inner[1])}"
    return getattr(annotation, "__name__", str(annotation)).lower()


def keys_at(path: list[str]) -> list[str]:
    """The keys that a recipe knows below a path such as ["sampler"]; of every kind where a union stands there."""
    models: list[type[Config]] = [Recipe]
    for part in path:
        found: list[type[Config]] = []
        for model in models:
            info = model.model_fields.get(part)
            found += configs_in(info.annotation, info.metadata) if info else []
        # A part that is no field is a list's index or a mapping's key: what it leads to was found a step before.
        models = found or models
    return sorted({name for model in models for name in model.model_fields})


def configs_in(annotation: Any, metadata: typing.Sequence[Any] = ()) -> list[type[Config]]:
    """The configs that a field of this type may hold; of every kind where there are kinds."""
    kinds = next((mark for mark in (annotation, *metadata) if isinstance(mark, Kinds)), None)
    if kinds is not None:
        return kinds.configs()
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for part in typing.get_args(annotation) for config in configs_in(part)]


def build_help(loaded: Loaded) -> str:
    """What `recontext build --help` prints: every option with its value, where the value came from, its type and meaning."""
    lines = [f"usage: recontext build recipe=NAME [key=value ...]      values below are those of recipe={loaded.name}\n"]
    lines += [f"{option}: {type_}\n    {meaning}" for option, (type_, meaning) in RUN_OPTIONS.items()]
    lines.append("")
    for row in options(loaded):
        lines.append(f"{row.key} = {_short(row.value)}   [{row.origin}]   {row.type}")
        lines += [f"    {row.meaning}"] if row.meaning else []
    lines.append(
        "\nLists and mappings are YAML: arms='[default -> hack]'. Dots go deeper: policy.kind=openai policy.model=gpt-4.1"
    )
    return "\n".join(lines) + "\n"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 72 else text[:69] + "..."


def verb_help(verb: str, arguments: Arguments, *, section: str, own: typing.Mapping[str, tuple[str, str]]) -> int:
    """Prints the help of a verb that reads one section of a recipe; `own`: the verb's own options, (type, meaning) by key."""
    name = arguments.recipe or HELP_RECIPE
    print(f"usage: recontext {verb} recipe=NAME [key=value ...]      values below are those of recipe={name}\n")
    for option, (type_, meaning) in {**RUN_OPTIONS, **own}.items():
        print(f"{option}: {type_}\n    {meaning}")
    print()
    for row in options(load(name, arguments.overrides)):
        if row.key.startswith(f"{section}."):
            print(f"{row.key} = {row.value}   [{row.origin}]   {row.type}\n    {row.meaning}")
    print(f"\nEvery other option of the recipe is build's: recontext build recipe={name} --help")
    return 0
