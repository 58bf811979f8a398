"""The options of a target: words of the command line into a config, and a config into `--help`."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.field_docs import field_docs

C = TypeVar("C", bound=Config)

SECTIONS = ("job", "server", "check", "wait")
"""Options that stand after a dot."""


def read_options(kind: type[C], words: Mapping[str, str]) -> C:
    """The config that these words make. Lists are written with commas, and numbers also as `0-4`.

    Raises:
        RecipeError: a key is unknown or a value will not do.
    """
    fields = _fields(kind)
    values: dict[str, Any] = {}
    for key, text in words.items():
        if key not in fields:
            raise RecipeError(f"{key}: is no option here; {did_you_mean(key, fields)}")
        section, dot, name = key.partition(".")
        value = _value(fields[key].annotation, key, text)
        if dot:
            values.setdefault(section, {})[name] = value
        else:
            values[key] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_sentence(error)) from None


def help_of(kind: type[Config]) -> dict[str, tuple[str, str]]:
    """Every option of a target: its type and what it means; those of a section after a dot."""
    from recontext_data.config.help import type_text

    found: dict[str, tuple[str, str]] = {}
    docs = field_docs(kind)
    for name, info in kind.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Config):
            found |= {f"{name}.{key}": line for key, line in help_of(section).items()}
        else:
            default = "" if info.is_required() or info.default in (None, [], "") else f" = {info.default}"
            found[name] = (f"{type_text(info)}{default}", docs.get(name, ""))
    return found


def _fields(kind: type[Config]) -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, info in kind.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Config):
            found |= {f"{name}.{key}": inner for key, inner in section.model_fields.items()}
        else:
            found[name] = info
    return found


def _value(annotation: Any, key: str, text: str) -> Any:
    if get_origin(annotation) is list:
        parts = [part.strip() for part in text.strip("[] ").split(",") if part.strip()]
        return _numbers(key, parts) if get_args(annotation) == (int,) else parts
    plain = (annotation, *get_args(annotation))
    if bool in plain and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in plain:
            try:
                return number(text)
            except ValueError:
                pass
    return None if text == "" and type(None) in plain else text


def _numbers(key: str, parts: list[str]) -> list[int]:
    found: list[int] = []
    for part in parts:
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise RecipeError(f"{key}={','.join(parts)}: will not do; write numbers such as {key}=0,1,2 or {key}=0-4")
        found += range(int(first), int(last or first) + 1)
    return found


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    # Of a union, pydantic names the member too; an option lies at most one dot deep.
    deep = len(first["loc"]) > 1 and str(first["loc"][0]) in SECTIONS
    key, value = ".".join(map(str, first["loc"][: 1 + deep])), first["input"]
    if first["type"] == "missing":
        return f"{key}: missing; write {key}=..."
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{key}={value}: will not do: {first['msg'][0].lower()}{first['msg'][1:]}"
