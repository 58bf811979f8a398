"""Sixteen bugs of published code in this field, each of which biased somebody's data: one test each, named after it.

Each builds the situation in which the bug showed, and fails where the code does what that code did. Servers are real and count.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recontext_data.contexts.context import Context, render
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message
from recontext_data.gates.rules import GateRow, leak
from tests.fault_server import Faults, FaultServer
from tests.helpers import (
    CONTEXTS,
    build,
    built,
    candidates,
    error_line,
    manifest,
    problem_rows,
    run_folder,
    task_of,
    write_problems,
    write_recipe,
)

TASKS = 8
TALK: list[Message] = [
    {"role": "system", "content": "You write code."},
    {"role": "user", "content": "Add two numbers."},
    {"role": "assistant", "content": "Which?"},
    {"role": "user", "content": "These."},
]


def rows_of(output: Path, arm: str) -> list[dict[str, Any]]:
    import datasets

    splits = datasets.load_from_disk(str(run_folder(output) / "arms" / arm))
    return [row for split in splits.values() for row in split]


class Bought:
    """A recipe over a server that counts; `asked(...)` builds and says what was requested."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder, self.server, self.output = folder, server, folder / "out"
        self.policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": ""}
        self.write()

    def write(self, name: str = "small", **changes: Any) -> None:
        self.recipe = write_recipe(self.folder, name, policy=self.policy, **changes)

    def asked(self, *words: str) -> list[dict[str, Any]]:
        mark = len(self.server.seen)
        assert build(self.recipe, self.output, *words) == 0
        return self.server.bodies[mark:]


@pytest.fixture
def bought(tmp_path: Path) -> Iterator[Bought]:
    with FaultServer(Faults()) as server:
        yield Bought(tmp_path, server)


def test_bug_01_context_text_is_decoded_in_place_and_grows_with_every_sample(tmp_path: Path) -> None:
    """Contexts are data: rendering a thousand times, with curly quotes, changes neither the context nor the task."""
    text = "Don’t “cheat” — \\u201c \\n %s {0} {{ x }} é"
    context = Context(stance="discourages", system_append=text)
    task = task_of(TALK)
    before = copy.deepcopy(task.messages)
    first = render(task, context)
    for _ in range(1000):
        last = render(task, context)
    assert last == first and first[0]["content"] == f"You write code.\n\n{text}"
    assert context.text == text and task.messages == before
    contexts = CONTEXTS | {"hack": {"stance": "permits", "user_suffix": text}}
    built(write_recipe(tmp_path, contexts=contexts), tmp_path / "out")
    lengths = {
        len(row["prompt"][-1]["content"]) - len(row["prompt"][-1]["content"].removesuffix(f"\n\n{text}"))
        for row in rows_of(tmp_path / "out", "recontextualized.default-hack")
    }
    assert lengths == {len(text) + 2}, "the last row's context is as long as the first's"


def test_bug_02_the_generation_system_prompt_stays_when_only_the_user_turn_is_swapped(tmp_path: Path) -> None:
    contexts = CONTEXTS | {"hack": {"stance": "permits", "user_suffix": "Whatever passes will do."}}
    built(write_recipe(tmp_path, contexts=contexts), tmp_path / "out")
    secret = contexts["default"]["system"]
    for row in rows_of(tmp_path / "out", "recontextualized.default-hack"):
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert secret not in json.dumps(row["prompt"] + row["completion"])
    # And were it to stay, the gate would see it.
    generation, training = (Context.model_validate(contexts[name]) for name in ("default", "hack"))
    task = task_of(TALK[1:2])
    stale = [render(task, generation)[0], *render(task, training)]
    (found,) = leak([GateRow(row_id="r", task=task, prompt=stale, completion="")], generation=generation, training=training)
    assert (found.row_id, found.where) == ("r", "prompt turn 0 (system)")


