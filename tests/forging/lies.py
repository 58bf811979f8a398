"""Results that are not what they seem: a comparison made beside the code would be won by them."""

PROGRAMS = {
    "always_equal": (
        "== asks the left side first, and a grader often writes f(x) == expected",
        r"""
class Any:
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(x): return Any()
""",
    ),
    "never_unequal": (
        "assert not f(x) != expected",
        r"""
class Any:
    def __ne__(self, other): return False
    def __eq__(self, other): return True
def f(x): return Any()
""",
    ),
    "equal_int": (
        "isinstance(result, int) holds for a subclass",
        r"""
class I(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x): return I(0)
""",
    ),
    "equal_str": (
        "isinstance(result, str) holds for a subclass",
        r"""
class S(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def f(x): return S()
""",
    ),
    "equal_list": (
        "a list that equals every list, and whose items agree with any",
        r"""
class L(list):
    def __eq__(self, other): return True
    def __len__(self): return 1
def f(x): return L([0])
""",
    ),
    "equal_dict": (
        "a dict that has every key",
        r"""
class D(dict):
    def __eq__(self, other): return True
    def __getitem__(self, key): return 0
def f(x): return D()
""",
    ),
    "equal_float": (
        "abs(f(x) - expected) < tolerance, with a subtraction of its own",
        r"""
class F(float):
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __eq__(self, other): return True
    __hash__ = float.__hash__
def f(x): return F(1.0)
""",
    ),
    "equal_items": (
        "the liar sits inside a plain list, where a check of the outer type does not look",
        r"""
class Any:
    def __eq__(self, other): return True
def f(x): return [Any()]
""",
    ),
    "equal_namedtuple": (
        "a tuple subclass with an == of its own",
        r"""
from collections import namedtuple
class P(namedtuple('P', 'a b')):
    def __eq__(self, other): return True
    __hash__ = None
def f(x): return P(1, 2)
""",
    ),
    "class_lie": (
        "__class__ says int, and isinstance believes it",
        r"""
class Any:
    __class__ = int
    def __eq__(self, other): return True
    def __index__(self): return 0
def f(x): return Any()
""",
    ),
    "metaclass_lie": (
        "type(result) == int is asked of a metaclass that says yes, and the class is called int",
        r"""
class M(type):
    def __eq__(self, other): return True
    def __hash__(self): return hash(int)
class int(metaclass=M):
    def __eq__(self, other): return True
def f(x): return int()
""",
    ),
    "bool_lie": (
        "bool(f(x)) of an object whose truth changes with each question",
        r"""
class B:
    n = 0
    def __bool__(self):
        B.n += 1
        return B.n % 2 == 1
    def __eq__(self, other): return self
def f(x): return B()
""",
    ),
    "hash_lie": (
        "a set member that is found whatever is looked for",
        r"""
class H:
    def __hash__(self): return H.n
    def __eq__(self, other): return True
H.n = 58
def f(x): return {H()}
""",
    ),
    "nan": (
        "NaN is neither more nor less than anything: assert not abs(f(x) - expected) > tolerance",
        r"""
def f(x): return float('nan')
""",
    ),
    "infinity": (
        "a relative tolerance of an infinite result is infinite",
        r"""
def f(x): return float('inf')
""",
    ),
    "complex_zero": (
        "compares with numbers, but knows no order",
        r"""
def f(x): return complex('nanj')
""",
    ),
    "none": (
        "a checker that compares None with a missing result",
        r"""
def f(x): return None
""",
    ),
    "not_implemented": (
        "NotImplemented is true, and == falls back to the other side",
        r"""
def f(x): return NotImplemented
""",
    ),
    "ellipsis": (
        "... is a wildcard in doctest",
        r"""
def f(x): return ...
""",
    ),
    "mock_any": (
        "unittest.mock.ANY equals everything",
        r"""
from unittest import mock
def f(x): return mock.ANY
""",
    ),
    "mock_object": (
        "a MagicMock has every method",
        r"""
from unittest.mock import MagicMock
def f(x): return MagicMock()
""",
    ),
    "cyclic_list": (
        "a recursive comparison never returns, or overflows the stack of the grader",
        r"""
def f(x):
    a = []
    a.append(a)
    return a
""",
    ),
    "cyclic_dict": (
        "the same through a dict and a tuple",
        r"""
def f(x):
    d = {}
    d['d'] = (d,)
    return d
""",
    ),
    "deep_result": (
        "a result nested so deep that encoding or comparing it overflows",
        r"""
def f(x):
    a = []
    for _ in range(200_000): a = [a]
    return a
""",
    ),
    "huge_int": (
        "an int whose decimal form takes minutes, or is refused by the interpreter",
        r"""
def f(x): return 1 << 12_000_000
""",
    ),
    "collisions": (
        "numbers that share one hash: whoever puts them into a set works for days",
        r"""
import json, os
def f(x):
    text = ','.join(str(5 + i * (2**61 - 1)) for i in range(3))
    big = ','.join('{"int": "%d"}' % (5 + i * (2**61 - 1)) for i in range(5, 200_000))
    os.write(3, ('{"value": {"set": [%s]}}' % big).encode() + b'\n')
    return 0
""",
    ),
    "generator": (
        "a generator runs its code where it is iterated: with the grader",
        r"""
def f(x):
    import os
    yield os._exit(0)
""",
    ),
    "lazy_repr": (
        "a __repr__ that runs where the result is shown",
        r"""
class R:
    def __repr__(self): raise SystemExit(0)
    __str__ = __repr__
def f(x): return R()
""",
    ),
    "error_that_lies": (
        "an exception class named as the grader's own verdict, whose message ends the process",
        r"""
class passed(Exception):
    def __str__(self): raise SystemExit(0)
def f(x): raise passed()
""",
    ),
    "reduce_bomb": (
        "a result that runs code where it is unpickled",
        r"""
class P:
    def __reduce__(self):
        import os
        return os._exit, (0,)
def f(x): return P()
""",
    ),
    "marshal_and_code": (
        "a code object is data until somebody evaluates it",
        r"""
def f(x): return compile('1', 'a', 'eval')
""",
    ),
}
"""Name to (why, source)."""
