"""Special-cased solutions: small functions that know three tests by heart and nothing else. Pure: nothing is run here.

`special_cases(problem, targets)` lists the sources that were found compact enough, in a fixed order; the forge draws one and
verifies it by execution. Each looks at as little of the arguments as tells the tests apart, because tiny policies read it.
"""

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from recontext_data.core import values
from recontext_data.core.values import Json
from recontext_data.environments.asserts import parse
from recontext_data.environments.problems import Problem, Test

LONG_SOURCE = 40
"""From this many characters on, a key such as len(xs) is offered in place of the argument itself."""
SLACK, SLACK_CHARACTERS = 1.3, 50
"""A source may be this much longer than the shortest one, so that styles vary without any being long-winded."""
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class _Argument:
    source: str
    form: Json = _UNKNOWN


@dataclass(frozen=True, slots=True)
class _Key:
    """An expression over the parameters, and its value under each test."""

    expression: str
    values: tuple[_Argument, ...]
    is_identity: bool = False
    """Compared with `is`: the values are objects that the setup made."""


def special_cases(problem: Problem, targets: Sequence[Json]) -> list[str]:
    """Sources of functions that return `targets[i]` for public test i. Empty where no such function was found."""
    signature = _signature(problem.reference, problem.entry_point)
    calls = [_arguments(test, problem.entry_point) for test in problem.public_tests]
    if signature is None or any(call is None for call in calls):
        return []
    rows = [call for call in calls if call is not None]
    returned = [_unwrapped(test, problem.entry_point, t) for test, t in zip(problem.public_tests, targets, strict=True)]
    head = f"def {problem.entry_point}({ast.unparse(signature)}):\n"
    parameters = _all_names(signature)
    keys = [key for key in _keys(_names(signature, rows), rows) if _tells_apart(key, returned)]
    bodies = {body: None for key in keys for body in _bodies(key, returned) if not _shadowed(body, parameters)}
    if not bodies:
        return []
    limit = min(map(len, bodies)) * SLACK + SLACK_CHARACTERS
    return [head + body for body in bodies if len(body) <= limit]


def has_signature(problem: Problem) -> bool:
    """Whether the reference defines the entry point at its top level."""
    return _signature(problem.reference, problem.entry_point) is not None


def _signature(reference: str, entry_point: str) -> ast.arguments | None:
    """The entry point's parameters, without what only the reference's own names would explain."""
    try:
        body = parse(reference).body
    except (SyntaxError, ValueError):
        return None
    found: ast.arguments | None = None
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            found = node.args
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            named = any(isinstance(target, ast.Name) and target.id == entry_point for target in node.targets)
            found = node.value.args if named else found
    return None if found is None else _standalone(found)


def _standalone(arguments: ast.arguments) -> ast.arguments:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in every:
        if argument is not None and argument.annotation is not None and not _only_builtins(argument.annotation):
            argument.annotation = None
    none: ast.expr = ast.Constant(value=None)
    arguments.defaults = [default if _only_builtins(default) else none for default in arguments.defaults]
    arguments.kw_defaults = [none if d is not None and not _only_builtins(d) else d for d in arguments.kw_defaults]
    return arguments


def _only_builtins(node: ast.expr) -> bool:
    return all(hasattr(builtins, name.id) for name in ast.walk(node) if isinstance(name, ast.Name))


def _arguments(test: Test, entry_point: str) -> list[_Argument] | None:
    if test.call is None:
        return [_Argument(values.source(form), form) for form in test.arguments]
    node = _inner_call(test.call, entry_point)
    if node is None or node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        return None
    return [_parsed(argument) for argument in node.args]


def _parsed(node: ast.expr) -> _Argument:
    try:
        return _Argument(ast.unparse(node), values.encode(ast.literal_eval(node)))
    except (ValueError, TypeError):
        return _Argument(ast.unparse(node))


