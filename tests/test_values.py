"""The JSON form of Python values: exact there and back, and a comparison that trusts nothing."""

import json
import math
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.core import values
from recontext_data.core.errors import DataError
from recontext_data.core.values import EncodingError

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**80),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.complex_numbers(allow_nan=False),
)
hashable = st.recursive(atoms, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)), max_leaves=5)
plain = st.recursive(
    st.one_of(hashable, st.sets(hashable, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashable, inner, max_size=3),
    ),
    max_leaves=10,
)


@given(plain)
def test_a_value_survives_json_and_its_source_evaluates_to_it(value: Any) -> None:
    form = json.loads(json.dumps(values.encode(value), allow_nan=False))
    assert values.encode(values.decode(form)) == form
    assert type(values.decode(form)) is type(value)
    rebuilt = values.encode(eval(values.source(form)))
    assert values.same(rebuilt, form)
    assert values.same(form, values.encode(value))


@given(plain, plain)
def test_same_is_pythons_equality_where_there_is_no_nan(a: Any, b: Any) -> None:
    if "nan" not in repr((a, b)):
        assert values.same(values.encode(a), values.encode(b)) == (a == b)


@pytest.mark.parametrize(
    ("value", "form", "source"),
    [
        ((1, {10, 2}), {"tuple": [1, {"set": [2, 10]}]}, "(1, {2, 10})"),
        ((1,), {"tuple": [1]}, "(1,)"),
        ((), {"tuple": []}, "()"),
        (set(), {"set": []}, "set()"),
        (frozenset(), {"frozenset": []}, "frozenset()"),
        ({"b", "a"}, {"set": ["a", "b"]}, "{'a', 'b'}"),
        ({}, {"dict": []}, "{}"),
        ({1: [2.5, None]}, {"dict": [[1, [2.5, None]]]}, "{1: [2.5, None]}"),
        (math.inf, {"float": "inf"}, "float('inf')"),
        ([-math.inf], [{"float": "-inf"}], "[float('-inf')]"),
        (2**70, {"int": str(2**70)}, str(2**70)),
        (b"\x00a", {"bytes": "0061"}, "b'\\x00a'"),
        (complex(-0.0, 2), {"complex": [-0.0, 2.0]}, "complex(-0.0, 2.0)"),
        (True, True, "True"),
        (1.0, 1.0, "1.0"),
    ],
)
def test_forms_and_sources(value: Any, form: Any, source: str) -> None:
    assert values.encode(value) == form
    assert values.source(form) == source
    assert eval(source) == value


def test_an_int_beyond_the_interpreters_decimal_limit_makes_the_round_trip() -> None:
    for value in (10**5000, -(10**5000), 2**13_001):
        form = values.encode(value)
        assert values.decode(form) == value
        assert eval(values.source(form)) == value


def test_dicts_of_the_standard_library_are_dicts() -> None:
    assert values.encode(Counter("aab")) == values.encode({"a": 2, "b": 1})
    assert values.encode(OrderedDict(a=1)) == {"dict": [["a", 1]]}


class _AlwaysEqual:
    def __eq__(self, other: object) -> bool:
        return True


class _Liar(int):
    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("value", [_AlwaysEqual(), _Liar(3), [_Liar(3)], {"a": _AlwaysEqual()}, object, range(3), iter([])])
def test_anything_but_plain_types_is_refused(value: Any) -> None:
    with pytest.raises(EncodingError, match="has no JSON form"):
        values.encode(value)
    assert issubclass(EncodingError, DataError) and issubclass(EncodingError, TypeError)


def test_cycles_depth_size_and_surrogates_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EncodingError, match="cyclic"):
        values.encode(cycle)
    wide: list[Any] = [0] * 1000
    with pytest.raises(EncodingError, match="more than"):
        values.encode([wide] * 2100)
    with pytest.raises(EncodingError, match="surrogate at 1"):
        values.encode("a\ud800")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"a": 1},
        {"tuple": [], "set": []},
        {"tuple": 3},
        {"set": [[1]]},
        {"int": "x"},
        {"int": 3},
        {"float": "1"},
        {"dict": [[1]]},
        {"dict": [1]},
        {"complex": [1]},
        {"complex": ["a", 1]},
        {"bytes": "0"},
        object(),
    ],
)
def test_what_encode_never_gives_is_refused(form: Any) -> None:
    with pytest.raises(DataError, match="value: "):
        values.decode(form)


def test_a_deep_form_is_refused_before_the_stack_ends() -> None:
    form: Any = []
    for _ in range(100_000):
        form = [form]
    with pytest.raises(DataError, match="nested deeper"):
        values.decode(form)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (1, True, True),
        (0.0, -0.0, True),
        (0.1 + 0.2, 0.3, False),
        ([1], (1,), False),
        ({1}, frozenset({1}), True),
        (math.nan, math.nan, True),
        ([math.nan], [math.nan], True),
        (math.nan, 1.0, False),
        (2**53, float(2**53) + 2, False),
        (2**70, float(2**70), True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, False, False),
        ("1", 1, False),
        ("a", b"a", False),
        ([], set(), False),
        ({math.nan}, {math.nan}, True),
    ],
)
def test_tricky_comparisons(a: Any, b: Any, equal: bool) -> None:
    assert values.same(values.encode(a), values.encode(b)) is equal
    assert values.same(values.encode(b), values.encode(a)) is equal


def test_tolerance_is_absolute_reaches_inside_and_leaves_ints_exact() -> None:
    def same(a: Any, b: Any, tolerance: float) -> bool:
        return values.same(values.encode(a), values.encode(b), tolerance=tolerance)

    assert same(1.0, 1.05, 0.1) and not same(1.0, 1.2, 0.1)
    assert same(1, 1.05, 0.1) and not same(1, 2, 5.0)
    assert same({"a": [(1.0,)]}, {"a": [(1.01,)]}, 0.1)
    assert same({1.0, 2.0}, {2.01, 1.01}, 0.1) and not same({1.0, 2.0}, {1.01, 1.02}, 0.1)
    assert same(1e12, 1e12 + 1, 1e-6) and not same(1e12, 1e12 + 1, 0.0)
    assert not same(10**400, 1.0, 0.1)


def test_numbers_that_share_a_hash_are_refused_before_they_are_hashed_together() -> None:
    same_hash = [5 + i * (2**61 - 1) for i in range(200)]
    for form in ({"set": [values.encode(n) for n in same_hash]}, {"dict": [[values.encode(n), 0] for n in same_hash]}):
        with pytest.raises(DataError, match="more than 100 members share one hash"):
            values.decode(form)
    assert len(values.decode({"set": list(range(100_000))})) == 100_000
    assert values.decode({"tuple": [values.encode(n) for n in same_hash]}) == tuple(same_hash)


def test_a_bare_interpreter_can_import_it() -> None:
    root = Path(values.__file__).parents[2]
    code = "import sys; sys.path.insert(0, sys.argv[1]); from recontext_data.core import values; print(values.encode((1,)))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'tuple': [1]}"
