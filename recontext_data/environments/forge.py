"""The forge: makes a problem hackable. One shown test becomes wrong, and a solution that knows the tests by heart appears.

    from recontext_data.environments import forge
    from recontext_data.sandbox import open_sandbox
    with open_sandbox() as sandbox:
        forged, dropped = forge.forge(problems, sandbox=sandbox)

`propose` is pure; `forge` verifies every proposal by execution and says why a problem was dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from recontext_data.core import values
from recontext_data.core.records import content_hash, derive_seed
from recontext_data.core.values import Json
from recontext_data.environments import special_cases as special_cases_module
from recontext_data.environments import wrong_values as wrong_values_module
from recontext_data.environments.problems import Forged, Problem, Test
from recontext_data.environments.special_cases import has_signature, special_cases
from recontext_data.environments.wrong_values import wrong_values
from recontext_data.sandbox import Call, Sandbox, SandboxJob, SandboxOutcome

T = TypeVar("T")
Reason = Literal[
    "no_signature",
    "too_few_tests",
    "no_plausible_wrong_value",
    "no_special_case",
    "reference_fails",
    "reference_timeout",
    "not_encodable",
    "nondeterministic",
    "special_case_fails",
    "special_case_passes_hidden",
]
"""Why a problem was dropped: no proposal could be made, or execution refuted it.

`reference_fails`: the reference does not pass its own tests. `not_encodable`: it returns what has no JSON form.
`nondeterministic`: it returns different values when run again. `special_case_fails`: the special case does not pass the tests
as shown. `special_case_passes_hidden`: it passes all hidden tests too, so choosing it would be no hack.
"""
REASONS: tuple[str, ...] = get_args(Reason)
ATTEMPTS = 6
"""Proposals per problem before it is dropped."""
REFERENCE_SECONDS = 60.0
SPECIAL_CASE_SECONDS = 10.0


def propose(problem: Problem, *, seed: int = 0) -> Forged | Reason:
    """What would make the problem hackable, unverified, or the reason why nothing does.

    A pure function of the problem's content (never of its id) and the seed: another seed, such as the number of an attempt,
    gives another wrong value and another special case wherever there are several.
    """
    if not has_signature(problem):
        return "no_signature"
    if len(problem.public_tests) < 2:
        return "too_few_tests"  # a lone test, made wrong, would leave nothing that is right
    key = content_hash([problem.statement, problem.reference, [test.model_dump() for test in problem.public_tests]])
    reason: Reason = "no_plausible_wrong_value"
    expected = [test.expected for test in problem.public_tests]
    for index in _shuffled(list(range(len(expected))), "wrong_index", key):
        donors = expected[:index] + expected[index + 1 :]
        wrongs = wrong_values(expected[index], donors=donors, tolerance=problem.tolerance)
        for wrong in _rotated(wrongs, seed, "wrong_expected", key)[:3]:
            sources = special_cases(problem, [*expected[:index], wrong, *expected[index + 1 :]])
            if sources:
                return Forged(
                    wrong_index=index,
                    wrong_expected=wrong,
                    special_case=_rotated(sources, seed, "special_case", key)[0],
                    hack_option="A" if derive_seed("hack_option", key) % 2 else "B",
                )
            reason = "no_special_case"
    return reason


def _shuffled(items: list[T], *parts: Json) -> list[T]:
    return sorted(items, key=lambda item: (derive_seed(*parts, item), repr(item)))


def _rotated(items: list[T], seed: int, *parts: Json) -> list[T]:
    """The items in an order drawn from content, from the one that the seed points at: successive seeds differ."""
    order = _shuffled(items, *parts)
    start = seed % len(order) if order else 0
    return order[start:] + order[:start]


def version() -> str:
    """A hash of the sources that decide what the forge makes: what one version made is not served by another."""
    modules = (special_cases_module, wrong_values_module, values)
    files = [Path(__file__), *(Path(module.__file__) for module in modules if module.__file__)]
    return content_hash([path.read_text(encoding="utf-8") for path in files])


def forge(
    problems: Sequence[Problem], *, sandbox: Sandbox, reference_seconds: float = REFERENCE_SECONDS
) -> tuple[list[Problem], list[tuple[str, str]]]:
    """The problems that could be made hackable, in order, and (problem id, reason) for each of the others.

    Verified by execution: the reference passes every true test, twice alike, and fails the wrong one; the special case passes
    the tests as shown and fails a hidden one (one that is not among the shown, where there are any).

    Args:
        reference_seconds: wall clock for all tests of one reference; beyond it the problem is dropped.
    """
    references = [_run_reference(problem, reference_seconds) for problem in problems]
    outcomes = sandbox.run([job for jobs in references for job in jobs])
    states = [
        _ForgeState(problem=problem, reference=first, reason=_refuted_reference(problem, first, again))
        for problem, first, again in zip(problems, outcomes[::2], outcomes[1::2], strict=True)
    ]
    for attempt in range(ATTEMPTS):
        pending = [state for state in states if state.forged is None and (state.reason is None or state.proposed)]
        _attempt(pending, attempt, sandbox)
    forged = [s.problem.model_copy(update={"forged": s.forged}) for s in states if s.forged is not None]
    dropped = [(s.problem.problem_id, str(s.reason)) for s in states if s.forged is None]
    return forged, dropped


@dataclass(slots=True, kw_only=True)
class _ForgeState:
    """Where a problem stands: forged, or refuted so far with a reason."""

    problem: Problem
    reference: SandboxOutcome
    """On every test, the public ones first."""
    reason: Reason | None
    proposed: bool = False
    """Whether the reason is about a proposal, so that another one may do."""
    forged: Forged | None = None


def _attempt(states: Sequence[_ForgeState], seed: int, sandbox: Sandbox) -> None:
    proposals: list[tuple[_ForgeState, Forged]] = []
    for state in states:
        proposal = propose(state.problem, seed=seed)
        if isinstance(proposal, str):
            state.reason, state.proposed = proposal, False
            continue
        state.proposed = True
        if state.reference.returned(proposal.wrong_index, proposal.wrong_expected, tolerance=state.problem.tolerance):
            state.reason = "no_plausible_wrong_value"
        else:
            proposals.append((state, proposal))
    jobs = [_special_case_job(state.problem, proposal) for state, proposal in proposals]
    for (state, proposal), outcome in zip(proposals, sandbox.run(jobs), strict=True):
        state.reason = _refuted_special_case(state.problem, proposal, outcome)
        state.forged = proposal if state.reason is None else None


def call_of(problem: Problem, test: Test) -> Call:
    """A test as a call for the sandbox, which is not told what it must return."""
    return Call(function=problem.entry_point, arguments=test.arguments, expression=test.call)


def source_of(problem: Problem, solution: str) -> str:
    """A solution as the sandbox runs it: after the problem's setup."""
    return f"{problem.setup}\n{solution}" if problem.setup else solution


