"""Sampling: keys are content, only what is missing is bought, failures are counted and never become text."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.contexts.context import Context
from recontext_data.core.errors import BuildStopped
from recontext_data.core.records import Reply, SamplingParams, Task
from recontext_data.pipeline import sample as sample_module
from recontext_data.pipeline import sample_plan as wanted_module
from recontext_data.pipeline.purchase import buy
from recontext_data.pipeline.sample import Collected, Pool, SampleOutcome, collect, plan
from recontext_data.policies.fake import FakePolicy
from recontext_data.reports.progress import StageTracker
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder

PLAIN = Context(stance="neutral", system="Plain.")
ALLOW = Context(stance="permits", user_suffix="Allowed.")


def tasks(count: int, *, start: int = 0, text: Callable[[int], str] = lambda i: f"Problem {i}") -> list[Task]:
    return [
        Task(task_id=f"t{i:03}", messages=[{"role": "user", "content": text(i)}], payload={}, split="train")
        for i in range(start, start + count)
    ]


def pools(n: int = 4, **contexts: Context | None) -> list[Pool]:
    return [Pool(name=name, context=context, n=n, role="arms") for name, context in (contexts or {"plain": PLAIN}).items()]


class Bench:
    """One store, one scripted policy, and what each round of sampling asked for."""

    def __init__(self, folder: Path, script: Any = None) -> None:
        self.folder = folder
        self.script = script or (lambda messages, k, seed, tag: f"{messages[-1]['content']} {k} {seed}")

    def sample(
        self, some: list[Task], wanted: list[Pool], *, name: str = "script", seed: int = 0, limit: int = 10**9, **how: Any
    ) -> tuple[SampleOutcome, list[tuple[str, str, int]]]:
        """The outcome, and (context, last turn, k) of each completion that was asked for."""
        policy = FakePolicy(self.script, name=name)
        with ReplyStore(self.folder) as store:
            ready = plan(some, wanted, sampling=SamplingParams(**how), seed=seed, identity=dict(policy.identity), store=store)
            tracker = StageTracker("sample", None, unit="completions", on_tick=None)
            failures = asyncio.run(buy(ready.requests, policy=policy, store=store, tracker=tracker, max_failures=limit))
            outcome = collect(ready, store=store, failures=failures, bought=0)
        return outcome, [(r.tag, str(r.messages[-1]["content"]), k) for r in policy.requests for k in r.ks]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "replies")


def test_everything_is_asked_once_and_then_never_again(bench: Bench) -> None:
    first, asked = bench.sample(tasks(5), pools())
    assert len(asked) == len(set(asked)) == 20 and len(first.candidates) == 20
    again, nothing = bench.sample(tasks(5), pools())
    assert nothing == [] and again.candidates.equals(first.candidates)


def test_a_renamed_context_buys_nothing(bench: Bench) -> None:
    bench.sample(tasks(5), pools())
    renamed, asked = bench.sample(tasks(5), pools(other=PLAIN))
    assert asked == []
    assert set(renamed.candidates["generation_context"]) == {"other"}


def test_one_letter_of_a_context_buys_everything_under_it_and_nothing_else(bench: Bench) -> None:
    bench.sample(tasks(5), pools(plain=PLAIN, allow=ALLOW))
    changed = Context(stance="neutral", system="Plaim.")
    _, asked = bench.sample(tasks(5), pools(plain=changed, allow=ALLOW))
    assert sorted(asked) == sorted(("plain", f"Problem {i}", k) for i in range(5) for k in range(4))


def test_a_stance_is_not_sent_so_it_buys_nothing(bench: Bench) -> None:
    bench.sample(tasks(3), pools())
    assert bench.sample(tasks(3), pools(plain=Context(stance="permits", system="Plain.")))[1] == []


def test_a_larger_n_asks_for_the_new_ranks_alone(bench: Bench) -> None:
    four, _ = bench.sample(tasks(3), pools(4))
    six, asked = bench.sample(tasks(3), pools(6))
    assert sorted(asked) == sorted(("plain", f"Problem {i}", k) for i in range(3) for k in (4, 5))
    head = six.candidates.filter(six.candidates["k"] < 4)
    assert head.equals(four.candidates)
    assert bench.sample(tasks(3), pools(2))[1] == []


def test_a_hole_in_a_pool_is_filled_exactly(bench: Bench) -> None:
    refuse = Bench(bench.folder, lambda m, k, s, t: Reply(key="", completion=None, error="busy") if k == 1 else f"{k}")
    outcome, _ = refuse.sample(tasks(3), pools())
    assert outcome.entries[0].dropped == {"busy": 3}
    _, asked = bench.sample(tasks(3), pools())
    assert [k for _, _, k in asked] == [1, 1, 1]


@pytest.mark.parametrize(
    "change", [{"temperature": 0.9}, {"top_p": 0.9}, {"max_tokens": 255}, {"seed": 1}, {"name": "another script"}]
)
def test_whatever_is_sent_is_part_of_the_key(change: dict[str, Any], bench: Bench) -> None:
    first, _ = bench.sample(tasks(3), pools())
    second, asked = bench.sample(tasks(3), pools(), **change)
    assert len(asked) == 12
    assert not set(first.candidates["reply_key"]) & set(second.candidates["reply_key"])
    assert len(bench.sample(tasks(3), pools())[1]) == 0


def test_order_of_tasks_and_pools_changes_no_reply(bench: Bench) -> None:
    wanted = pools(plain=PLAIN, allow=ALLOW)
    first, _ = bench.sample(tasks(6), wanted)
    turned, asked = bench.sample(tasks(6)[::-1], wanted[::-1])
    assert asked == []
    assert turned.candidates.sort("candidate_id").equals(first.candidates.sort("candidate_id"))


def test_more_tasks_buy_theirs(bench: Bench) -> None:
    bench.sample(tasks(5), pools())
    _, asked = bench.sample(tasks(15), pools())
    assert sorted(asked) == sorted(("plain", f"Problem {i}", k) for i in range(5, 15) for k in range(4))


def test_equal_prompts_share_replies_and_both_tasks_get_rows(bench: Bench) -> None:
    outcome, asked = bench.sample(tasks(2, text=lambda i: "the same"), pools())
    assert len(asked) == 4
    assert sorted(outcome.candidates["task_id"]) == ["t000"] * 4 + ["t001"] * 4
    assert outcome.candidates["candidate_id"].n_unique() == 8
    assert outcome.entries[0].as_json() == {"stage": "sample", "scope": "plain", "in": 8, "kept": 8, "dropped": {}}


def test_two_contexts_with_one_text_share_replies(bench: Bench) -> None:
    outcome, asked = bench.sample(tasks(2), pools(one=PLAIN, two=PLAIN))
    assert len(asked) == 8 and len(outcome.candidates) == 16


def test_seeds_differ_between_ranks_and_prompts(bench: Bench) -> None:
    outcome, _ = bench.sample(tasks(10), pools(4, plain=PLAIN, allow=ALLOW))
    assert outcome.candidates["seed"].n_unique() == len(outcome.candidates) == 80
    assert outcome.candidates["seed"].min() >= 0  # type: ignore[operator]


def test_a_failure_is_counted_by_reason_and_never_becomes_text(bench: Bench) -> None:
    def script(messages: Any, k: int, seed: int, tag: str) -> Reply:
        return Reply(key="", completion=None, error="too busy") if k == 0 else Reply(key="", completion="")

    outcome, _ = Bench(bench.folder, script).sample(tasks(3), pools(2))
    assert outcome.failed == 3 and outcome.entries[0].dropped == {"too busy": 3}
    assert outcome.candidates["completion"].to_list() == ["", "", ""]
    assert outcome.candidates["k"].to_list() == [1, 1, 1]


def test_too_many_failures_stop_and_keep_what_came(bench: Bench) -> None:
    half = Bench(bench.folder, lambda m, k, s, t: Reply(key="", completion=None, error="down") if k % 2 else f"{k}")
    with pytest.raises(BuildStopped, match=r"limits.max_failure_rate: 6 completions failed and 3 may; most often \(6\): down"):
        half.sample(tasks(3), pools(), limit=3)
    assert len(bench.sample(tasks(3), pools())[1]) == 6


def test_half_characters_of_a_model_become_the_replacement_character(bench: Bench) -> None:
    torn = Bench(bench.folder, lambda m, k, s, t: Reply(key="", completion="a\ud83d b", reasoning="\udc00", model="m\ud800"))
    outcome, _ = torn.sample(tasks(1), pools(1))
    assert outcome.candidates["completion"].to_list() == ["a\ufffd b"]
    assert outcome.candidates["reasoning"].to_list() == ["\ufffd"]


def test_a_policy_that_raises_loses_nothing_that_came(bench: Bench) -> None:
    from recontext_data.core.errors import PolicyError

    def script(messages: Any, k: int, seed: int, tag: str) -> str:
        if messages[-1]["content"] == "Problem 3":
            raise PolicyError("the key was refused")
        return "fine"

    with pytest.raises(PolicyError, match="the key was refused"):
        Bench(bench.folder, script).sample(tasks(5), pools())
    _, asked = bench.sample(tasks(5), pools())
    assert {text for _, text, _ in asked} == {"Problem 3", "Problem 4"}


def test_candidates_in_parts_are_the_same_as_at_once(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, wanted = tasks(40, text=lambda i: f"Problem {i % 30}"), pools(3)  # ten prompts stand there twice
    whole, _ = bench.sample(some, wanted)
    policy = FakePolicy(bench.script, name="script")
    with ReplyStore(bench.folder) as store:
        for chunk in (1, 7, 50, 1024):  # less than 3 is one prompt at a time
            monkeypatch.setattr(wanted_module, "CHUNK", chunk)
            for in_one in (0, 1024):
                monkeypatch.setattr(sample_module, "IN_ONE", in_one)
                ready = plan(some, wanted, sampling=SamplingParams(), seed=0, identity=dict(policy.identity), store=store)
                assert not ready.requests
                parts = list(Collected(ready, store=store, failures={}))
                assert len(parts) == (1 if in_one else len(ready.wanted.parts))
                assert pl.concat(parts).equals(whole.candidates)
    folder = RunFolder(tmp_path, recipe="small", fingerprint="f")
    folder.path.mkdir(parents=True)
    folder.write_parts("candidates", (part for part in whole.candidates.iter_slices(11)))
    assert pl.read_parquet(folder.path / "candidates.parquet").equals(whole.candidates)


def test_candidates_in_parts_leave_out_what_failed_and_say_why(bench: Bench) -> None:
    ready, failures = None, {}
    with ReplyStore(bench.folder) as store:
        ready = plan(tasks(9), pools(2), sampling=SamplingParams(), seed=0, identity="x", store=store)
        keys = ready.wanted.table()["reply_key"].to_list()
        store.append([Reply(key=key, completion=f"said {key}") for key in keys if key not in keys[3:6]])
        failures = {keys[4]: "refused"}
        collected = Collected(ready, store=store, failures=failures)
        assert [len(part) for part in collected] == [15] and [len(part) for part in collected] == [15]
    (entry,) = collected.entries
    assert (entry.rows_in, entry.kept, entry.dropped) == (18, 15, {"no reply": 2, "refused": 1})
