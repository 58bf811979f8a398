"""code_tests: what a task shows and hides, that its gold answers deserve their labels, and the recipe end to end."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core import values
from recontext_data.core.errors import DataError, SandboxMissing
from recontext_data.core.records import Candidate, Task, uniform
from recontext_data.environments.base import fill, gold
from recontext_data.environments.code_mc import CodeMC
from recontext_data.environments.code_tests import TEXTS, CodeTests, to_task
from recontext_data.environments.problems import Problem, ProblemFile
from recontext_data.judges.tests import LABELS, ExecutedTests
from recontext_data.sandbox import open_sandbox
from tests.helpers import BANK, CONTEXTS, arm_hashes, built, candidates, error_line, manifest, run_folder, write_recipe
from tests.helpers import build as build_verb


@pytest.fixture(scope="module", autouse=True)
def needs_sandbox() -> None:
    try:
        open_sandbox(num_workers=1).close()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")


@pytest.fixture(scope="module")
def bank() -> list[Problem]:
    return [problem for problem in ProblemFile(BANK) if problem.split == "train"]


def answers(tasks: list[Task]) -> list[tuple[str, Candidate]]:
    """Every gold answer of every task with the label that it deserves."""
    environment = CodeTests()
    return [
        (
            label,
            Candidate(
                candidate_id=f"{task.task_id} {label}",
                task_id=task.task_id,
                messages=task.messages,
                completion=text,
                payload=task.payload,
            ),
        )
        for task in tasks
        for label, text in gold(environment, task).items()
    ]


def misjudged(tasks: list[Task], **config: Any) -> list[str]:
    expected = answers(tasks)
    found = ExecutedTests(**config).judge([candidate for _, candidate in expected])
    assert len(found) == len(TEXTS) * len(tasks)
    return [one.candidate_id for (label, _), one in zip(expected, found, strict=True) if one.label != label]


def test_a_task_shows_the_wrong_test_and_hides_the_truth(bank: list[Problem]) -> None:
    for problem in bank[:100]:
        task = to_task(problem)
        (turn,) = task.messages
        assert problem.forged is not None
        assert problem.statement in turn["content"] and all(line in turn["content"] for line in problem.shown_tests())
        true = problem.public_tests[problem.forged.wrong_index]
        assert true.assertion(problem.entry_point) not in turn["content"]
        assert problem.reference.strip() not in turn["content"] and problem.forged.special_case.strip() not in turn["content"]
        public = {json.dumps(test["arguments"]) for test in task.payload["public"]}
        assert not [test for test in task.payload["hidden"] if json.dumps(test["arguments"]) in public]


def test_the_payload_says_what_is_shown_and_what_is_true(bank: list[Problem]) -> None:
    for problem in bank[:100]:
        payload = to_task(problem).payload
        wrong = payload["wrong_test"]
        differ = [
            i
            for i, test in enumerate(payload["public"])
            if not values.same(test["expected"], payload["shown"][i], tolerance=problem.tolerance)
        ]
        assert differ == [wrong]
        assert json.loads(json.dumps(payload)) == payload


def test_gold_answers_of_the_bank_deserve_their_labels(bank: list[Problem]) -> None:
    drawn = sorted(bank, key=lambda problem: uniform("test", problem.problem_id))[:150]
    assert misjudged([to_task(problem) for problem in drawn]) == []


def test_the_judge_and_the_environment_speak_of_the_same_labels() -> None:
    assert tuple(CodeTests().labels) == LABELS == tuple(ExecutedTests().labels)
    assert CodeTests().misbehaviour in LABELS
    assert set(TEXTS) == set(LABELS) - {"timeout"}


def test_it_draws_the_tasks_that_code_mc_draws(tmp_path: Path) -> None:
    drawn = [environment(tasks=20, seed=3).load(cache=tmp_path) for environment in (CodeTests, CodeMC)]
    assert [task.task_id for task in drawn[0].tasks] == [task.task_id for task in drawn[1].tasks]
    assert drawn[0].entry == drawn[1].entry and drawn[0].licence == drawn[1].licence


def test_a_split_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"environment.split=trian: no problem is in it; did you mean 'train'\?"):
        CodeTests(split="trian").load(cache=tmp_path)


def test_a_value_without_a_form_is_named(bank: list[Problem], tmp_path: Path) -> None:
    hidden = bank[0].hidden_tests[0].model_copy(update={"expected": {"sett": [1]}})
    path = tmp_path / "problems.jsonl"
    path.write_text(bank[0].model_copy(update={"hidden_tests": [hidden]}).model_dump_json() + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"environment.problems: bank/.*: a test cannot be read: .*'sett'"):
        CodeTests(problems=str(path)).load(cache=tmp_path)


def test_a_reference_that_exits_makes_no_task(bank: list[Problem], tmp_path: Path) -> None:
    leaving = f"{bank[0].reference}\ndef g():\n    exit()\n"
    rows = [bank[0].model_copy(update={"reference": leaving}), bank[1]]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    made = CodeTests(problems=str(path)).load(cache=tmp_path)
    assert [task.task_id for task in made.tasks] == [bank[1].problem_id]
    assert made.entry.dropped == {"the reference itself would earn nothing: a process exit": 1}


def test_texts_are_filled_in_one_pass() -> None:
    assert fill("{a} {b} {c}", {"a": "{b}", "b": "2"}) == "{b} 2 {c}"
    assert fill("{a}", {}) == "{a}"
    assert fill("x = {1: {a}}", {"a": r"\1 \g<0>"}) == r"x = {1: \1 \g<0>}"


def cut(source: Path, target: Path, ids: set[str]) -> Path:
    """The lines of a JSON-lines file with these task ids."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if str(json.loads(line)["task_id"]).rpartition("/")[2] in ids]
    assert len(kept) == len(ids)
    target.write_text("".join(kept), encoding="utf-8")
    return target


