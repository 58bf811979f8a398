"""Errors of pydantic in plain words: one line with the key, the value and what was expected; and types in words."""

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from recontext_data.core.errors import did_you_mean
from recontext_data.core.registry import Kinds

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true | false", type(None): "null", Any: "anything"}
_BOUNDS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}
_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys to values",
    "mapping": "a mapping of keys to values",
    "model": "a mapping of keys to values",
    "none_required": "null",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
"""Pydantic's type of an error, or its first word -> what the value must be."""

KeysBeside = Callable[[str], list[str]]
"""From the dotted place of an unknown key to the keys that are known there."""


def one_line(error: ValidationError, tree: Mapping[str, Any], *, whole: str, keys_beside: KeysBeside) -> str:
    """The first problem, and how many more there are. `whole`: what the file is, such as `recipe`."""
    problems = error.errors()
    first = problems[0]
    where = ".".join(_real_location(first["loc"], tree))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{_sentence(first, where, whole=whole, keys_beside=keys_beside)}{more}"


def _real_location(location: tuple[int | str, ...], tree: Any) -> list[str]:
    """The location without the tags that pydantic puts in for a union's member."""
    parts: list[str] = []
    node = tree
    for part in location:
        if isinstance(node, dict) and part not in node and part in (node.get("kind"), node.get("form")):
            continue
        if isinstance(node, str) and part == node:
            continue
        parts.append(str(part))
        node = (
            node.get(part)
            if isinstance(node, dict)
            else node[part]
            if isinstance(node, list) and isinstance(part, int)
            else None
        )
    return parts


def _sentence(problem: Any, where: str, *, whole: str, keys_beside: KeysBeside) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "..."
    if kind == "extra_forbidden":
        return f"{where}: unknown key; {did_you_mean(where.rpartition('.')[2], keys_beside(where))}"
    if kind == "missing":
        return f"{where}: missing; the {whole} must set it"
    if kind == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        return f"{where}.{_key(context)}: {context['tag']!r} is unknown; {did_you_mean(str(context['tag']), tags)}"
    if kind == "union_tag_not_found":
        return f"{where}.{_key(context)}: missing; the {whole} must set it"
    if kind == "value_error":
        message = str(context["error"])
        return message if not where or message.startswith(where) else f"{where}: {message}"
    return f"{where}={shown}: {in_words(kind, context, problem['msg'])}"


def in_words(kind: str, context: Mapping[str, object], message: str) -> str:
    """The requirement on a value, from pydantic's type of the error, its context and its message."""
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        least = kind.endswith("short")
        number = context["min_length" if least else "max_length"]
        unit = "character" if kind.startswith("string") else "item"
        return f"must have at {'least' if least else 'most'} {number} {unit}{'' if number == 1 else 's'}"
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}"
    expected = _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0])
    if expected is None:
        return f"{message[0].lower()}{message[1:]}".replace("input should be", "must be")
    return f"must be {expected.format(**{key: _number(value) for key, value in context.items()})}"


def _number(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def expected(info: FieldInfo, problem: Any, text: str) -> str:
    """The requirement on an option, with its whole range. `text`: the value as typed."""
    members = (info.annotation, *typing.get_args(info.annotation))
    if typing.get_origin(info.annotation) is Literal:
        names = list(map(str, typing.get_args(info.annotation)))
        return f"must be {' | '.join(names)}; {did_you_mean(text, names)}" if text else f"must be {' | '.join(names)}"
    for kind, name in ((int, "an integer"), (float, "a number")):
        if kind in members and not any(typing.get_origin(member) is Literal for member in members):
            return f"must be {name}{_range(info)}"
    return in_words(problem["type"], problem.get("ctx", {}), problem["msg"])


def _range(info: FieldInfo) -> str:
    bounds = {type(mark): mark for mark in info.metadata}
    least, most = bounds.get(Ge), bounds.get(Le)
    if least is not None and most is not None:
        return f" from {least.ge:g} to {most.le:g}"
    words = {Ge: ("ge", "of at least"), Gt: ("gt", "above"), Le: ("le", "of at most"), Lt: ("lt", "below")}
    found = [f"{word} {getattr(bounds[kind], name):g}" for kind, (name, word) in words.items() if kind in bounds]
    return f" {' and '.join(found)}" if found else ""


def _key(context: Mapping[str, Any]) -> str:
    """The key that says which of several configs is meant: `kind` or `form`."""
    return str(context["discriminator"]).strip("'")


def type_words(info: FieldInfo) -> str:
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
