"""What is wanted: keys that are the content hashes they say they are, and requests that are made as they are pulled."""

from collections.abc import Sequence
from typing import Any

import pytest

from recontext_data.contexts import Context, render
from recontext_data.records import Request, Sampling, Task, content_hash, derive_seed
from recontext_data.stages import wanted as module
from recontext_data.stages.sample import Pool
from recontext_data.stages.wanted import Requests, wanted

SYSTEM = Context(stance="neutral", system="Plain.")
HOW = content_hash("how")


def task(name: str, text: str) -> Task:
    return Task(task_id=name, messages=[{"role": "user", "content": text}], payload={}, split="train")


def pool(name: str, context: Context | None = None, *, n: int = 3) -> Pool:
    return Pool(name=name, context=context, n=n, role="arms")


def requests(tasks: Sequence[Task], pools: Sequence[Pool], *, without: Sequence[str] = ()) -> Requests:
    rows = wanted(tasks, pools, drawn=HOW, seed=1)
    return Requests(rows.filter(~rows["reply_key"].is_in(without)), tasks=tasks, pools=pools, sampling=Sampling())


@pytest.mark.parametrize("name", ["t1", 'a "quoted" \\ name', "ünï/\n\t\x01", "\u2028 🧪"])
def test_every_key_is_the_content_hash_of_what_it_stands_for(name: str) -> None:
    tasks, pools = [task(name, "é")], [pool(name, SYSTEM, n=12), pool("other", n=2)]
    rows = wanted(tasks, pools, drawn=HOW, seed=7).to_dicts()
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
    whole = wanted(tasks, pools, drawn=HOW, seed=1)
    for chunk in (1, 4, 7):
        monkeypatch.setattr(module, "CHUNK", chunk)
        assert wanted(tasks, pools, drawn=HOW, seed=1).equals(whole)


def test_a_request_has_the_messages_ranks_seeds_and_keys_of_its_rows() -> None:
    tasks, pools = [task("a", "one"), task("b", "two")], [pool("plain", SYSTEM), pool("bare", n=1)]
    asked = requests(tasks, pools)
    rows = wanted(tasks, pools, drawn=HOW, seed=1)
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
    keys = wanted(tasks, [pool("p")], drawn=HOW, seed=1)["reply_key"].to_list()
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
        ("two", "odd", (0, 1, 2)),
        ("two", "even", (0, 1, 2)),
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
    assert len(wanted([], [pool("p")], drawn=HOW, seed=1)) == 0
    assert list(requests([], [pool("p")])) == []
