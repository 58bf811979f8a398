"""MBPP (Austin et al. 2021) and MBPP+ (EvalPlus), from the Hub or a local copy, as problems with executable tests.

    problems = mbpp.load("google-research-datasets/mbpp")                    974 problems, their own tests
    problems = mbpp.load("mbpp.jsonl", plus="mbpp_plus.jsonl")               399 of them with about a hundred more each

The official splits go by task id: 1-10 prompt (few-shot examples), 11-510 test, 511-600 validation, 601-974 train. With MBPP+,
its wording, its corrected solution and its asserts replace MBPP's; what its inputs must give is what that solution gives.
Code runs in the sandbox only, and only where a test is no literal or MBPP+ is asked for.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recontext_data.core.errors import DataError
from recontext_data.environments import asserts
from recontext_data.environments.asserts import Draft
from recontext_data.environments.mbpp_plus import more_tests
from recontext_data.environments.mbpp_rows import MbppRow, read_rows, unique
from recontext_data.environments.problems import Problem, Test
from recontext_data.sandbox import Call, Sandbox, SandboxJob, SandboxOutcome, open_sandbox

NUM_PUBLIC = 3
SPLITS = (("prompt", 1, 10), ("test", 11, 510), ("validation", 511, 600), ("train", 601, 974))
"""Official splits: name, first and last task id."""
TIMEOUT_SECONDS = 20.0


def load(source: str, *, plus: str | None = None) -> list[Problem]:
    """The problems of MBPP, in the order of the source.

    Args:
        source: a path (.jsonl, .json, .parquet) or a Hub id.
        plus: MBPP+ likewise, for more hidden tests; problems that it lacks stay as they are.

    Raises:
        DataError: the file or data set is missing, malformed, empty, or has an id twice; place and fix are named.
        SandboxMissing: something must be evaluated and there is no sandbox.
    """
    rows = unique(read_rows(source), _task_id)
    more = unique(read_rows(plus), _task_id) if plus is not None else {}
    drafted = [_read(task_id, row, more.get(task_id)) for task_id, row in rows.items()]
    jobs = {i: problem.job() for i, problem in enumerate(drafted) if problem.open_expressions()}
    if not jobs and not more:
        return [problem.finished(None) for problem in drafted]
    with open_sandbox() as sandbox:
        outcomes = dict(zip(jobs, sandbox.run(list(jobs.values())), strict=True))
        problems = [problem.finished(outcomes.get(i)) for i, problem in enumerate(drafted)]
        return _with_plus(problems, [problem.plus for problem in drafted], sandbox)


def _with_plus(problems: list[Problem], rows: Sequence[MbppRow | None], sandbox: Sandbox) -> list[Problem]:
    chosen = [i for i, row in enumerate(rows) if row is not None]
    pairs = [(problems[i], row) for i, row in enumerate(rows) if row is not None]
    for i, tests in zip(chosen, more_tests(pairs, sandbox=sandbox), strict=True):
        problems[i] = problems[i].model_copy(update={"hidden_tests": [*problems[i].hidden_tests, *tests]})
    return problems


def _task_id(row: MbppRow) -> str:
    """MBPP says 601, MBPP+ says "Mbpp/601": both are "601"."""
    value = row.columns.get("task_id")
    if value is None or isinstance(value, (bool, float)) or not str(value).strip():
        raise DataError(f"{row.place}: task_id: {value!r}; a number such as 601 or a text such as 'Mbpp/601' is wanted")
    return str(value).strip().rpartition("/")[2]


def split_of(task_id: str) -> str:
    """The official split of a task id; `train` for ids that MBPP does not have."""
    number = int(task_id) if task_id.isdecimal() else 0
    return next((name for name, first, last in SPLITS if first <= number <= last), "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drafted:
    """A problem as far as it can be read without running anything."""

    row: MbppRow
    plus: MbppRow | None
    task_id: str
    statement: str
    entry_point: str
    reference: str
    setup: str
    tests: Sequence[Draft]

    def open_expressions(self) -> list[str]:
        """What only the reference can evaluate."""
        found: dict[str, None] = {}
        for draft in self.tests:
            if draft.truthy is not None:
                found[draft.call] = None
            for source in (*(draft.arguments or ()), draft.expected):
                if not asserts.is_literal(source):
                    found[source] = None
        return list(found)

    def job(self) -> SandboxJob:
        calls = [Call(expression=source) for source in self.open_expressions()]
        return SandboxJob(source=f"{self.setup}\n{self.reference}", calls=calls, timeout_seconds=TIMEOUT_SECONDS)

    def finished(self, outcome: SandboxOutcome | None) -> Problem:
        """The problem, with what the sandbox found."""
        known: dict[str, Any] = {}
        if outcome is not None:
            results = zip(self.open_expressions(), outcome.results, strict=False)
            known = {source: result.value for source, result in results if result.error is None}
        tests = [self._test(draft, known) for draft in self.tests]
        return Problem(
            problem_id=f"mbpp/{self.task_id}",
            split=split_of(self.task_id),
            statement=self.statement,
            entry_point=self.entry_point,
            reference=self.reference,
            setup=self.setup,
            public_tests=tests[:NUM_PUBLIC],
            hidden_tests=tests,
            tolerance=max([draft.tolerance for draft in self.tests] + [self._plus_tolerance()]),
        )

    def _test(self, draft: Draft, known: dict[str, Any]) -> Test:
        if draft.truthy is not None and not isinstance(known.get(draft.call), bool):
            return Test(call=f"bool({draft.call})", expected=draft.truthy)
        if draft.expected not in known and not asserts.is_literal(draft.expected):
            raise DataError(f"{self.row.place}: test_list: {draft.expected[:60]!r} cannot be evaluated; write the value itself")
        expected = known.get(draft.expected, asserts.literal(draft.expected))
        arguments = draft.arguments
        if arguments is None or not all(a in known or asserts.is_literal(a) for a in arguments):
            return Test(call=draft.call, expected=expected)
        return Test(arguments=[known.get(a, asserts.literal(a)) for a in arguments], expected=expected)

    def _plus_tolerance(self) -> float:
        value = self.plus.columns.get("atol", 0) if self.plus is not None else 0
        return float(value) if isinstance(value, (int, float)) else 0.0


def _read(task_id: str, row: MbppRow, plus: MbppRow | None) -> _Drafted:
    texts = [*row.texts("test_list"), *row.texts("challenge_test_list", optional=True)]
    imports = row.texts("test_imports", optional=True)
    setup = row.text("test_setup_code") if "test_setup_code" in row.columns else ""
    place = row.place
    try:
        name = asserts.entry_point(row.text("code"), texts)
        drafts, preludes = asserts.separate([asserts.read_assert(text, name) for text in texts])
        code, statement = row.text("code"), row.text("text", "prompt").strip()
        if plus is not None:
            place = plus.place
            code, statement = plus.text("canonical_solution", "code"), _unquoted(plus.text("prompt"))
            name, drafts = _plus_drafts(plus, code)
    except DataError as error:
        raise error if str(error).startswith(place) else DataError(f"{place}: {error}") from None
    setup = "\n".join(part for part in (*imports, setup.strip("\n"), preludes) if part.strip())
    drafted = _Drafted(
        row=row,
        plus=plus,
        task_id=task_id,
        statement=statement,
        entry_point=name,
        reference=code.strip("\n") + "\n",
        setup=setup,
        tests=drafts,
    )
    return _moved(drafted)


def _plus_drafts(plus: MbppRow, code: str) -> tuple[str, list[Draft]]:
    """MBPP+'s name of the function and its asserts: a block in EvalPlus' own file, a list in `test_list` on the Hub."""
    if "assertion" in plus.columns:
        block = plus.text("assertion")
        name = asserts.entry_point(code, [block])
        return name, asserts.read_asserts(block, name)
    texts = plus.texts("test_list")
    name = asserts.entry_point(code, texts)
    return name, [asserts.read_assert(text, name) for text in texts]


def _unquoted(prompt: str) -> str:
    """MBPP+ wraps its prompts in triple quotes."""
    return re.sub(r"^\s*(\"\"\"|''')\s*|\s*(\"\"\"|''')\s*$", "", prompt).strip()


def _moved(problem: _Drafted) -> _Drafted:
    """Moves what the setup and the tests build their arguments from (MBPP's Node, Pair) from the reference into the setup.

    The setup runs before a solution, and any solution must be able to take such arguments, not the reference alone.
    """
    sources = [problem.setup, *(draft.call for draft in problem.tests)]
    used = {node.id for source in sources for node in ast.walk(asserts.parse(source)) if isinstance(node, ast.Name)}
    lines = problem.reference.split("\n")
    imports: list[str] = []
    moved: list[str] = []
    rest = list(lines)
    for node in asserts.parse(problem.reference).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        span = lines[first : node.end_lineno]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += span
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name in used - {problem.entry_point}:
            moved += span
            rest[first : node.end_lineno] = [""] * len(span)
    if not moved:
        return problem
    reference = re.sub(r"\n{3,}", "\n\n", "\n".join(rest)).strip("\n") + "\n"
    setup = "\n".join([*imports, *moved, *([problem.setup] if problem.setup else [])])
    return replace(problem, reference=reference, setup=setup)
