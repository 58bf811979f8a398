"""MBPP's assert lines, read with `ast`: what is called with what, what must come out, and how closely. Pure.

Most are `assert f(literals) == literal` and become arguments and an expected value. The rest keep expressions that only
the reference can evaluate; `mbpp.py` does that in the sandbox.
"""

import ast
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recontext_data.core import values
from recontext_data.core.errors import DataError
from recontext_data.core.values import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A test as far as it can be read without running anything."""

    call: str
    """The left side: an expression that calls the entry point."""
    expected: str
    """The right side, an expression."""
    arguments: tuple[str, ...] | None
    """The arguments, where the left side is a plain call of the entry point with positional arguments."""
    truthy: bool | None = None
    """For `assert f(x)` and `assert not f(x)`: what the plain call's truth must be."""
    tolerance: float = 0.0
    prelude: str = ""
    """Statements that stood before the assert."""


def parse(source: str) -> ast.Module:
    """`ast.parse` without the warnings that are about somebody else's escapes ("\\d" in a plain string)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def entry_point(code: str, asserts: Sequence[str]) -> str:
    """The function under test: defined in the code and called in the first assert, the outermost if there are several.

    Raises:
        DataError: the code does not parse, or no assert calls a function of it.
    """
    try:
        body = parse(code).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"code: does not parse as Python ({error}); repair it") from None
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    defined |= {t.id for node in body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}
    for text in asserts:
        for node in ast.walk(_parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
                return node.func.id
    raise DataError("test_list: no assert calls a function that the code defines; check that both belong together")


def read_assert(text: str, name: str) -> Draft:
    """One test string: statements, then an assert about `name`.

    Raises:
        DataError: it does not parse, or does not end in an assert that calls `name`.
    """
    body = _parse(text).body
    if not body or not isinstance(body[-1], ast.Assert):
        raise DataError(f"test_list: {text.strip()[:60]!r} does not end in an assert; each test is one")
    return replace(_read_condition(body[-1].test, name), prelude="\n".join(ast.unparse(node) for node in body[:-1]))


def read_asserts(text: str, name: str) -> list[Draft]:
    """A block of assert lines, as MBPP+ has them; imports between them are left out.

    Raises:
        DataError: as `read_assert`.
    """
    return [_read_condition(node.test, name) for node in _parse(text).body if isinstance(node, ast.Assert)]


def _parse(text: str) -> ast.Module:
    try:
        return parse(text.strip())
    except (SyntaxError, ValueError) as error:
        raise DataError(f"test_list: {text.strip()[:60]!r} does not parse as Python ({error}); repair it") from None


def _read_condition(node: ast.expr, name: str) -> Draft:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.Eq, ast.Is)):
        left, right = node.left, node.comparators[0]
        if not calls(left, name):
            left, right = right, left
        return _draft(left, right, name)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and _is_call(node.operand, name):
        return _truth(node.operand, False, name)
    if _is_call(node, name):
        return _truth(node, True, name)
    close = _read_isclose(node, name)
    return close if close is not None else _draft(node, ast.Constant(value=True), name)


def _draft(left: ast.expr, right: ast.expr, name: str, *, tolerance: float = 0.0) -> Draft:
    if not calls(left, name):
        raise DataError(f"test_list: {ast.unparse(left)[:60]!r} does not call {name}; each test calls the function")
    call = ast.unparse(left)
    if isinstance(left, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.IfExp)):
        call = f"({call})"  # a test is shown as `call == expected`, and these bind no closer than ==
    return Draft(call=call, expected=ast.unparse(right), arguments=_plain(left, name), tolerance=tolerance)


def _truth(call: ast.expr, truthy: bool, name: str) -> Draft:
    return Draft(call=ast.unparse(call), expected=repr(truthy), arguments=_plain(call, name), truthy=truthy)


def _plain(node: ast.expr, name: str) -> tuple[str, ...] | None:
    if not _is_call(node, name) or not isinstance(node, ast.Call) or node.keywords:
        return None
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return None
    return tuple(ast.unparse(argument) for argument in node.args)


def _is_call(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def calls(node: ast.AST, name: str) -> bool:
    """Whether the function is called somewhere in it."""
    return any(isinstance(inner, ast.expr) and _is_call(inner, name) for inner in ast.walk(node))


def _read_isclose(node: ast.expr, name: str) -> Draft | None:
    """`math.isclose(f(x), y, rel_tol=...)` as f(x) == y within an absolute tolerance of the same size."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("math.isclose", "isclose") or len(node.args) != 2:
        return None
    left, right = node.args if calls(node.args[0], name) else node.args[::-1]
    limits = {keyword.arg: _number(keyword.value) for keyword in node.keywords}
    wanted, relative, absolute = _number(right), limits.get("rel_tol", 1e-9), limits.get("abs_tol", 0.0)
    if not calls(left, name) or wanted is None or relative is None or absolute is None:
        return None
    return _draft(left, right, name, tolerance=max(relative * abs(wanted), absolute))


def _number(node: ast.expr) -> float | None:
    form = literal(ast.unparse(node))
    return float(form) if type(form) in (int, float) and math.isfinite(form) else None


def separate(drafts: Sequence[Draft]) -> tuple[list[Draft], str]:
    """The drafts, and all their preludes as one source; a name that two preludes give different meanings gets a number."""
    separated: list[Draft] = []
    preludes: list[str] = []
    taken: set[str] = set()
    for number, draft in enumerate(drafts):
        if draft.prelude and draft.prelude not in preludes:
            assigned = _assigned(draft.prelude)
            renaming = _Renaming({name: f"{name}_{number}" for name in assigned & taken})
            taken |= assigned
            draft = renaming.draft(draft)
            preludes.append(draft.prelude)
        separated.append(draft)
    return separated, "\n".join(preludes)


def _assigned(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


class _Renaming(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)

    def source(self, text: str) -> str:
        return ast.unparse(self.visit(ast.parse(text)))

    def draft(self, draft: Draft) -> Draft:
        arguments = None if draft.arguments is None else tuple(map(self.source, draft.arguments))
        return replace(
            draft,
            call=self.source(draft.call),
            expected=self.source(draft.expected),
            arguments=arguments,
            prelude=self.source(draft.prelude),
        )


def literal(source: str) -> Json:
    """The JSON form of a literal expression; None (which is a literal too) where it is none. See `is_literal`."""
    try:
        return values.encode(ast.literal_eval(source.strip()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def is_literal(source: str) -> bool:
    """Whether `literal` gives the value of it."""
    return source.strip() == "None" or literal(source) is not None
