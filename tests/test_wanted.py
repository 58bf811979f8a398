"""What is wanted: keys that are the content hashes they say they are, and requests that are made as they are pulled."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from recontext_data.contexts.context import Context, render
from recontext_data.core.records import Request, SamplingParams, Task, content_hash, derive_seed
from recontext_data.pipeline import sample_plan as module
from recontext_data.pipeline.sample import Pool
from recontext_data.pipeline.sample_plan import MissingRequests, SamplePlan

SYSTEM = Context(stance="neutral", system="Plain.")
HOW = content_hash("how")


def task(name: str, text: str) -> Task:
    return Task(task_id=name, messages=[{"role": "user", "content": text}], payload={}, split="train")


def pool(name: str, context: Context | None = None, *, n: int = 3) -> Pool:
    return Pool(name=name, context=context, n=n, role="arms")


def requests(tasks: Sequence[Task], pools: Sequence[Pool], *, without: Sequence[str] = ()) -> MissingRequests:
    every = SamplePlan(tasks, pools, drawn=HOW, seed=1)
    there = every.table()["reply_key"].is_in(without)
    return MissingRequests(every, there, tasks=tasks, pools=pools, sampling=SamplingParams())


def wanted(tasks: Sequence[Task], pools: Sequence[Pool], *, seed: int = 1) -> pl.DataFrame:
    return SamplePlan(tasks, pools, drawn=HOW, seed=seed).table()


@pytest.mark.parametrize("name", ["t1", 'a "quoted" \\ name', "ünï/\n\t\x01", "\u2028 🧪"])
def test_every_key_is_the_content_hash_of_what_it_stands_for(name: str) -> None:
    tasks, pools = [task(name, "é")], [pool(name, SYSTEM, n=12), pool("other", n=2)]
    rows = wanted(tasks, pools, seed=7).to_dicts()
    assert [row["k"] for row in rows] == [*range(12), *range(2)]
    for row in rows:
        context = SYSTEM if row["generation_context"] == name else None
        prompt = content_hash(render(tasks[0], context))
        assert row["seed"] == derive_seed(7, prompt, row["k"])
        assert row["reply_key"] == content_hash([prompt, HOW, row["seed"], row["k"]])
        parts = [row["task_id"], row["generation_context"], row["k"], row["reply_key"]]
        assert row["candidate_id"] == content_hash(parts)[:24]
        assert (row["task_id"], row["role"]) == (name, "arms")


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, pools = [task(f"t{i}", f"p{i % 5}") for i in range(9)], [pool("a", SYSTEM), pool("b", n=2)]
    whole, asked = wanted(tasks, pools), list(requests(tasks, pools))
    assert len(whole) == 45
    for chunk, held in ((1, 8), (4, 0), (7, 1)):
        monkeypatch.setattr(module, "CHUNK", chunk)
        monkeypatch.setattr(module, "HELD", held)  # the others wait on disk
        assert wanted(tasks, pools).equals(whole)
        assert list(requests(tasks, pools)) == asked
        assert list(requests(tasks, pools, without=[whole["reply_key"][3]]))[1].ks == (1, 2)


def test_very_many_are_in_about_as_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(module, "PARTS", 5)
    every = SamplePlan([task(f"t{i}", f"p{i}") for i in range(40)], [pool("a"), pool("b", n=2)], drawn=HOW, seed=1)
    assert len(every) == 200 and every.counts == {"a": 120, "b": 80}
    assert [len(part) for part in every] == [39, 39, 39, 3, 40, 40] == [part.num_rows for part in every.parts]
    assert [part.first_task for part in every.parts] == [0, 13, 26, 39, 0, 20]


def test_a_request_has_the_messages_ranks_seeds_and_keys_of_its_rows() -> None:
    tasks, pools = [task("a", "one"), task("b", "two")], [pool("plain", SYSTEM), pool("bare", n=1)]
    asked = requests(tasks, pools)
    rows = wanted(tasks, pools)
    assert [(one.tag, one.messages[-1]["content"]) for one in asked] == [
        ("plain", "one"),
        ("plain", "two"),
        ("bare", "one"),
        ("bare", "two"),
    ]
    assert [one.messages[0]["role"] for one in asked] == ["system", "system", "user", "user"]
    for name in ("k", "seed", "reply_key"):
        field = {"k": "ks", "seed": "seeds", "reply_key": "keys"}[name]
        assert [value for one in asked for value in getattr(one, field)] == rows[name].to_list()
    assert len(asked) == 4 and asked.num_completions == 8
    assert list(asked) == list(asked), "they can be listed again"


def test_only_missing_ranks_are_asked_for_and_whole_prompts_vanish() -> None:
    tasks = [task("a", "one"), task("b", "two")]
    keys = wanted(tasks, [pool("p")])["reply_key"].to_list()
    asked = requests(tasks, [pool("p")], without=[keys[1], *keys[3:]])
    (only,) = asked
    assert (only.ks, only.keys) == ((0, 2), (keys[0], keys[2]))
    assert (len(asked), asked.num_completions) == (1, 2)
    nothing = requests(tasks, [pool("p")], without=keys)
    assert not nothing and list(nothing) == [] and nothing.num_completions == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_equal_prompts_of_tasks_and_pools_are_one_request_each_key_once(order: tuple[int, ...]) -> None:
    tasks = [task(f"t{i}", "odd" if i % 2 else "even") for i in order]
    asked = requests(tasks, [pool("two", n=2), pool("three", n=3), pool("other", SYSTEM, n=1)])
    assert {(one.tag, one.messages[-1]["content"], one.ks) for one in asked} == {
        ("three", "odd", (0, 1, 2)),  # where most of it is wanted
        ("three", "even", (0, 1, 2)),
        ("other", "odd", (0,)),
        ("other", "even", (0,)),
    }
    keys = [key for one in asked for key in one.keys]
    assert len(keys) == len(set(keys)) == asked.num_completions == 8
    assert len(asked) == 4


def test_a_request_is_made_when_it_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Request] = []

    def counted(**fields: Any) -> Request:
        made.append(Request(**fields))
        return made[-1]

    monkeypatch.setattr(module, "Request", counted)
    asked = requests([task(f"t{i}", f"p{i}") for i in range(50)], [pool("p")])
    assert (len(asked), bool(asked), asked.num_completions, len(made)) == (50, True, 150, 0)
    pulled = iter(asked)
    assert [next(pulled), next(pulled)] == made


def test_no_tasks_want_nothing() -> None:
    assert len(wanted([], [pool("p")])) == 0
    assert list(requests([], [pool("p")])) == []
