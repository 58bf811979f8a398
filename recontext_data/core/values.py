"""Python values as JSON and back, so that tests can be stored anywhere and compared in a process that ran no model's code.

None, bool, str, list, finite float and int (to 64 bits) stand for themselves. Everything else is an object with one key:
`{"tuple": [...]}`, `{"set": [...]}`, `{"frozenset": [...]}`, `{"dict": [[key, value], ...]}`, `{"float": "nan"|"inf"|"-inf"}`,
`{"int": "123..."}` (hexadecimal from 13,000 bits on), `{"complex": [re, im]}`, `{"bytes": "hex"}`. A dict is always tagged,
so the form has no ambiguity; the members of a set are sorted, so equal sets have equal forms.

    values.encode((1, {2}))             {"tuple": [1, {"set": [2]}]}
    values.source({"set": [2, 10]})     "{2, 10}"
    values.same(1, True)                True

This file also runs inside the sandbox, in a bare interpreter: it needs the standard library and `errors.py` only.
"""

import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from recontext_data.core.errors import DataError

__all__ = ["EncodingError", "Json", "decode", "encode", "same", "source"]

Json = Any
"""None, bool, int, float, str, list of Json, or a dict from str to Json."""

MAX_DEPTH = 80
MAX_NODES = 2_000_000
MAX_TEXT = 16_000_000
"""Characters of one string, bytes of one bytes, bits of one int."""
MAX_SAME_HASH = 100
"""Members of one set or dict. Texts and plain numbers never come near; numbers can be made to."""
DECIMAL_BITS = 13_000
"""The interpreter refuses decimal conversions of ints beyond 4,300 digits, about 14,280 bits; hexadecimal has no limit."""

# These compare with a dict as a dict does, and an MBPP reference may return one. Their methods are never called.
_DICTS = (dict, Counter, OrderedDict, defaultdict)


class EncodingError(DataError, TypeError):
    """A value has no JSON form: its type is not a plain one, or it is cyclic, too deep or too large."""


def encode(value: object) -> Json:
    """The JSON form of a value.

    Types are matched exactly: an instance of a subclass could bring an `__eq__` of its own, so it is refused.

    Raises:
        EncodingError: a type without a form, a cycle (it is too deep), or beyond the limits above.
    """
    return _Encoder().encode(value, 0)


class _Encoder:
    """One walk over a value, counting what it has seen."""

    def __init__(self) -> None:
        self.num_nodes = 0

    def encode(self, value: Any, depth: int) -> Json:
        self.num_nodes += 1
        if depth > MAX_DEPTH:
            raise EncodingError(f"value: nested deeper than {MAX_DEPTH} levels, or cyclic; return something flatter")
        if self.num_nodes > MAX_NODES:
            raise EncodingError(f"value: more than {MAX_NODES:,} parts; return something smaller")
        kind = type(value)
        if kind in _LEAVES:
            return _LEAVES[kind](value)
        if kind in _DICTS:
            pairs = dict.items(value)
            return {"dict": [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in pairs]}
        if kind is list:
            return self.items(value, depth)
        if kind is tuple:
            return {"tuple": self.items(value, depth)}
        if kind is set or kind is frozenset:
            return {kind.__name__: sorted(self.items(value, depth), key=_order)}
        raise EncodingError(f"value: type {kind.__name__!r} has no JSON form; return plain Python values")

    def items(self, value: Iterable[Any], depth: int) -> list[Json]:
        return [self.encode(item, depth + 1) for item in value]


def _encode_int(value: int) -> Json:
    num_bits = value.bit_length()
    if num_bits < 64:
        return value
    if num_bits > MAX_TEXT:
        raise EncodingError(f"value: an int of {num_bits:,} bits; at most {MAX_TEXT:,}")
    return {"int": str(value) if num_bits < DECIMAL_BITS else hex(value)}


def _encode_float(value: float) -> Json:
    return value if math.isfinite(value) else {"float": repr(value)}


def _encode_str(value: str) -> Json:
    if len(value) > MAX_TEXT:
        raise EncodingError(f"value: a str of {len(value):,} characters; at most {MAX_TEXT:,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise EncodingError(f"value: a str with a lone surrogate at {error.start}; JSON holds Unicode only") from None
    return value


def _encode_bytes(value: bytes) -> Json:
    if len(value) > MAX_TEXT:
        raise EncodingError(f"value: {len(value):,} bytes; at most {MAX_TEXT:,}")
    return {"bytes": value.hex()}


_LEAVES: dict[type, Callable[[Any], Json]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    bytes: _encode_bytes,
    complex: lambda value: {"complex": [_encode_float(value.real), _encode_float(value.imag)]},
}


def _order(form: Json) -> tuple[int, float, str]:
    """A total order for the members of a set: numbers by size, then texts, then the rest by their JSON."""
    if isinstance(form, (bool, int, float)):
        return 0, form, ""
    if isinstance(form, str):
        return 1, 0, form
    return 2, 0, json.dumps(form, sort_keys=True)


def decode(form: Json) -> Any:
    """The value that a JSON form stands for.

    Raises:
        DataError: not a form that `encode` gives: an unknown tag, a set of lists, a number that is none.
    """
    return _decode(form, 0)


def _decode(form: Json, depth: int) -> Any:
    if form is None or isinstance(form, (bool, int, float, str)):
        return form
    if depth > MAX_DEPTH:
        raise DataError(f"value: nested deeper than {MAX_DEPTH} levels; write something flatter")
    if isinstance(form, list):
        return [_decode(item, depth + 1) for item in form]
    tag, body = _untag(form)
    try:
        return _decode_tagged(tag, body, depth)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"value: {_brief(form)} is no {tag} ({error}); write it as recontext_data.core.values does") from None


