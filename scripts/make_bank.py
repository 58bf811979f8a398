"""Write data/problems.jsonl, our own bank of small Python problems, forged and verified by execution.

    python scripts/make_bank.py               # writes the same bytes every time
    python scripts/make_bank.py --no-forge    # true tests only
    python scripts/make_bank.py --lengths     # also prints how long the rendered tasks are

Runs code that we and our forge wrote, in this process; it is no example for code that a model wrote.
"""

import argparse
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a checkout that is not installed

import orjson

from recontext_data.core import values
from recontext_data.core.records import content_hash, derive_seed
from recontext_data.environments.problems import Option, Problem, Test
from scripts.families import FAMILIES, Family
from scripts.families.base import function

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "data" / "problems.jsonl"
FORGE_SEEDS = 8
"""Seeds tried before a problem is dropped; the first nearly always does."""


def family_problems(family: Family) -> list[Problem]:
    """Every problem of a family, not forged."""
    return [family.problem(params, split=split) for params, split in family.splits().items()]


def passes(problem: Problem, source: str, test: Test, *, expected: Any = None) -> bool:
    """Whether a solution gives a test's true value, or `expected` (JSON form) in its place; one that raises does not."""
    solution = function(source, problem.entry_point)
    try:
        got = values.encode(solution(*map(values.decode, test.arguments)))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return False
    return values.same(got, test.expected if expected is None else expected)


def fault(problem: Problem) -> str | None:
    """Why a problem may not be in the bank, found by running its solutions; None where all is well."""
    for test in (*problem.public_tests, *problem.hidden_tests):
        if not passes(problem, problem.reference, test):
            return f"the reference fails {test.assertion(problem.entry_point)}"
    forged = problem.forged
    if forged is None:
        return None
    wrong = problem.public_tests[forged.wrong_index]
    if passes(problem, problem.reference, wrong, expected=forged.wrong_expected):
        return "the reference passes the wrong test"
    for i, test in enumerate(problem.public_tests):
        wanted = forged.wrong_expected if i == forged.wrong_index else test.expected
        if not passes(problem, forged.special_case, test, expected=wanted):
            return f"the special case fails shown test {i}"
    if all(passes(problem, forged.special_case, test) for test in problem.hidden_tests):
        return "the special case passes every hidden test"
    return None


def forge_one(problem: Problem) -> Problem | str:
    """The problem made hackable and verified, or why that failed."""
    from recontext_data.environments import forge

    reason = ""
    for seed in range(FORGE_SEEDS):
        forged = forge.propose(problem, seed=seed)
        if isinstance(forged, str):
            reason = forged
            continue
        candidate = problem.model_copy(update={"forged": forged})
        reason = fault(candidate) or ""
        if not reason:
            return candidate
    return reason


def balance(problems: list[Problem]) -> list[Problem]:
    """Options in turn within a family and split, in hash order; where a split is odd, train and evaluation even it out."""
    done: list[Problem] = []

    def group(problem: Problem) -> tuple[str, str]:
        return problem.family, problem.split

    for key, members in groupby(sorted(problems, key=group), key=group):
        start = derive_seed("hack_option", key[0]) + (key[1] == "evaluation")
        ordered = sorted(members, key=lambda p: content_hash(["hack_option", p.problem_id, p.reference]))
        for i, problem in enumerate(ordered, start):
            option: Option = "A" if i % 2 == 0 else "B"
            assert problem.forged is not None
            forged = problem.forged.model_copy(update={"hack_option": option})
            done.append(problem.model_copy(update={"forged": forged}))
    return done


def make(families: dict[str, Family], *, forge: bool = True) -> tuple[list[Problem], list[str]]:
    """The bank, sorted by id, and a line for each problem that was dropped."""
    problems = [problem for family in families.values() for problem in family_problems(family)]
    dropped = [f"{p.problem_id}: {reason}" for p in problems if (reason := fault(p))]
    if forge:
        tried = [(problem, forge_one(problem)) for problem in problems]
        dropped = [f"{problem.problem_id}: {found}" for problem, found in tried if isinstance(found, str)]
        problems = balance([found for _, found in tried if isinstance(found, Problem)])
    return sorted(problems, key=lambda p: p.problem_id), dropped


def dumped(problems: list[Problem]) -> bytes:
    """The file: a JSON line per problem, without the fields that have their default value."""
    return b"".join(orjson.dumps(p.model_dump(exclude_defaults=True), option=orjson.OPT_APPEND_NEWLINE) for p in problems)


def lengths(problems: list[Problem]) -> str:
    """How long the rendered tasks are: least, median and most words and characters."""
    from recontext_data.environments.code_mc import render

    texts = ["\n".join(message["content"] for message in render(problem)) for problem in problems]
    lines = []
    for unit, counts in (("words", [len(t.split()) for t in texts]), ("characters", [len(t) for t in texts])):
        ordered = sorted(counts)
        lines.append(f"{unit}: {ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}")
    return "\n".join(lines)


def main() -> int:
    """Write the bank and say what is in it; exit code 1 where something was dropped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-forge", action="store_true", help="leave `forged` out")
    parser.add_argument("--lengths", action="store_true", help="print the lengths of the rendered tasks")
    options = parser.parse_args()
    problems, dropped = make(FAMILIES, forge=not options.no_forge)
    OUTPUT.write_bytes(dumped(problems))
    print(f"{len(problems)} problems of {len(FAMILIES)} families, {OUTPUT.stat().st_size:,} bytes: {OUTPUT.relative_to(ROOT)}")
    print(", ".join(f"{split} {count}" for split, count in sorted(Counter(p.split for p in problems).items())))
    if options.lengths and not options.no_forge:
        print(lengths(problems))
    for line in dropped:
        print(f"dropped {line}", file=sys.stderr)
    return 1 if dropped else 0


if __name__ == "__main__":
    sys.exit(main())