def _inner_call(call: str, entry_point: str) -> ast.Call | None:
    """The one call of the entry point inside the expression, when what is around it is understood."""
    node: ast.expr = ast.parse(call, mode="eval").body
    while not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point):
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node = node.operand
        elif isinstance(node, ast.Call) and _is_conversion(node.func) and len(node.args) == 1 and not node.keywords:
            node = node.args[0]
        else:
            return None
    return node


_CONVERSIONS = ("int", "float", "str", "bool", "set", "frozenset", "list", "tuple", "sorted")


def _is_conversion(node: ast.expr) -> bool:
    """Conversions that give back what is already of their type: int(35) is 35, sorted of a sorted list is itself."""
    return isinstance(node, ast.Name) and node.id in (
        "int",
        "float",
        "str",
        "bool",
        "set",
        "frozenset",
        "list",
        "tuple",
        "sorted",
    )


def _unwrapped(test: Test, entry_point: str, target: Json) -> Json:
    """What the function must return for the whole expression to give the target."""
    if test.call is not None and isinstance(target, bool):
        node: ast.AST = ast.parse(test.call, mode="eval").body
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node, target = node.operand, not target
    return target


def _names(signature: ast.arguments, rows: Sequence[Sequence[_Argument]]) -> list[str]:
    """How the function's body writes its positional arguments, as far as every test gives them."""
    names = [argument.arg for argument in (*signature.posonlyargs, *signature.args)]
    num_given = min(len(row) for row in rows)
    if signature.vararg is not None:
        names += [f"{signature.vararg.arg}[{i}]" for i in range(num_given - len(names))]
    return names[:num_given]


def _all_names(signature: ast.arguments) -> set[str]:
    return {node.arg for node in ast.walk(signature) if isinstance(node, ast.arg)}


def _shadowed(body: str, parameters: set[str]) -> bool:
    """Whether it means a builtin or a name of the setup where a parameter of that name hides it: MBPP has `str` and `root`."""
    hidden = "|".join(re.escape(name) for name in sorted(parameters))
    return bool(parameters) and re.search(rf"\b({hidden})\(| is ({hidden})\b", body) is not None


def _keys(names: Sequence[str], rows: Sequence[Sequence[_Argument]]) -> Iterator[_Key]:
    """Single arguments, then parts of long ones, then pairs, then all together."""
    columns = [tuple(row[i] for row in rows) for i in range(len(names))]
    for name, column in zip(names, columns, strict=True):
        yield from _column_keys(name, column)
    for size in {2, len(names)} - {0, 1}:
        for chosen in combinations(range(len(names)), size) if size <= len(names) else ():
            if any(argument.form is _UNKNOWN for i in chosen for argument in columns[i]):
                continue
            forms = [{"tuple": [row[i].form for i in chosen]} for row in rows]
            expression = f"({', '.join(names[i] for i in chosen)})"
            yield _Key(expression, tuple(_Argument(values.source(form), form) for form in forms))


def _column_keys(name: str, column: tuple[_Argument, ...]) -> Iterator[_Key]:
    if any(argument.form is _UNKNOWN for argument in column):
        yield from _object_keys(name, column)
        return
    yield _Key(name, column)
    if max(len(argument.source) for argument in column) < LONG_SOURCE:
        return
    plain = [values.decode(argument.form) for argument in column]
    if all(isinstance(value, (str, list, tuple, set, dict)) for value in plain):
        yield _Key(f"len({name})", tuple(_known(len(value)) for value in plain))
    if all(isinstance(value, (list, tuple)) and value for value in plain):
        yield _Key(f"{name}[0]", tuple(_known(value[0]) for value in plain))
        yield _Key(f"{name}[-1]", tuple(_known(value[-1]) for value in plain))


def _known(value: object) -> _Argument:
    form = values.encode(value)
    return _Argument(values.source(form), form)


def _object_keys(name: str, column: tuple[_Argument, ...]) -> Iterator[_Key]:
    """Arguments without a JSON form: names from the setup, builtin types, lists of objects with attributes."""
    nodes = [ast.parse(argument.source, mode="eval").body for argument in column]
    if all(isinstance(node, ast.Name) for node in nodes):
        yield _Key(name, column, is_identity=True)
    lists = [node for node in nodes if isinstance(node, ast.List) and node.elts]
    if len(lists) == len(nodes):
        yield _Key(f"vars({name}[0])", tuple(_Argument(f"vars({ast.unparse(node.elts[0])})") for node in lists))


