"""HumanEval (Chen et al. 2021), from the Hub or a local copy, as problems whose tests are calls and expected values.

    problems = humaneval.load("openai/openai_humaneval")            164 problems
    problems = humaneval.load("humaneval.jsonl")

Its tests are functions `check(candidate)`, made to run beside the solution, where a solution can forge what they find. Here
each is run once, in the sandbox, on the reference, and every call that it makes of it is written down: arguments, and the
value that has passed the check. Those are the tests; a solution is only ever asked for values, which are compared outside.

Not kept is that HumanEval/32 takes any zero of a polynomial: here it must be the reference's, within the tolerance.
"""

import ast
from collections.abc import Sequence

from recontext_data.core import values
from recontext_data.core.errors import DataError
from recontext_data.core.values import Json
from recontext_data.environments import asserts
from recontext_data.environments.mbpp_rows import MbppRow, read_rows, unique
from recontext_data.environments.problems import Problem, Test
from recontext_data.sandbox import Call, SandboxJob, SandboxOutcome, open_sandbox

NUM_PUBLIC = 3
TIMEOUT_SECONDS = 30.0
_RECORDER = """
def recorded_calls():
    import copy
    calls = []
    def candidate(*arguments):
        before = copy.deepcopy(arguments)
        value = {entry_point}(*arguments)
        calls.append((before, copy.deepcopy(value)))
        return value
    check(candidate)
    return calls
"""


def load(source: str) -> list[Problem]:
    """The problems of HumanEval, in the order of the source. All are of the split `test`.

    Args:
        source: a path (.jsonl, .json, .parquet) or a Hub id.

    Raises:
        DataError: the file or data set is missing or malformed, an id stands twice, or a reference fails its check.
        SandboxMissing: there is no sandbox to run the checks in.
    """
    rows = unique(read_rows(source), _task_id)
    with open_sandbox() as sandbox:
        outcomes = sandbox.run([_job(row) for row in rows.values()])
    return [_problem(task_id, row, outcome) for (task_id, row), outcome in zip(rows.items(), outcomes, strict=True)]


def _task_id(row: MbppRow) -> str:
    """HumanEval says "HumanEval/0": here it is "0"."""
    return row.text("task_id").strip().rpartition("/")[2]


def _job(row: MbppRow) -> SandboxJob:
    recorder = _RECORDER.replace("{entry_point}", row.text("entry_point"))
    source = "\n".join([row.text("prompt") + row.text("canonical_solution"), row.text("test"), recorder])
    return SandboxJob(source=source, calls=[Call(expression="recorded_calls()")], timeout_seconds=TIMEOUT_SECONDS)


def _problem(task_id: str, row: MbppRow, outcome: SandboxOutcome) -> Problem:
    try:
        tests = [_test(call) for call in outcome.value(0)]
    except LookupError as error:
        raise DataError(f"{row.place}: test: the reference fails its check ({error}); download the file again") from None
    unequal = {values.source(test.arguments): test for test in reversed(tests)}
    tests = list(reversed(unequal.values()))
    prompt, entry_point = row.text("prompt"), row.text("entry_point")
    return Problem(
        problem_id=f"humaneval/{task_id}",
        split="test",
        statement=prompt.strip("\n"),
        entry_point=entry_point,
        reference=(prompt + row.text("canonical_solution")).strip("\n") + "\n",
        setup=_before(prompt, entry_point),
        public_tests=tests[:NUM_PUBLIC],
        hidden_tests=tests,
        tolerance=tolerance(row.text("test")),
    )


def _test(call: Json) -> Test:
    arguments, value = call["tuple"]
    return Test(arguments=arguments["tuple"], expected=value)


def _before(prompt: str, entry_point: str) -> str:
    """What the prompt defines before the function that is asked for: imports and helpers, which any solution may use."""
    body = asserts.parse(prompt + "\n    pass\n").body
    lines = prompt.split("\n")
    kept: list[str] = []
    for node in body:
        if not (isinstance(node, ast.FunctionDef) and node.name == entry_point):
            kept += lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(kept)


def tolerance(test: str) -> float:
    """The largest that a check grants: the bound in `abs(candidate(x) - y) < 1e-6`, in whatever form; 0 where there is none."""
    bounds: Sequence[float] = [
        float(bound.value)
        for node in ast.walk(asserts.parse(test))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Lt, ast.LtE)) and "abs(" in ast.unparse(node.left)
        for bound in node.comparators
        if isinstance(bound, ast.Constant) and isinstance(bound.value, (int, float))
    ]
    return max(bounds, default=0.0)