def _decode_tagged(tag: str, body: Json, depth: int) -> Any:
    if tag in ("int", "bytes", "float"):
        if not isinstance(body, str):
            raise ValueError("the text of it is wanted")
        return {"int": _decode_int, "bytes": bytes.fromhex, "float": _decode_float}[tag](body)
    items = _decode_list(body, depth)
    if tag == "complex":
        real, imaginary = items
        return complex(real, imaginary)
    if tag == "dict":
        pairs = [_pair(item) for item in items]
        _refuse_collisions(key for key, _ in pairs)
        return dict(pairs)
    _refuse_collisions(items if tag != "tuple" else ())
    kinds: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    return kinds[tag](items)


def _refuse_collisions(members: Iterable[Any]) -> None:
    """A set or a dict whose members share a hash takes time in the square of their number: days for what fits a message."""
    counts = Counter(map(hash, members))
    if counts and max(counts.values()) > MAX_SAME_HASH:
        raise ValueError(f"more than {MAX_SAME_HASH} members share one hash")


def _decode_int(text: str) -> int:
    return int(text, 16 if "x" in text else 10)


def _decode_float(text: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError("nan, inf or -inf is wanted")
    return float(text)


def _decode_list(body: Json, depth: int) -> list[Any]:
    if not isinstance(body, list):
        raise ValueError("a list is wanted")
    return [_decode(item, depth + 1) for item in body]


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, list) or len(item) != 2:
        raise ValueError("a list of [key, value] is wanted")
    return item[0], item[1]


_TAGS = ("tuple", "set", "frozenset", "dict", "float", "int", "complex", "bytes")


def _untag(form: Json) -> tuple[str, Json]:
    if isinstance(form, dict) and len(form) == 1:
        ((tag, body),) = form.items()
        if tag in _TAGS:
            return tag, body
    raise DataError(f"value: {_brief(form)} has no known tag; an object has exactly one key of {', '.join(_TAGS)}")


def _brief(form: Json) -> str:
    text = repr(form)
    return text if len(text) <= 60 else text[:57] + "..."


def source(form: Json) -> str:
    """A Python expression for a JSON form: short, exact and the same for equal forms.

    Raises:
        DataError: not a form that `encode` gives.
    """
    if form is None or isinstance(form, (bool, str)):
        return repr(form)
    if isinstance(form, (int, float)):
        # Hand-written JSON may hold what `encode` would have tagged.
        return _number_source(form)
    if isinstance(form, list):
        return f"[{_joined(form)}]"
    value = decode(form)  # proves the form, so that what follows cannot fail
    tag, body = _untag(form)
    if tag in ("int", "float", "bytes"):
        return repr(value) if tag == "bytes" else _number_source(value)
    if tag == "complex":
        return f"complex({_number_source(value.real)}, {_number_source(value.imag)})"
    if tag == "dict":
        return "{" + ", ".join(f"{source(key)}: {source(item)}" for key, item in body) + "}"
    if tag == "tuple":
        return f"({_joined(body)},)" if len(body) == 1 else f"({_joined(body)})"
    members = "{" + _joined(sorted(body, key=_order)) + "}"
    if tag == "frozenset":
        return f"frozenset({members if body else ''})"
    return members if body else "set()"


def _joined(forms: list[Json]) -> str:
    return ", ".join(source(form) for form in forms)


def _number_source(value: int | float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({repr(value)!r})"
    if isinstance(value, int) and value.bit_length() >= DECIMAL_BITS:
        return hex(value)
    return repr(value)


def same(a: Json, b: Json, *, tolerance: float = 0.0) -> bool:
    """Whether two JSON forms stand for equal values, as Python's == has it on plain types, except that NaN equals NaN.

    So 1 == 1.0 == True, a list is not a tuple, and a set equals a frozenset. With a tolerance, floats may differ by that
    much, or by 1e-9 of their size; ints among themselves stay exact.

    Raises:
        DataError: one of them is not a form that `encode` gives.
    """
    return _equal(decode(a), decode(b), tolerance)


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, (int, float, complex)) and isinstance(b, (int, float, complex)):
        return _numbers_equal(a, b, tolerance)
    if isinstance(a, (set, frozenset)) and isinstance(b, (set, frozenset)):
        return a == b or _matched(list(a), list(b), tolerance)
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return _dicts_equal(a, b, tolerance)
    return bool(a == b)


def _numbers_equal(a: Any, b: Any, tolerance: float) -> bool:
    if a == b or (a != a and b != b):
        return True
    if tolerance <= 0 or not (isinstance(a, float) or isinstance(b, float)):
        return False
    if isinstance(a, complex) or isinstance(b, complex):
        return False
    try:
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=tolerance)
    except OverflowError:  # an int beyond the largest float is close to none
        return False


def _dicts_equal(a: dict[Any, Any], b: dict[Any, Any], tolerance: float) -> bool:
    if len(a) != len(b):
        return False
    if all(key in b for key in a):
        return all(_equal(item, b[key], tolerance) for key, item in a.items())
    return _matched(list(a.items()), list(b.items()), tolerance)


def _matched(a: list[Any], b: list[Any], tolerance: float) -> bool:
    """Whether the members pair off, each with one equal to it. Only NaN and tolerance make it needed, so few reach it."""
    if len(a) != len(b):
        return False
    rest = list(b)
    for item in a:
        index = next((i for i, other in enumerate(rest) if _equal(item, other, tolerance)), None)
        if index is None:
            return False
        del rest[index]
    return True
