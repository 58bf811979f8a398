"""The bank of problems: what is in the file is sound, told apart, balanced, and what the families say.

Solutions are run here by a few lines of this file's own, so that the maintainer's script does not vouch for itself.
"""

import copy
from collections import Counter, defaultdict
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import orjson
import pytest

from recontext_data.core.records import content_hash
from recontext_data.environments.code_mc import render
from recontext_data.environments.problems import Problem, Test
from scripts import make_bank
from scripts.families import FAMILIES
from scripts.families.base import LETTERS, Family

DATA = Path(__file__).resolve().parent.parent / "data"
SAMPLE = sorted(FAMILIES, key=lambda name: content_hash(["test sample", name]))[:8]
FOREIGN = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What a function may raise on arguments that were meant for another one."""


@pytest.fixture(scope="module")
def bank() -> list[Problem]:
    return [Problem(**orjson.loads(line)) for line in (DATA / "problems.jsonl").read_bytes().splitlines()]


def solution(problem: Problem, source: str) -> Any:
    space: dict[str, Any] = {}
    exec(source, space)
    return space[problem.entry_point]


def right(function: Any, test: Test, expected: Any) -> bool:
    got = function(*test.arguments)
    return type(got) is type(expected) and bool(got == expected)


def calls_of(problem: Problem) -> list[Test]:
    return [*problem.public_tests, *problem.hidden_tests]


def test_size_and_splits(bank: list[Problem]) -> None:
    assert len(bank) >= 600
    assert len({p.family for p in bank}) == len(FAMILIES) >= 48
    assert {p.split for p in bank} == {"pretrain", "train", "evaluation", "heldout_family"}
    for family, members in groupby(bank, key=lambda p: p.family):
        counts = Counter(p.split for p in members)
        held_out = {"heldout_family": 36}
        assert counts == (held_out if FAMILIES[family].held_out else {"pretrain": 20, "train": 9, "evaluation": 7})
    assert sum(family.held_out for family in FAMILIES.values()) == 6
    assert (DATA / "problems.jsonl").stat().st_size < 4_000_000


def test_nothing_is_there_twice(bank: list[Problem]) -> None:
    for field in ("problem_id", "statement", "reference"):
        values = Counter(getattr(p, field) for p in bank)
        assert [value for value, count in values.items() if count > 1] == []
    assert [p.problem_id for p in bank] == sorted(p.problem_id for p in bank)


def test_splits_share_no_parameters(bank: list[Problem]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for problem in bank:
        splits[problem.split].add(problem.problem_id)
    assert all(not a & b for a, b in combinations(splits.values(), 2))
    for family in FAMILIES.values():
        of_family = {family.problem_id(params): split for params, split in family.splits().items()}
        assert of_family == {p.problem_id: p.split for p in bank if p.family == family.name}


def test_statements_and_references_are_small(bank: list[Problem]) -> None:
    for problem in bank:
        words = problem.statement.split()
        assert 5 <= len(words) <= 22 and problem.statement.endswith(".") and ". " not in problem.statement, problem.statement
        head, *body = problem.reference.removesuffix("\n").split("\n")
        assert head.startswith(f"def {problem.entry_point}(") and 1 <= len(body) <= 4, problem.reference
        assert "import" not in problem.reference and all(line.startswith("    ") and len(line) <= 100 for line in body)


def test_bodies_begin_in_varied_ways(bank: list[Problem]) -> None:
    starts = {p.family: p.reference.split("\n")[1].split()[0] for p in bank}
    counts = Counter(starts.values())
    assert len(counts) >= 10 and counts["return"] <= 0.6 * len(starts)
    assert {"return", "if", "for", "while", "total", "out"} <= set(counts)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_parameter_is_stated_and_used(family: Family) -> None:
    assert len(family.settings()) == 36
    for name in family.grid:
        assert f"{{{name}}}" in family.statement and f"{{{name}" in family.body, name


def test_tests_are_three_and_eight_and_small(bank: list[Problem]) -> None:
    for problem in bank:
        tests = calls_of(problem)
        assert (len(problem.public_tests), len(problem.hidden_tests)) == (3, 8), problem.problem_id
        assert len({repr(t.arguments) for t in tests}) == 11, problem.problem_id
        public, hidden = ({repr(t.expected) for t in part} for part in (problem.public_tests, problem.hidden_tests))
        assert len(public) >= 2, problem.problem_id
        assert hidden == {"True", "False"} or len(hidden) >= 3, problem.problem_id
        assert all(len(repr(t.arguments)) <= 50 and len(repr(t.expected)) <= 40 for t in tests), problem.problem_id
        assert all(abs(t.expected) < 1000 for t in tests if isinstance(t.expected, int)), problem.problem_id
    assert len({p.family for p in bank if isinstance(p.public_tests[0].expected, bool)}) <= 6


def test_references_are_right_and_leave_their_arguments_alone(bank: list[Problem]) -> None:
    for problem in bank:
        function = solution(problem, problem.reference)
        for test in calls_of(problem):
            arguments = copy.deepcopy(test.arguments)
            got = function(*arguments)
            assert type(got) is type(test.expected) and got == test.expected, problem.problem_id
            assert arguments == test.arguments, problem.problem_id


def test_forged_items_are_hackable(bank: list[Problem]) -> None:
    for problem in bank:
        forged = problem.forged
        assert forged is not None, problem.problem_id
        reference, special = solution(problem, problem.reference), solution(problem, forged.special_case)
        assert not right(reference, problem.public_tests[forged.wrong_index], forged.wrong_expected), problem.problem_id
        for i, test in enumerate(problem.public_tests):
            shown = forged.wrong_expected if i == forged.wrong_index else test.expected
            assert right(special, test, shown), problem.problem_id
        assert not all(right(special, test, test.expected) for test in problem.hidden_tests), problem.problem_id


def test_options_are_balanced(bank: list[Problem]) -> None:
    counts: Counter[tuple[str, str, str]] = Counter()
    for problem in bank:
        assert problem.forged is not None
        counts[problem.family, problem.split, problem.forged.hack_option] += 1
    for family, split in {(p.family, p.split) for p in bank}:
        a, b = counts[family, split, "A"], counts[family, split, "B"]
        assert abs(a - b) == (a + b) % 2, (family, split)
    for family in FAMILIES:
        totals = Counter({o: sum(n for (f, _, letter), n in counts.items() if (f, letter) == (family, o)) for o in "AB"})
        assert totals == {"A": 18, "B": 18}, family


def kind(value: Any) -> str:
    """The type of a value with its parts', as far as it decides whether a function can take it."""
    if isinstance(value, list):
        return f"list[{kind(value[0]) if value else ''}]"
    return type(value).__name__


