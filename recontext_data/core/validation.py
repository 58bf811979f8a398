"""What pydantic found wrong with a file, as one line of ours: the key, the value, what was expected."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from recontext_data.core.errors import did_you_mean

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
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {shown} will not do: {message}"


def _key(context: Mapping[str, Any]) -> str:
    """The key that says which of several configs is meant: `kind` or `form`."""
    return str(context["discriminator"]).strip("'")