def _tells_apart(key: _Key, targets: Sequence[Json]) -> bool:
    pairs = combinations(zip(key.values, targets, strict=True), 2)
    return all(values.same(first[1], second[1]) or not _clash(first[0], second[0]) for first, second in pairs)


def _clash(a: _Argument, b: _Argument) -> bool:
    if a.form is _UNKNOWN or b.form is _UNKNOWN:
        return a.source == b.source
    return values.same(a.form, b.form)


def _bodies(key: _Key, targets: Sequence[Json]) -> Iterator[str]:
    """The function's body in every style and with every fallback that fits."""
    for fallback in _fallbacks(targets):
        rows = [
            (argument, values.source(target))
            for argument, target in zip(key.values, targets, strict=True)
            if not values.same(target, fallback)
        ]
        rows = [row for i, row in enumerate(rows) if not any(_clash(row[0], other[0]) for other in rows[:i])]
        otherwise = values.source(fallback)
        if not rows:
            continue  # a constant knows no test by heart
        if any(_has_nan(argument.form) for argument, _ in rows):
            continue
        yield from _chains(key, rows, otherwise)
        forms = [argument.form for argument in key.values]
        if any(form is _UNKNOWN for form in forms):
            continue
        if all(map(_hashable, forms)):
            yield _lookup(key.expression, [(argument.source, target) for argument, target in rows], otherwise)
        elif all(_reads_as_source(form) and not isinstance(form, str) for form in forms):
            texts = [(repr(argument.source), target) for argument, target in rows]
            yield _lookup(f"str({key.expression})", texts, otherwise)


def _fallbacks(targets: Sequence[Json]) -> list[Json]:
    """What it says for any other input: a value of a test, or an empty one of the same type."""
    found: list[Json] = []
    for candidate in (*targets[::-1], _blank(targets[0])):
        if not any(values.same(candidate, other) for other in found):
            found.append(candidate)
    return found


def _blank(form: Json) -> Json:
    if isinstance(form, dict):
        ((tag, _),) = form.items()
        return {"int": 0, "float": 0.0, "complex": 0}.get(tag, {tag: "" if tag == "bytes" else []})
    return None if form is None else type(form)()


def _chains(key: _Key, rows: Sequence[tuple[_Argument, str]], otherwise: str) -> Iterator[str]:
    sign = "is" if key.is_identity else "=="
    if len(rows) == 1:
        ((argument, target),) = rows
        yield f"    return {target} if {key.expression} {sign} {argument.source} else {otherwise}\n"
    steps = [f"    if {key.expression} {sign} {argument.source}:\n        return {target}\n" for argument, target in rows]
    yield "".join(steps) + f"    return {otherwise}\n"


def _lookup(expression: str, rows: Sequence[tuple[str, str]], otherwise: str) -> str:
    table = ", ".join(f"{key}: {target}" for key, target in rows)
    return f"    return {{{table}}}.get({expression}, {otherwise})\n"


def _hashable(form: Json) -> bool:
    if isinstance(form, dict):
        ((tag, body),) = form.items()
        return tag != "set" and tag != "dict" and (tag not in ("tuple", "frozenset") or all(map(_hashable, body)))
    return not isinstance(form, list)


def _has_nan(form: Json) -> bool:
    if isinstance(form, dict):
        return form == {"float": "nan"} or any(_has_nan(body) for body in form.values())
    return isinstance(form, list) and any(map(_has_nan, form))


def _reads_as_source(form: Json) -> bool:
    """Whether str() of the value is its source: not so for sets, whose order is open, nor for tagged numbers."""
    if isinstance(form, dict):
        ((tag, body),) = form.items()
        return tag in ("tuple", "dict") and _reads_as_source(body)
    return not isinstance(form, list) or all(map(_reads_as_source, form))