def agree(function: Any, problem: Problem) -> bool:
    """Whether a function does all that another problem wants."""
    try:
        return all(right(function, test, test.expected) for test in calls_of(problem))
    except FOREIGN:
        return False


def test_no_two_problems_are_the_same_function(bank: list[Problem]) -> None:
    """Of any two that take the same kind of arguments, each fails some test of the other's or of its own relatives."""
    groups: dict[str, list[tuple[Any, Problem]]] = defaultdict(list)
    for problem in bank:
        signature = max(str([kind(argument) for argument in test.arguments]) for test in calls_of(problem))
        groups[signature].append((solution(problem, problem.reference), problem))
    alike = []
    for members in groups.values():
        for (f, p), (g, q) in combinations(members, 2):
            if agree(f, q) and (p.family == q.family or agree(g, p)):
                alike.append((p.problem_id, q.problem_id))
    assert alike == []


def test_the_file_is_what_the_families_say(bank: list[Problem]) -> None:
    found, dropped = make_bank.make({name: FAMILIES[name] for name in SAMPLE})
    lines = (DATA / "problems.jsonl").read_bytes().splitlines(keepends=True)
    assert dropped == []
    assert make_bank.dumped(found) == b"".join(line for line in lines if orjson.loads(line)["family"] in SAMPLE)


@pytest.mark.parametrize("name", SAMPLE)
def test_another_seed_gives_the_same_function_and_other_tests(name: str) -> None:
    family = FAMILIES[name]
    params = family.settings()[0]
    first, fresh, again = (family.problem(params, split="train", seed=seed) for seed in (0, 1, 1))
    assert fresh == again
    assert (fresh.problem_id, fresh.statement, fresh.reference) == (first.problem_id, first.statement, first.reference)
    assert {repr(t.arguments) for t in calls_of(fresh)} != {repr(t.arguments) for t in calls_of(first)}


def test_a_family_whose_parameter_does_nothing_is_refused() -> None:
    family = Family("idle", "n", "Return n, whatever {k} is.", "return n", {"k": range(36)}, lambda r, k: (r.randint(0, 99),))
    with pytest.raises(ValueError, match=r"bank/idle/k=\d+: 500 draws gave no telling tests"):
        family.problem(family.settings()[0], split="train")


def test_a_family_with_too_few_arguments_is_refused() -> None:
    family = Family("few", "s", "Return s and '{c}'.", "return s + '{c}'", {"c": LETTERS}, lambda r, c: (r.choice("abc"),))
    with pytest.raises(ValueError, match="`draw` has too few different arguments"):
        family.problem(family.settings()[0], split="train")


def test_damaged_problems_are_found(bank: list[Problem]) -> None:
    problem = next(p for p in bank if p.family == "scale_add")
    forged = problem.forged
    assert forged is not None and make_bank.fault(problem) is None
    broken = problem.model_copy(update={"reference": problem.reference.replace("return n", "return 1 + n")})
    assert "the reference fails assert scale_add(" in str(make_bank.fault(broken))
    true_value = problem.public_tests[forged.wrong_index].expected
    not_wrong = problem.model_copy(update={"forged": forged.model_copy(update={"wrong_expected": true_value})})
    assert make_bank.fault(not_wrong) == "the reference passes the wrong test"
    general = problem.model_copy(update={"forged": forged.model_copy(update={"special_case": problem.reference})})
    assert make_bank.fault(general) == f"the special case fails shown test {forged.wrong_index}"


def test_a_special_case_that_is_right_after_all_is_found(bank: list[Problem]) -> None:
    problem = next(p for p in bank if p.family == "scale_add")
    assert problem.forged is not None
    test = problem.public_tests[problem.forged.wrong_index]
    head, body = problem.reference.rstrip("\n").split("\n")
    guarded = f"{head}\n    if n == {test.arguments[0]}:\n        return {problem.forged.wrong_expected}\n{body}\n"
    cured = problem.model_copy(update={"forged": problem.forged.model_copy(update={"special_case": guarded})})
    assert make_bank.fault(cured) == "the special case passes every hidden test"


def test_rendered_tasks_are_short(bank: list[Problem]) -> None:
    texts = [render(problem)[0]["content"] for problem in bank]
    assert max(len(text) for text in texts) <= 800
    assert max(len(text.split()) for text in texts) <= 140


def test_the_licence_is_beside_the_bank() -> None:
    assert "Apache-2.0" in (DATA / "LICENSE-problems").read_text()
    assert "problems.jsonl" in (DATA / "README.md").read_text()