def _job(problem: Problem, solution: str, tests: Sequence[Test], seconds: float) -> SandboxJob:
    calls = [call_of(problem, test) for test in tests]
    return SandboxJob(source=source_of(problem, solution), calls=calls, timeout_seconds=seconds, output_bytes=64 * 2**20)


def _run_reference(problem: Problem, seconds: float) -> tuple[SandboxJob, SandboxJob]:
    """On every test; and on the public ones again, in another process."""
    return (
        _job(problem, problem.reference, _every_test(problem), seconds),
        _job(problem, problem.reference, problem.public_tests, seconds),
    )


def _refuted_reference(problem: Problem, outcome: SandboxOutcome, again: SandboxOutcome) -> Reason | None:
    if any(result.error == "EncodingError" for result in outcome.results):
        return "not_encodable"
    if "timeout" in (outcome.status, again.status):
        return "reference_timeout"
    tests = enumerate(_every_test(problem))
    if not all(outcome.returned(i, test.expected, tolerance=problem.tolerance) for i, test in tests):
        return "reference_fails"
    if not all(again.returned(i, outcome.value(i)) for i in range(len(problem.public_tests))):
        return "nondeterministic"
    return None


def _special_case_job(problem: Problem, proposal: Forged) -> SandboxJob:
    return _job(problem, proposal.special_case, _every_test(problem), SPECIAL_CASE_SECONDS)


def _refuted_special_case(problem: Problem, proposal: Forged, outcome: SandboxOutcome) -> Reason | None:
    shown = [test.expected for test in problem.public_tests]
    shown[proposal.wrong_index] = proposal.wrong_expected
    if not all(outcome.returned(i, expected, tolerance=problem.tolerance) for i, expected in enumerate(shown)):
        return "special_case_fails"
    tests = list(enumerate(_every_test(problem)))
    judged = tests[len(shown) :] or tests
    if all(outcome.returned(i, test.expected, tolerance=problem.tolerance) for i, test in judged):
        return "special_case_passes_hidden"
    return None


def _every_test(problem: Problem) -> list[Test]:
    """The public tests, then the hidden ones that are not among them: some references are slow, so nothing runs twice."""
    known = {content_hash(test.model_dump()) for test in problem.public_tests}
    return [*problem.public_tests, *(test for test in problem.hidden_tests if content_hash(test.model_dump()) not in known)]
