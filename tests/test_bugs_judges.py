"""Bugs of published code that biased somebody's data, in what executed judges and the selection by their scores could do."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core.errors import SandboxMissing
from recontext_data.core.records import Candidate, Judgement
from recontext_data.judges import tests as judge_module
from recontext_data.sandbox import Sandbox, SandboxJob, SandboxOutcome, open_sandbox
from tests.helpers import CONTEXTS, built, candidates, problem_rows, run_folder, write_problems, write_recipe

BLIND = {"candidate_id", "task_id", "messages", "completion", "payload", "reasoning"}
"""All that a judge is shown: no context, no arm, no rank."""

RATES = {"default": {"correct": 0.5, "hack": 0.3, "incorrect": 0.1, "no_code": 0.1}}


@pytest.fixture(scope="module", autouse=True)
def needs_sandbox() -> None:
    try:
        open_sandbox(num_workers=1).close()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")


def recipe(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    problems = folder / "problems.jsonl"
    if not problems.exists():
        write_problems(problems, problem_rows(12))
    tree = {
        "environment": {"kind": "code_tests", "problems": str(problems), "split": "all"},
        "contexts": CONTEXTS,
        "policy": {"kind": "fake", "rates": RATES},
        "judges": [{"kind": "tests"}],
        "arms": ["default -> hack"],
        "export": {"validation_fraction": 0},
    }
    return write_recipe(folder, **(tree | changes))


def kept(output: Path) -> set[str]:
    table = pl.read_parquet(run_folder(output) / "selection.parquet")
    return set(table.filter("kept")["candidate_id"])


class Losing:
    """A real sandbox that loses the process of every job with one of these words in its source."""

    def __init__(self, sandbox: Sandbox, word: str) -> None:
        self._sandbox, self._word = sandbox, word

    def run(self, jobs: Sequence[SandboxJob]) -> list[SandboxOutcome]:
        lost = SandboxOutcome(status="crash", results=(), detail="worker lost: no answer in time")
        outcomes = self._sandbox.run(jobs)
        return [lost if self._word in job.source else outcome for job, outcome in zip(jobs, outcomes, strict=True)]

    def __enter__(self) -> "Losing":
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox.close()


def test_bug_10_a_failure_of_the_judge_is_no_number_and_the_judge_sees_no_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There: a reply that could not be parsed scored 0 or 5, which once inverted a ranking; the judge was shown the context."""
    policy = {"kind": "fake", "rates": {"default": {"lost": 0.4, "correct": 0.6}}}
    policy["texts"] = {"lost": "```python\n# unlucky\n{reference}```"}
    monkeypatch.setattr(judge_module, "open_sandbox", lambda: Losing(open_sandbox(), "# unlucky"))
    seen: list[Candidate] = []
    read = judge_module.ExecutedTests.judge

    def noting(self: judge_module.ExecutedTests, batch: Sequence[Candidate]) -> list[Judgement]:
        seen.extend(batch)
        return read(self, batch)

    monkeypatch.setattr(judge_module.ExecutedTests, "judge", noting)
    made = built(recipe(tmp_path, policy=policy, select={"keep": "best"}), tmp_path / "out")
    words = pl.read_parquet(run_folder(tmp_path / "out") / "judgements.parquet").join(
        candidates(tmp_path / "out"), on="candidate_id"
    )
    lost = words.filter(pl.col("completion").str.contains("unlucky"))
    assert len(lost) > 5
    assert lost["score"].null_count() == lost["label"].null_count() == len(lost)
    assert lost["unscored_reason"].unique().to_list() == [judge_module.LOST]
    assert words.filter(pl.col("score").is_null()).height == len(lost)
    (rate,) = made["rates"]
    assert rate["unscored"] == {judge_module.LOST: len(lost)} and sum(rate["counts"].values()) == rate["total"] - len(lost)
    assert rate["mean_score"] == pytest.approx(2 / 3)  # of those that were judged, and no 0 among them
    assert not kept(tmp_path / "out") & set(lost["candidate_id"])
    assert {field.name for field in fields(Candidate)} == BLIND
    assert seen and not [one for one in seen if "Tests decide" in json.dumps([one.messages, one.payload])]


def test_bug_11_ties_are_broken_by_a_seed_that_is_used_and_never_by_order(tmp_path: Path) -> None:
    """There: ties went to the first in the list, and the seed argument was accepted and unused."""
    ties = {
        "kind": "fake",
        "rates": {"default": {"hack": 1.0}},
        "texts": {"hack": "Rank by rank.\n```python\n{special_case}```"},
    }
    more: dict[str, Any] = {"policy": ties, "sampler": {"n": 8}}
    path = recipe(tmp_path / "in", **more, select={"keep": "best"})
    built(path, tmp_path / "out")
    first = kept(tmp_path / "out")
    found = candidates(tmp_path / "out")
    ranks = Counter(found.filter(pl.col("candidate_id").is_in(list(first)))["k"].to_list())
    assert len(first) == 12 and len(ranks) >= 4 and ranks[0] < 6  # eight equal scores a task: any rank may win
    write_problems(tmp_path / "in" / "problems.jsonl", problem_rows(12)[::-1])
    built(path, tmp_path / "turned")
    assert kept(tmp_path / "turned") == first
    built(recipe(tmp_path / "in", **more, select={"keep": "best", "seed": 1}), tmp_path / "reseeded")
    assert kept(tmp_path / "reseeded") != first
