"""Plausible wrong values: what a test might expect by mistake in place of the true value. Pure.

`wrong_values(form)` lists candidates of the same type, none equal to the true value, in a fixed order; the forge draws one.
A number is off by a little, a text has a letter wrong, a collection has one member changed, dropped or repeated.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from recontext_data.core import values
from recontext_data.core.values import Json

MAX_POSITIONS = 6
"""Places in a collection or text at which a change is tried; more adds candidates and no variety."""
LEAST_TOLERANCE = 1e-6
"""A wrong float differs by more than this even where the problem compares exactly: else nobody could see it."""


def wrong_values(form: Json, *, donors: Sequence[Json] = (), tolerance: float = 0.0) -> list[Json]:
    """Candidates of the same type as `form`, each different from it beyond the tolerance.

    Args:
        form: the true value, in the JSON form of `values`.
        donors: values of neighbouring tests. Where the value is a text or an empty collection, they are plausible
            wrong answers themselves ("Yes" for "No").
        tolerance: absolute tolerance of the comparison.
    """
    kind = _kind(form)
    found = list(_CHANGES[kind](form)) if kind in _CHANGES else []
    if kind == "str" or _is_empty(form):
        found += [donor for donor in donors if _kind(donor) == kind]
    limit = max(tolerance, LEAST_TOLERANCE)
    kept = _distinct(form, found, limit)
    if not kept and type(form) in (int, float):
        kept = _distinct(form, list(_larger(form)), limit)  # the tolerance swallows small changes
    return kept


def _distinct(form: Json, candidates: Sequence[Json], tolerance: float) -> list[Json]:
    """The candidates that differ from the true value and from each other."""
    kept: list[Json] = []
    for candidate in candidates:
        if not any(_close(candidate, other, tolerance) for other in (form, *kept)):
            kept.append(candidate)
    return kept


def _close(a: Json, b: Json, tolerance: float) -> bool:
    # An int is held to the tolerance too: the solution may return the same number as a float.
    if type(a) is int and type(b) is int and abs(a - b) <= tolerance:
        return True
    return values.same(a, b, tolerance=tolerance)


def _kind(form: Json) -> str:
    if isinstance(form, dict):
        return str(next(iter(form)))
    return type(form).__name__


def _is_empty(form: Json) -> bool:
    return form == [] or (isinstance(form, dict) and next(iter(form.values())) == [])


def _int(form: Json) -> Iterator[Json]:
    value = int(values.decode(form))
    for delta in (1, -1, 2, -2, 10, -10):
        large_enough = abs(delta) < 10 or abs(value) >= 50
        if large_enough and (value <= 0 or value + delta >= 0):
            yield values.encode(value + delta)


def _float(form: Json) -> Iterator[Json]:
    """Another digit in one of the first places, with as many decimals as before."""
    if isinstance(form, dict):
        yield from ({"float": "inf"}, 0.0, 1.0)
        return
    exact = Decimal(repr(form))
    exponent = exact.as_tuple().exponent
    lowest = exponent if isinstance(exponent, int) else 0
    places = [place for place in (0, -1, -2, -3) if place >= lowest] or [lowest]
    if exact and abs(exact) < 1:
        places = [place for place in range(exact.adjusted(), exact.adjusted() - 3, -1) if place >= lowest]
    for place in places:
        for sign in (1, -1):
            changed = float(exact + sign * Decimal(1).scaleb(place))
            if (changed < 0) == (form < 0) or form == 0:
                yield changed


def _larger(form: Json) -> Iterator[Json]:
    """Another digit in one of the places above the first, up to the leading one."""
    exact = Decimal(repr(form))
    for place in range(1, exact.adjusted() + 1):
        for sign in (1, -1):
            yield type(form)(exact + sign * Decimal(1).scaleb(place))


def _str(form: Json) -> Iterator[Json]:
    text = str(form)
    for i in _positions(len(text)):
        letter = text[i]
        other = _other_letter(letter, text)
        if other != letter:
            yield text[:i] + other + text[i + 1 :]
        if len(text) > 1:
            yield text[:i] + text[i + 1 :]
            yield text[:i] + text[i : i + 2][::-1] + text[i + 2 :]
    if not text:
        yield "a"
    elif len(text) == 1 and _other_letter(text, text) == text:
        yield text * 2  # a lone sign has no neighbour


def _other_letter(letter: str, text: str) -> str:
    """A neighbour of the same class, so that a binary numeral stays binary and a capital stays a capital."""
    if letter in "01" and set(text) <= set("01"):
        return "1" if letter == "0" else "0"
    for first, last in (("a", "z"), ("A", "Z"), ("0", "9")):
        if first <= letter <= last:
            return first if letter == last else chr(ord(letter) + 1)
    return letter


def _positions(length: int) -> list[int]:
    """Up to MAX_POSITIONS places, spread over the whole length."""
    if length <= MAX_POSITIONS:
        return list(range(length))
    return sorted({i * (length - 1) // (MAX_POSITIONS - 1) for i in range(MAX_POSITIONS)})


def _items(items: list[Json]) -> Iterator[list[Json]]:
    """A list with one item changed, dropped, repeated or swapped with the next."""
    for i in _positions(len(items)):
        for other in wrong_values(items[i])[:4]:
            yield [*items[:i], other, *items[i + 1 :]]
        if len(items) > 1:
            yield items[:i] + items[i + 1 :]
            yield items[:i] + items[i : i + 2][::-1] + items[i + 2 :]
        yield [*items[: i + 1], *items[i:]]
    if not items:
        yield [0]


def _set(form: Json) -> Iterator[Json]:
    ((tag, items),) = form.items()
    for changed in _items(items):
        # through the value, so that repeated members fall away and the order is the canonical one
        yield values.encode(values.decode({tag: changed}))


def _dict(form: Json) -> Iterator[Json]:
    pairs = form["dict"]
    for i in _positions(len(pairs)):
        key, item = pairs[i]
        for other in wrong_values(item)[:4]:
            yield {"dict": [*pairs[:i], [key, other], *pairs[i + 1 :]]}
        if len(pairs) > 1:
            yield {"dict": pairs[:i] + pairs[i + 1 :]}
    if not pairs:
        yield {"dict": [["a", 1]]}


def _complex(form: Json) -> Iterator[Json]:
    real, imaginary = form["complex"]
    yield from ({"complex": [other, imaginary]} for other in _float(real))
    yield from ({"complex": [real, other]} for other in _float(imaginary))


def _bytes(form: Json) -> Iterator[Json]:
    text = bytes.fromhex(form["bytes"]).decode("latin-1")
    yield from ({"bytes": other.encode("latin-1").hex()} for other in _str(text))


_CHANGES: dict[str, Callable[[Any], Iterator[Json]]] = {
    "bool": lambda form: iter([not form]),
    "int": _int,
    "float": _float,
    "str": _str,
    "list": _items,
    "tuple": lambda form: ({"tuple": changed} for changed in _items(form["tuple"])),
    "set": _set,
    "frozenset": _set,
    "dict": _dict,
    "complex": _complex,
    "bytes": _bytes,
}
