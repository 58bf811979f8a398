"""YAML as recipes mean it: no key stands twice, `1e-5` is a number, and what is read is plain data of its own.

`yaml.safe_load` keeps the last of two equal keys in silence, reads `1e-5` as text, and lets two places share one list.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_DEPTH = 32
"""Of nesting; more is an alias that contains itself."""

_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"


class _OneKeyOnce:
    """What PyYAML's safe constructor lets through: a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        construct: Any = self
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == _MERGE else construct.construct_object(key_node, deep=True)
            if key is not None and isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
                seen.add(key)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)  # type: ignore[misc]
        return made


class _Loader(_OneKeyOnce, yaml.SafeLoader):
    """PyYAML's safe loader without its two traps."""


class _FastLoader(_OneKeyOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same over libyaml, where the wheel has it: ten times as fast, and a recipe is read before anything can be shown."""


for _loader in (_Loader, _FastLoader):
    _loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: it is not valid YAML, has a key twice, or contains itself.
    """
    try:
        value = yaml.load(text, Loader=_FastLoader)
    except (yaml.YAMLError, UnicodeEncodeError):
        # libyaml refuses more (half of a surrogate pair as an escape) and says less; the slower one has the last word.
        value = yaml.load(text, Loader=_Loader)
    return _own(value, 0)


def _own(value: Any, depth: int) -> Any:
    """A copy in which nothing is shared, so that an override of one place changes that place alone."""
    if depth > MAX_DEPTH:
        raise yaml.YAMLError(f"it nests deeper than {MAX_DEPTH}; does an alias contain itself?")
    if isinstance(value, dict):
        return {key: _own(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner, depth + 1) for inner in value]
    return value


def half_character(value: Any, where: str = "") -> str | None:
    """Where in plain data a lone surrogate stands: from an escape, or from bytes that are no UTF-8; no file holds it."""
    if isinstance(value, dict):
        inner = [(key, f"{where}.{key}" if where else str(key)) for key in value]
        found = (half_character(str(key), place) or half_character(value[key], place) for key, place in inner)
        return next((place for place in found if place), None)
    if isinstance(value, list):
        return next((place for i, item in enumerate(value) if (place := half_character(item, f"{where}.{i}"))), None)
    has_half = isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
    return (where or "the text") if has_half else None
