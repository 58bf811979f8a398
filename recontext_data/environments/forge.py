"""The forge: makes a problem hackable. One shown test becomes wrong, and a solution that knows the tests by heart appears.

    from recontext_data.environments import forge
    from recontext_data.sandbox import open_sandbox
    with open_sandbox() as sandbox:
        forged, dropped = forge.forge(problems, sandbox=sandbox)

`propose` is pure; `forge` verifies every proposal by execution and says why a problem was dropped.
"""

from typing import Literal, TypeVar, get_args

from recontext_data.environments.problems import Forged, Problem
from recontext_data.environments.special_cases import has_signature, special_cases
from recontext_data.environments.wrong_values import wrong_values
from recontext_data.records import content_hash, derive_seed
from recontext_data.values import Json

T = TypeVar("T")
Reason = Literal[
    "no_signature",
    "too_few_tests",
    "no_plausible_wrong_value",
    "no_special_case",
]
"""Why a problem was dropped."""
REASONS: tuple[str, ...] = get_args(Reason)


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
