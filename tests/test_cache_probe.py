"""Nine changes to a recipe that was built: each asks the server for exactly what it touches, and no other reply is bought.

The server is real and counts. 12 tasks, n=2, one pool: 12 requests for 24 completions.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault_server import Faults, FaultServer
from tests.helpers import (
    CONTEXTS,
    ROOT,
    arm_hashes,
    built,
    candidates,
    command,
    environment,
    manifest,
    problem_rows,
    run_folder,
    write_problems,
    write_recipe,
)

TASKS, N = 12, 2
"""Of the recipe before it is changed."""


class Probe:
    """A recipe that was built from a counting server, and what each further build asks for."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.server, self.output = server, folder / "out"
        self.problems = folder / "problems.jsonl"
        where = {"kind": "code_mc", "problems": str(self.problems), "split": "all", "tasks": None}
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": ""}
        self.recipe = write_recipe(folder, environment=where, policy=policy, sampler={"n": N})
        self.rows = problem_rows(TASKS)
        self.mark = 0

    def build(self, *words: str) -> None:
        """Builds what the words make of the recipe, from `rows` as they are now."""
        write_problems(self.problems, self.rows)
        self.mark = len(self.server.seen)
        built(self.recipe, self.output, *words)

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The bodies of the last build's requests."""
        return self.server.bodies[self.mark :]

    def asked_for(self) -> list[str]:
        """The tasks of the last build's requests, by the statement that their prompt begins with; each must ask for all n."""
        assert {body["n"] for body in self.sent} <= {N}
        return sorted(body["messages"][-1]["content"].partition("\n")[0] for body in self.sent)

    def statements(self) -> list[str]:
        return sorted(row["statement"] for row in self.rows)


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    with FaultServer(Faults()) as server:
        probe = Probe(tmp_path, server)
        probe.build()
        assert probe.asked_for() == probe.statements()
        yield probe


def test_nothing_changed_sends_nothing(probe: Probe) -> None:
    probe.build()
    assert probe.sent == []


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("contexts.default.system=Tests decide; pass the testz.", "messages", "Tests decide; pass the testz."),
        ("sampler.temperature=0.9", "temperature", 0.9),
        ("policy.model=m2", "model", "m2"),
        ("sampler.max_tokens=255", "max_tokens", 255),
    ],
)
def test_what_is_sent_with_every_request_asks_for_everything_again(word: str, field: str, value: Any, probe: Probe) -> None:
    before = set(candidates(probe.output)["reply_key"])
    probe.build(word)
    assert probe.asked_for() == probe.statements()
    for body in probe.sent:
        assert (body[field][0]["content"] if field == "messages" else body[field]) == value
    assert before.isdisjoint(candidates(probe.output)["reply_key"]), "no reply to another question was taken for one"
    probe.build()
    assert probe.sent == [], "the change taken back finds what was there before"


def test_another_server_is_asked_for_everything(probe: Probe) -> None:
    with FaultServer(Faults()) as other:
        probe.build(f"policy.base_url={other.base_url}")
        assert probe.sent == []
        assert len(other.seen) == TASKS
    probe.build(f"policy.base_url={probe.server.base_url}/of-somebody-else")
    assert probe.asked_for() == probe.statements(), "the same host and another path is another server"


def test_a_changed_task_is_asked_again_alone(probe: Probe) -> None:
    probe.rows[5]["statement"] += " Mind the ends."
    probe.build()
    assert probe.asked_for() == [probe.rows[5]["statement"]]
    assert len(candidates(probe.output)) == TASKS * N


def test_ten_more_tasks_ask_for_theirs_alone(probe: Probe) -> None:
    probe.rows = problem_rows(TASKS + 10)
    probe.build()
    assert probe.asked_for() == sorted(row["statement"] for row in probe.rows[TASKS:])
    assert len(candidates(probe.output)) == (TASKS + 10) * N


def test_reversed_tasks_ask_for_nothing_and_make_the_same_datasets(probe: Probe) -> None:
    before = arm_hashes(probe.output)
    probe.rows.reverse()
    probe.build()
    assert probe.sent == []
    assert arm_hashes(probe.output) == before


def test_a_training_context_and_a_judges_config_ask_for_nothing(probe: Probe) -> None:
    probe.build("judges.0.scores={invalid: 1}", "select.keep=best")
    assert probe.sent == []
    assert CONTEXTS["hack"]["system"] != "Anything goes."
    probe.build("contexts.hack.system=Anything goes.")
    assert probe.sent == []


def test_a_judges_code_asks_for_nothing_and_judges_anew(probe: Probe, tmp_path: Path) -> None:
    """An edited copy of the package, in a process of its own; the command is the one that built the run."""
    copy = tmp_path / "edited"
    shutil.copytree(ROOT / "recontext_data", copy / "recontext_data", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data", "recipes"):
        (copy / name).symlink_to(ROOT / name)
    before = run_folder(probe.output)

    def build_with_copy() -> None:
        probe.mark = len(probe.server.seen)
        words = command(f"recipe={probe.recipe}", f"output={probe.output}")
        assert words[0] == sys.executable
        here = environment() | {"PYTHONPATH": str(copy)}
        done = subprocess.run(words, cwd=copy, env=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert probe.sent == []

    build_with_copy()
    assert run_folder(probe.output) == before, "the same code elsewhere on the disk is the same run"

    judge = copy / "recontext_data" / "judges" / "choice.py"
    old = "scores=self.scores)"
    text = judge.read_text(encoding="utf-8")
    assert text.count(old) == 1
    judge.write_text(text.replace(old, "scores=dict.fromkeys(LABELS, 0.25))"), encoding="utf-8")
    build_with_copy()
    assert run_folder(probe.output) != before
    (row,) = manifest(probe.output)["rates"]
    assert row["mean_score"] == 0.25, "the edited judge was the one that ran"
