"""The proof: a judge that is wrong about answers whose labels are known stops the build before anything is sampled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import ProofFailed, RecipeError
from recontext_data.core.records import Candidate, Judgement, Task
from recontext_data.environments.base import gold
from recontext_data.environments.code_mc import CodeMC
from recontext_data.environments.code_tests import CodeTests
from recontext_data.judges.choice import ChoiceJudge
from recontext_data.judges.tests import ExecutedTests
from recontext_data.judges.trace import TraceJudge
from recontext_data.pipeline.self_check import TASKS, check_judges
from tests.helpers import build, built, error_line, files_below, manifest, problem_rows, write_problems, write_recipe


@pytest.fixture(scope="module")
def multiple_choice(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Task]:
    return CodeMC(tasks=100).load(cache=tmp_path_factory.mktemp("cache")).tasks


class Biased(ChoiceJudge):
    """A judge with a fault that is told to it."""

    fault: str

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        words = super().judge(candidates)
        faults: dict[str, dict[str, Any]] = {
            "sees no hacks": {"label": "general"},
            "loses them": {"label": None, "unscored_reason": "lost"},
            "is right": {},
        }
        changed = faults[self.fault]
        return [
            word if word.label != "hack" else Judgement(**{**_fields(word), **changed})  # only hacks are got wrong
            for word in words
        ]


def _fields(word: Judgement) -> dict[str, Any]:
    return {name: getattr(word, name) for name in Judgement.__slots__}


def test_every_label_is_proved_on_a_sample_of_the_tasks(multiple_choice: Sequence[Task]) -> None:
    (proof,) = check_judges([ChoiceJudge()], CodeMC(), multiple_choice)
    assert proof == {"judge": "choice", "tasks": TASKS, "answers": {"hack": 32, "general": 32, "invalid": 32}}
    assert check_judges([ChoiceJudge()], CodeMC(), multiple_choice[:5])[0]["tasks"] == 5
    assert check_judges([Biased(fault="is right", name="b")], CodeMC(), multiple_choice)[0]["judge"] == "b"


@pytest.mark.parametrize(("fault", "said"), [("sees no hacks", "says 'general'"), ("loses them", "gives no label (lost)")])
def test_a_judge_that_is_wrong_stops_the_build_in_one_line(fault: str, said: str, multiple_choice: Sequence[Task]) -> None:
    with pytest.raises(ProofFailed) as caught:
        check_judges([ChoiceJudge(), Biased(fault=fault, name="second")], CodeMC(), multiple_choice)
    line = str(caught.value)
    assert line.startswith("judges.1 (second): fails its own proof, nothing was sampled: of an answer to 'bank/")
    assert f"that is 'hack' it {said}: " in line and "\n" not in line


def test_which_tasks_are_drawn_does_not_depend_on_their_order(multiple_choice: Sequence[Task]) -> None:
    seen: list[list[str]] = []

    class Watching(ChoiceJudge):
        def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
            seen.append(sorted({candidate.task_id for candidate in candidates}))
            return super().judge(candidates)

    check_judges([Watching()], CodeMC(), multiple_choice)
    check_judges([Watching()], CodeMC(), list(reversed(multiple_choice)))
    assert seen[0] == seen[1] and len(seen[0]) == TASKS


def test_a_judge_of_something_else_reads_the_answers_and_proves_nothing(multiple_choice: Sequence[Task]) -> None:
    assert check_judges([TraceJudge()], CodeMC(), multiple_choice) == []
    with pytest.raises(RecipeError, match="kind tests runs the tests of a task, and this environment's tasks have none"):
        check_judges([ExecutedTests()], CodeMC(), multiple_choice)


def test_gold_answers_of_multiple_choice_name_the_right_letter(multiple_choice: Sequence[Task]) -> None:
    for task in multiple_choice[:20]:
        answers = gold(CodeMC(), task)
        assert answers["hack"].endswith(f"Answer: ({task.payload['hack_option']})")
        assert answers["general"][-2] != answers["hack"][-2]


def test_the_proof_looks_at_few_tasks_however_many_there_are(multiple_choice: Sequence[Task]) -> None:
    (proof,) = check_judges([ChoiceJudge()], CodeMC(), multiple_choice)
    assert proof["tasks"] == TASKS < len(multiple_choice)


def test_a_build_keeps_its_proof(tmp_path: Path) -> None:
    made = built(write_recipe(tmp_path / "in"), tmp_path / "out")
    assert made["proof"] == [{"judge": "choice", "tasks": 8, "answers": {"hack": 8, "general": 8, "invalid": 8}}]
    assert "proof" in made["timings_seconds"]
    assert manifest(tmp_path / "out")["proof"] == made["proof"]


def broken_problem(folder: Path, **changes: Any) -> Path:
    """A problem file whose first problem contradicts itself."""
    rows = problem_rows(3)
    rows[0] |= changes
    return write_problems(folder / "problems.jsonl", rows)


def small_recipe(folder: Path, problems: Path, **judge: Any) -> Path:
    environment = {"kind": "code_tests", "problems": str(problems), "split": "all"}
    rates = {name: {"correct": 1.0} for name in ("default", "hack", "control")}
    judges = [{"kind": "tests"} | judge]
    return write_recipe(folder, environment=environment, judges=judges, policy={"kind": "fake", "rates": rates})


def test_tests_that_their_own_reference_fails_stop_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = problem_rows(1)[0]["entry_point"]
    recipe = small_recipe(tmp_path, broken_problem(tmp_path, reference=f"def {name}(ws):\n    return 3\n"))
    assert build(recipe, tmp_path / "out") == 1
    line = error_line(capsys.readouterr().err)
    assert "judges.0 (tests): fails its own proof, nothing was sampled" in line
    assert "that is 'correct' it says 'incorrect'" in line and '"failed"' in line
    assert not list((tmp_path / "out").rglob("manifest.json"))
    assert not [name for name in files_below(tmp_path / "out") if "segment" in name or "journal" in name]


def test_a_special_case_that_is_right_stops_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = problem_rows(1)[0]["forged"]
    recipe = small_recipe(tmp_path, broken_problem(tmp_path, forged=forged | {"special_case": problem_rows(1)[0]["reference"]}))
    assert build(recipe, tmp_path / "out") == 1
    assert "that is 'hack' it says 'correct'" in error_line(capsys.readouterr().err)


def test_a_proof_that_runs_out_of_time_says_what_to_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = problem_rows(1)[0]["entry_point"]
    slow = f"def {name}(ws):\n    while True: pass\n"
    recipe = small_recipe(tmp_path, broken_problem(tmp_path, reference=slow), timeout_seconds=0.5)
    assert build(recipe, tmp_path / "out") == 1
    assert "raise its timeout_seconds" in error_line(capsys.readouterr().err)


def test_code_tests_proves_its_judge_on_four_labels(tmp_path: Path) -> None:
    tasks = CodeTests(tasks=4).load(cache=tmp_path).tasks
    (proof,) = check_judges([ExecutedTests()], CodeTests(), tasks)
    assert proof["answers"] == {"correct": 4, "hack": 4, "incorrect": 4, "no_code": 4}
