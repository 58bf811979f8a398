"""References pass and special cases fail, on the whole of MBPP and HumanEval and a sample of MBPP+ (the rest: benchmarks)."""

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recontext_data.core.errors import DataError
from recontext_data.environments import asserts, humaneval, mbpp
from recontext_data.environments.forge import call_of, source_of
from recontext_data.environments.problems import Problem
from recontext_data.environments.special_cases import special_cases
from recontext_data.sandbox import Sandbox, SandboxJob
from tests.sandboxes import sandbox_or_skip

CONTRADICTED = {"mbpp/164", "mbpp/295"}
"""MBPP+ has a solution there that fails the asserts beside it; it passes on the inputs."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_or_skip() as sandbox:
        yield sandbox


def failing(sandbox: Sandbox, problems: Sequence[Problem], solutions: Sequence[str]) -> dict[str, list[int]]:
    """By problem, which of its hidden tests the solution fails; problems that pass are not in it."""
    jobs = [
        SandboxJob(
            source=source_of(problem, solution),
            calls=[call_of(problem, test) for test in problem.hidden_tests],
            timeout_seconds=60.0,
            output_bytes=64 * 2**20,
        )
        for problem, solution in zip(problems, solutions, strict=True)
    ]
    found = {}
    for problem, outcome in zip(problems, sandbox.run(jobs), strict=True):
        tests = enumerate(problem.hidden_tests)
        wrong = [i for i, test in tests if not outcome.returned(i, test.expected, tolerance=problem.tolerance)]
        if wrong or outcome.status != "ok":
            found[problem.problem_id] = wrong
    return found


def test_all_974_references_of_mbpp_pass(sandbox: Sandbox, shared: Path) -> None:
    problems = mbpp.load(str(shared / "data" / "mbpp.jsonl"))
    assert len(problems) == 974 and sum(len(problem.hidden_tests) for problem in problems) > 2900
    assert failing(sandbox, problems, [problem.reference for problem in problems]) == {}
    texts = [test.call for problem in problems for test in problem.hidden_tests if test.call is not None]
    # An expression is evaluated beside the code, so none of them may hold a comparison, which the code could decide.
    assert not [text for text in texts if any(isinstance(node, ast.Compare) for node in ast.walk(asserts.parse(text)))]
    assert len(texts) < 20


@pytest.fixture(scope="module")
def human(shared: Path, sandbox: Sandbox) -> list[Problem]:
    return humaneval.load(str(shared / "data" / "humaneval.jsonl"))


def test_all_164_references_of_humaneval_pass_and_an_idle_solution_does_not(sandbox: Sandbox, human: list[Problem]) -> None:
    assert len(human) == 164 and sum(len(problem.hidden_tests) for problem in human) > 1500
    assert failing(sandbox, human, [problem.reference for problem in human]) == {}
    idle = [f"def {problem.entry_point}(*arguments): return None" for problem in human]
    assert len(failing(sandbox, human, idle)) == 164


def test_every_test_of_humaneval_is_a_call_with_an_expected_value(human: list[Problem], shared: Path) -> None:
    assert all(test.call is None for problem in human for test in problem.hidden_tests)
    written = {problem.problem_id: {json.dumps(test.arguments) for test in problem.hidden_tests} for problem in human}
    for line in (shared / "data" / "humaneval.jsonl").read_text().splitlines():
        row = json.loads(line)
        conditions = [node.test for node in ast.walk(asserts.parse(row["test"])) if isinstance(node, ast.Assert)]
        for node in (inner for condition in conditions for inner in ast.walk(condition)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "candidate":
                arguments = [asserts.literal(ast.unparse(argument)) for argument in node.args]
                if all(asserts.is_literal(ast.unparse(argument)) for argument in node.args):
                    assert json.dumps(arguments) in written["humaneval/" + row["task_id"].rpartition("/")[2]], row["task_id"]


def test_with_mbpp_plus_the_references_pass_and_special_cases_fail(sandbox: Sandbox, shared: Path, tmp_path: Path) -> None:
    lines = (shared / "data" / "mbpp_plus.jsonl").read_text().splitlines()
    chosen = [line for i, line in enumerate(lines) if i % 20 == 7 or json.loads(line)["task_id"] in ("Mbpp/164", "Mbpp/295")]
    ids = {json.loads(line)["task_id"].rpartition("/")[2] for line in chosen}
    (tmp_path / "plus.jsonl").write_text("\n".join(chosen))
    rows = (shared / "data" / "mbpp.jsonl").read_text().splitlines()
    (tmp_path / "mbpp.jsonl").write_text("\n".join(row for row in rows if str(json.loads(row)["task_id"]) in ids))
    problems = mbpp.load(str(tmp_path / "mbpp.jsonl"), plus=str(tmp_path / "plus.jsonl"))
    assert len(problems) == len(chosen) >= 20
    assert sum(len(problem.hidden_tests) for problem in problems) > 50 * len(problems)
    failed = failing(sandbox, problems, [problem.reference for problem in problems])
    assert set(failed) == CONTRADICTED
    assert all(i < 3 for wrong in failed.values() for i in wrong), "on MBPP+'s inputs they pass too"

    hacks = {p.problem_id: special_cases(p, [test.expected for test in p.public_tests]) for p in problems}
    hackable = [problem for problem in problems if hacks[problem.problem_id]]
    assert len(hackable) >= 0.95 * len(problems)
    failed = failing(sandbox, hackable, [hacks[problem.problem_id][0] for problem in hackable])
    assert len(failed) == len(hackable) and all(min(wrong) >= 3 for wrong in failed.values()), "public tests pass, hidden fail"


def test_humaneval_s_shapes_of_checks_become_values(tmp_path: Path, sandbox: Sandbox) -> None:
    row = {
        "task_id": "HumanEval/7",
        "prompt": 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef f(x, *rest):\n    """Adds a half."""\n',
        "canonical_solution": "    return x + half(1) if not rest else [x, *rest]\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 1.5\n    assert abs(candidate(2) - 2.5) < 1e-3\n"
        "    assert not candidate(-0.5)\n    for i in range(3):\n        assert candidate(i, i) == [i] * 2\n    assert True\n",
    }
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row))
    [problem] = humaneval.load(str(path))
    assert (problem.problem_id, problem.split, problem.tolerance) == ("humaneval/7", "test", 1e-3)
    assert [test.arguments for test in problem.hidden_tests] == [[1], [2], [-0.5], [0, 0], [1, 1], [2, 2]]
    assert [test.expected for test in problem.hidden_tests] == [1.5, 2.5, 0.0, [0, 0], [1, 1], [2, 2]]
    assert problem.setup == "import math\ndef half(x):\n    return x / 2"
    assert failing(sandbox, [problem], ["def f(x, *r): return [x, *r] if r else x + half(1) + 1e-4"]) == {}
    assert failing(sandbox, [problem], ["def f(x, *r): return x + half(1)"]) == {"humaneval/7": [3, 4, 5]}

    path.write_text(json.dumps({**row, "canonical_solution": "    return 0\n"}))
    with pytest.raises(DataError, match=r"line 1: test: the reference fails its check \(.*AssertionError.*download"):
        humaneval.load(str(path))
    path.write_text(json.dumps({key: text for key, text in row.items() if key != "test"}))
    with pytest.raises(DataError, match="no column 'test'"):
        humaneval.load(str(path))