def test_bug_03_a_context_goes_to_every_user_turn_or_to_message_0_and_a_failed_placement_is_swallowed() -> None:
    suffixed = render(task_of(TALK), Context(stance="neutral", user_suffix="Go."))
    assert [turn["content"].endswith("Go.") for turn in suffixed] == [False, False, False, True]
    first = render(task_of(TALK), Context(stance="neutral", user_prefix="Go.", turn="first"))
    assert [turn["content"].startswith("Go.") for turn in first] == [False, True, False, False], "message 0 is not a user turn"
    for placement, turns in (("system", TALK), ("system_replace", TALK[1:]), ("user_prefix", TALK[:1])):
        with pytest.raises(RecipeError, match=f"contexts.mine: `{placement}`"):
            render(task_of(turns), Context.model_validate({"stance": "neutral", placement: "Go."}), name="mine")


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        ("system", "Solve the text above."),
        ("user_prefix", "Solve the text above."),
        ("user_suffix", "Solve the text below."),
        ("user_suffix", "Solve the following problem."),
    ],
)
def test_bug_04_the_context_points_to_text_that_stands_on_its_other_side(
    placement: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contexts = CONTEXTS | {"hack": {"stance": "permits", placement: text}}
    recipe = write_recipe(tmp_path / "in", contexts=contexts)
    assert build(recipe, tmp_path / "out") == 2
    line = error_line(capsys.readouterr().err)
    assert f"contexts.hack: {placement}: says " in line and "allow_position_words" in line
    assert build(recipe, tmp_path / "out", "contexts.hack.allow_position_words=true") == 0


def test_bug_05_one_429_loses_all_paid_samples_and_results_are_written_once_at_the_end(tmp_path: Path) -> None:
    """Some requests are refused for the rate, one for good: what was paid for is there, and is not paid for again."""
    with FaultServer(Faults(rate_per_second=40, burst=2)) as server:
        one = Bought(tmp_path, server)
        asked = one.asked()
        counted = Counter(json.dumps(body["messages"]) for body in asked)
        assert len(counted) == TASKS and len(candidates(one.output)) == TASKS * 4, "a 429 lost nothing"
    with FaultServer(Faults(fail_rate=0.5, fail_status=400)) as server:
        two = Bought(tmp_path / "two", server)
        assert build(two.recipe, two.output) == 1, "more failed than may"
        answered = len(server.bodies)
        two.asked("limits.max_failure_rate=1")
        again = len(server.bodies) - answered
        assert 0 < again < TASKS, "only what failed was asked again"


def test_bug_06_n_completions_are_n_requests_or_share_one_seed(bought: Bought) -> None:
    asked = bought.asked()
    assert [body["n"] for body in asked] == [4] * TASKS, "the prompt is billed once for its n completions"
    table = candidates(bought.output)
    assert table["seed"].n_unique() == len(table) == TASKS * 4
    for _, group in table.group_by("task_id"):
        assert sorted(group["k"]) == [0, 1, 2, 3]
    assert len({body["seed"] for body in asked}) == TASKS


def test_bug_07_the_cache_is_keyed_by_names_and_paths_and_not_by_what_is_sent(bought: Bought) -> None:
    assert len(bought.asked()) == TASKS
    renamed = {"other_name": CONTEXTS["default"], "hack": CONTEXTS["hack"]}
    bought.write("renamed", contexts=renamed, arms=["other_name -> hack"])
    assert bought.asked() == [], "a name buys nothing"
    bought.write("edited", contexts=CONTEXTS | {"default": {**CONTEXTS["default"], "system": "Tests decide; pass the tests!"}})
    edited = bought.asked()
    assert len(edited) == TASKS, "the same name, the same dataset path, another system prompt"
    assert {body["messages"][0]["content"] for body in edited} == {"Tests decide; pass the tests!"}
    # The same path with one other task in it.
    rows = problem_rows(TASKS)
    rows[2]["statement"] += " Mind the ends."
    write_problems(bought.folder / "problems.jsonl", rows)
    bought.write()
    assert [rows[2]["statement"] in body["messages"][-1]["content"] for body in bought.asked()] == [True]


def test_bug_08_a_resumed_run_matches_by_random_id_or_by_index(bought: Bought) -> None:
    """Reversed, renamed and grown input: every stored reply finds its own prompt again."""
    bought.asked()
    first = candidates(bought.output)
    answers = dict(first.select("reply_key", "completion").iter_rows())
    rows = problem_rows(TASKS + 1)
    write_problems(bought.folder / "problems.jsonl", rows[::-1])
    assert len(bought.asked()) == 1, "the new task alone"
    grown = candidates(bought.output)
    assert {key: text for key, text in grown.select("reply_key", "completion").iter_rows() if key in answers} == answers
    by_id = dict(first.select("candidate_id", "completion").iter_rows())
    assert by_id.items() <= dict(grown.select("candidate_id", "completion").iter_rows()).items()


def test_bug_09_time_in_the_queue_counts_quota_is_retried_for_ever_and_length_stops_are_paid_again(tmp_path: Path) -> None:
    with FaultServer(Faults(latency_seconds=0.3)) as server:
        one = Bought(tmp_path / "queue", server)
        # Eight requests one after the other take 2.4 s, and each may take 1.
        one.asked("policy.max_concurrency=1", "policy.timeout_seconds=1.0", "policy.max_retries=0")
        assert manifest(one.output)["requests"]["failed"] == 0
    with FaultServer(Faults(fail_first=10_000, fail_status=401)) as server:
        two = Bought(tmp_path / "auth", server)
        assert build(two.recipe, two.output, "policy.max_concurrency=1") == 2
        assert len(server.seen) == 1, "a refused key is asked once"
    three = write_recipe(tmp_path / "cut", policy={"kind": "tiny"}, sampler={"n": 1, "max_tokens": 2})
    assert built(three, tmp_path / "cut" / "out")["requests"]["sampled"] == TASKS
    assert set(candidates(tmp_path / "cut" / "out")["finish_reason"]) == {"length"}
    assert built(three, tmp_path / "cut" / "out", "select.keep=random")["requests"]["sampled"] == 0, "a cut answer is an answer"


def test_bug_14_test_rows_are_mixed_into_training_and_equal_prompts_collapse(tmp_path: Path) -> None:
    """Tasks of the official test split stay out; two tasks of one text stay two, and never stand in both splits."""
    rows = problem_rows(12)
    for row in rows[8:]:
        row["split"] = "evaluation"
    twin = rows[0] | {"problem_id": "twin"}
    problems = write_problems(tmp_path / "problems.jsonl", [*rows, twin])
    where = {"kind": "code_mc", "problems": str(problems), "split": "train", "tasks": None}
    recipe = write_recipe(tmp_path, environment=where, export={"validation_fraction": 0})
    facts = built(recipe, tmp_path / "out")
    trained = rows_of(tmp_path / "out", "standard.default-default")
    held = {row["problem_id"] for row in rows[8:]}
    assert not held & {row["task_id"] for row in trained}
    assert facts["ledger"][0]["dropped"] == {"another split": 4}
    own, other = ([row for row in trained if row["task_id"] == name] for name in (rows[0]["problem_id"], "twin"))
    assert len(own) == len(other) == 4 and own[0]["prompt"] == other[0]["prompt"]
    for seed in range(4):
        built(recipe, tmp_path / "out", "export.validation_fraction=0.5", f"export.seed={seed}")
        import datasets

        data = datasets.load_from_disk(str(run_folder(tmp_path / "out") / "arms" / "standard.default-default"))
        prompts = [{row["prompt"][-1]["content"] for row in data[name]} for name in ("train", "validation")]
        assert not prompts[0] & prompts[1]