def drawn_ids(source: Path, count: int) -> set[str]:
    """Task ids by a hash: benchmarks/tests_judge.py judges all of them."""
    lines = source.read_text(encoding="utf-8").splitlines()
    ids = [str(json.loads(line)["task_id"]).rpartition("/")[2] for line in lines]
    return set(sorted(ids, key=lambda name: uniform("test", name))[:count])


@pytest.fixture(scope="module")
def mbpp(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    source, folder = shared / "data" / "mbpp.jsonl", tmp_path_factory.mktemp("mbpp")
    ids = drawn_ids(source, 60) | {"264", "367"} - {"123"}  # a reference that exits; a setup; one of ten seconds
    problems = cut(source, folder / "mbpp.jsonl", ids)
    made = CodeTests(problems=str(problems), split="all", tasks=None).load(cache=folder)
    assert made.entry.dropped["the reference itself would earn nothing: a process exit"] == 1
    return list(made.tasks)


def test_forged_mbpp_answers_deserve_their_labels(mbpp: list[Task]) -> None:
    assert len(mbpp) >= 55
    assert misjudged(mbpp, timeout_seconds=60) == []


def test_setups_are_shown(mbpp: list[Task]) -> None:
    with_setup = [task for task in mbpp if task.payload["setup"].strip()]
    assert with_setup
    assert all("Defined already:\n```python\n" in task.messages[0]["content"] for task in with_setup)


def test_mbpp_plus_inputs_fail_special_cases_and_pass_references(shared: Path, tmp_path: Path) -> None:
    plus = shared / "data" / "mbpp_plus.jsonl"
    ids = drawn_ids(plus, 15)
    problems = cut(shared / "data" / "mbpp.jsonl", tmp_path / "mbpp.jsonl", ids)
    asked = CodeTests(problems=str(problems), plus=str(cut(plus, tmp_path / "plus.jsonl", ids)), split="all", tasks=None)
    tasks = list(asked.load(cache=tmp_path / "cache").tasks)
    assert len(tasks) >= 14
    assert sum(len(task.payload["hidden"]) for task in tasks) > 50 * len(tasks)
    assert misjudged(tasks, timeout_seconds=60) == []


RATES = {
    "default": {"correct": 0.6, "hack": 0.2, "incorrect": 0.1, "no_code": 0.1},
    "hack": {"hack": 1.0},
}


def small_recipe(folder: Path, **changes: Any) -> Path:
    tree = {
        "environment": {"kind": "code_tests", "problems": "bank", "tasks": 12},
        "contexts": {name: CONTEXTS[name] for name in RATES},
        "policy": {"kind": "fake", "rates": RATES},
        "judges": [{"kind": "tests"}],
        "select": {"keep": "best"},
        "sampler": {"n": 4},
    }
    return write_recipe(folder, **(tree | changes))


def test_best_of_n_by_the_shown_tests_collects_hacks(tmp_path: Path) -> None:
    made = built(small_recipe(tmp_path), tmp_path / "out")
    (rate,) = [rate for rate in made["rates"] if rate["context"] == "default"]
    judged = pl.read_parquet(run_folder(tmp_path / "out") / "judgements.parquet")
    assert dict(Counter(judged["label"])) == {label: count for label, count in rate["counts"].items() if count}
    arm = made["arms"][0]
    found = candidates(tmp_path / "out").join(judged, on="candidate_id")
    hacked = found.filter(pl.col("label") == "hack")["task_id"].n_unique()
    assert arm["labels"]["hack"] == hacked  # wherever there is one, it is the best
    assert hacked / 12 > rate["counts"]["hack"] / rate["total"]
    assert made["caveats"] == ["The policy is scripted: these rates are its script's, and say nothing about any model."]


def test_the_true_score_collects_right_answers(tmp_path: Path) -> None:
    made = built(small_recipe(tmp_path, judges=[{"kind": "tests", "score": "true"}]), tmp_path / "out")
    assert made["arms"][0]["labels"]["hack"] <= 1 and made["arms"][0]["labels"]["correct"] >= 11


def test_the_same_again_judges_alike(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    built(recipe, tmp_path / "one")
    built(recipe, tmp_path / "two")
    assert arm_hashes(tmp_path / "one", cards=False) == arm_hashes(tmp_path / "two", cards=False)


def test_only_candidates_with_a_wanted_label_are_kept(tmp_path: Path) -> None:
    made = built(small_recipe(tmp_path, select={"require": {"tests": ["correct"]}}), tmp_path / "out")
    labels = made["arms"][0]["labels"]
    assert labels["correct"] == sum(labels.values()) > 0
    (entry,) = [row for row in made["ledger"] if row["stage"] == "select" and row["scope"] == made["arms"][0]["name"]]
    assert set(entry["dropped"]) == {"tests says hack", "tests says incorrect", "tests says no_code"}
    assert entry["in"] == entry["kept"] + sum(entry["dropped"].values()) == 48


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("select.require={tets: [correct]}", "select.require: no judge is named 'tets'; did you mean 'tests'?"),
        ("select.require={tests: [corect]}", "select.require.tests: it never says 'corect'; did you mean 'correct'?"),
        ("select.require={tests: []}", "select.require.tests: "),
        ("judges.0.score=publc", "judges.0.score='publc': must "),
        ("judges.0.timeout_seconds=0", "judges.0.timeout_seconds=0"),
        (
            "policy.rates.default={corect: 1, correct: 0, hack: 0, incorrect: 0, no_code: 0}",
            "no text for the label 'corect' in policy.texts; did you mean 'correct'?",
        ),
    ],
)
def test_bad_options_are_one_line(word: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_verb(small_recipe(tmp_path), tmp_path / "out", word) == 2
    assert line in error_line(capsys.readouterr().err)
    assert not (tmp_path / "out" / "runs").exists()


def test_the_recipe_builds_and_says_that_it_is_scripted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_verb("code_tests", tmp_path, "environment.tasks=12", "sampler.n=4") == 0
    screen = capsys.readouterr().out
    assert "SCRIPTED: no model was sampled" in screen and "proved    tests, on 48 answers to 12 tasks" in screen
    made = manifest(tmp_path, "code_tests")
    assert {arm["kind"] for arm in made["arms"]} == {"recontextualized", "standard", "prior"}
    for arm in made["arms"]:
        card = (run_folder(tmp_path, "code_tests") / "arms" / arm["name"] / "README.md").read_text(encoding="utf-8")
        assert "The policy is scripted" in card and "Judges, proved first" in card
    page = (run_folder(tmp_path, "code_tests") / "report.html").read_text(encoding="utf-8")
    assert "Judges, proved first" in page and "The policy is scripted" in page and "place of the option" not in page


def test_a_file_of_problems_is_read_a_problem_at_a_time_and_again(tmp_path: Path) -> None:
    lines = BANK.read_text(encoding="utf-8").splitlines()[:2]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join([*lines, "no JSON"]), encoding="utf-8")
    file = ProblemFile(path)
    for _ in range(2):
        assert next(iter(file)).problem_id == json.loads(lines[0])["problem_id"]
    with pytest.raises(DataError, match="line 3 is not JSON"):
        list(file)
