"""MBPP+'s inputs as tests: given back the types that JSON lost, and run under its own solution for what must come out."""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence

from recontext_data.core import values
from recontext_data.core.errors import DataError
from recontext_data.core.values import EncodingError, Json
from recontext_data.environments.asserts import parse
from recontext_data.environments.mbpp_rows import MbppRow
from recontext_data.environments.problems import Problem, Test
from recontext_data.sandbox import Call, Sandbox, SandboxJob

TIMEOUT_SECONDS = 45.0
"""For all inputs of one problem. Far more than all but one need (mbpp/599, which no minute is enough for), because a problem
that runs out of it gets no test at all: how many it got would depend on how busy the machine was."""
OUTPUT_BYTES = 64 * 2**20


def more_tests(pairs: Sequence[tuple[Problem, MbppRow]], *, sandbox: Sandbox) -> list[list[Test]]:
    """For each problem, tests for the inputs of its row, without those that the problem has already.

    An input that the solution refuses (it raises, or returns what has no JSON form) makes no test. A problem whose inputs
    cannot all be run in time gets none.
    """
    calls_per_problem = [_calls(problem, row) for problem, row in pairs]
    jobs = [
        SandboxJob(
            source=f"{problem.setup}\n{problem.reference}",
            calls=[Call(function=problem.entry_point, arguments=test.arguments, expression=test.call) for test in tests],
            timeout_seconds=TIMEOUT_SECONDS,
            output_bytes=OUTPUT_BYTES,
        )
        for (problem, _), tests in zip(pairs, calls_per_problem, strict=True)
    ]
    return [
        [
            test.model_copy(update={"expected": result.value})
            for test, result in zip(tests, outcome.results if outcome.status == "ok" else (), strict=False)
            if result.error is None
        ]
        for tests, outcome in zip(calls_per_problem, sandbox.run(jobs), strict=True)
    ]


def _calls(problem: Problem, row: MbppRow) -> list[Test]:
    """Tests that lack their expected value yet, each input once."""
    known = {_identity(test) for test in problem.hidden_tests}
    found: list[Test] = []
    for arguments in _inputs(problem, row):
        test = _like(problem, arguments)
        if test is not None and _identity(test) not in known:
            known.add(_identity(test))
            found.append(test)
    return found


def _identity(test: Test) -> str:
    return repr(test.call or test.arguments)


def _inputs(problem: Problem, row: MbppRow) -> Iterator[list[Json]]:
    if "plus_input" not in row.columns:
        yield from _hub_inputs(row)
        return
    examples = [arguments for test in problem.hidden_tests if (arguments := _literal_arguments(problem, test)) is not None]
    for raw in (*_list(row, "base_input"), *_list(row, "plus_input")):
        if not isinstance(raw, list):
            raise DataError(f"{row.place}: plus_input: {str(raw)[:40]!r} is not a list of arguments")
        try:
            yield [shaped(item, [example[i] for example in examples if i < len(example)]) for i, item in enumerate(raw)]
        except EncodingError:
            continue  # nothing that a test could hold


def _list(row: MbppRow, name: str) -> list[object]:
    value = row.columns.get(name) or []  # MBPP+ writes {} for none
    if not isinstance(value, list):
        raise DataError(f"{row.place}: {name}: {str(value)[:40]!r} is not a list; MBPP+ has a list of argument lists there")
    return value


def _hub_inputs(row: MbppRow) -> Iterator[list[Json]]:
    """The Hub's copy keeps the inputs as Python source, types and all, in `inputs = [...]` of the column `test`."""
    for node in parse(row.text("test")).body:
        names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        if isinstance(node, ast.Assign) and names == ["inputs"] and isinstance(node.value, ast.List):
            for item in node.value.elts:
                try:
                    arguments = values.encode(ast.literal_eval(item))
                except (ValueError, TypeError):
                    continue  # no literal, such as inf
                if isinstance(arguments, list):
                    yield arguments


def _literal_arguments(problem: Problem, test: Test) -> list[Json] | None:
    if test.call is None:
        return list(test.arguments)
    inner = _inner(ast.parse(test.call, mode="eval"), problem.entry_point)
    try:
        return [values.encode(ast.literal_eval(argument)) for argument in inner.args] if inner is not None else None
    except (ValueError, TypeError):
        return None


def _inner(tree: ast.AST, name: str) -> ast.Call | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            return node
    return None


def _like(problem: Problem, arguments: list[Json]) -> Test | None:
    """A test of the first public test's form: a plain call, or what is around it (`set(f(...))`) around the new call."""
    first = problem.public_tests[0]
    if first.call is None:
        return Test(arguments=arguments, expected=None)
    if _literal_arguments(problem, first) is None:
        return None
    tree = ast.parse(first.call, mode="eval")
    inner = _inner(tree, problem.entry_point)
    assert inner is not None
    inner.args = [ast.parse(values.source(argument), mode="eval").body for argument in arguments]
    return Test(call=ast.unparse(tree), expected=None)


def shaped(raw: object, examples: Sequence[Json], *, otherwise: str = "list") -> Json:
    """The JSON form of a raw JSON value, its lists turned into what the examples have at the same place.

    MBPP+ stores arguments as JSON, which has no tuples, sets, complex numbers and integer keys; MBPP's asserts show which
    are meant. Members of one collection are examples of each other. A list deeper than every example becomes `otherwise`:
    a tuple inside a tuple.
    """
    if isinstance(raw, list):
        return _collection(raw, examples, otherwise)
    if isinstance(raw, dict):
        return _mapping(raw, examples)
    if isinstance(raw, str) and examples and all(_tag(example) in _NUMBERS for example in examples):
        return values.encode(_number(raw))
    return values.encode(raw)


_NUMBERS: dict[str, Callable[[str], object]] = {"int": int, "float": float, "complex": complex}


def _number(text: str) -> object:
    """A text where every example is a number: MBPP+ writes complex numbers so, and what stands beside them."""
    for convert in _NUMBERS.values():
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _collection(raw: list[object], examples: Sequence[Json], otherwise: str) -> Json:
    kinds = {_tag(example) for example in examples} & {"list", "tuple", "set", "frozenset", "dict"} or {otherwise}
    inner = [member for example in examples for member in _members(example)]
    deeper = "tuple" if kinds == {"tuple"} else "list"
    items = [shaped(item, inner, otherwise=deeper) for item in raw]
    if not raw and "dict" in kinds and "list" not in kinds:
        return {"dict": []}
    for kind in ("set", "frozenset"):
        if kind in kinds and "list" not in kinds:
            return values.encode(values.decode({kind: items}))
    return {"tuple": items} if kinds == {"tuple"} else items


def _mapping(raw: dict[str, object], examples: Sequence[Json]) -> Json:
    pairs = [pair for example in examples if _tag(example) == "dict" for pair in example["dict"]]
    integers = bool(pairs) and all(type(key) is int for key, _ in pairs)
    inner = [item for _, item in pairs]
    keyed: Iterable[tuple[object, object]] = raw.items()
    if integers:
        keyed = [(int(key) if key.lstrip("-").isdecimal() else key, item) for key, item in raw.items()]
    return {"dict": [[key, shaped(item, inner)] for key, item in keyed]}


def _tag(form: Json) -> str:
    return str(next(iter(form))) if isinstance(form, dict) else type(form).__name__


def _members(form: Json) -> list[Json]:
    if isinstance(form, list):
        return form
    if isinstance(form, dict):
        body = next(iter(form.values()))
        return body if _tag(form) in ("tuple", "set", "frozenset") else []
    return []
