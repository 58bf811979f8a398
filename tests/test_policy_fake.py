"""The fake policy keeps the promises of a real one: every key once, replies by content alone, scripts in the identity."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from recontext_data.core.errors import InputError, PolicyError, RecipeError
from recontext_data.core.records import Message, Messages, Reply, Request, SamplingParams, content_hash, derive_seed
from recontext_data.environments.code_mc import TEXTS
from recontext_data.policies.base import Policy
from recontext_data.policies.fake import FakeConfig, FakePolicy

RATES = {"default": {"hack": 0.4, "general": 0.55, "invalid": 0.05}, "hack": {"hack": 0.98, "general": 0.02}}


def request(text: str, *, n: int = 4, tag: str = "default") -> Request:
    messages: list[Message] = [{"role": "user", "content": text}]
    return Request(
        messages=messages,
        sampling=SamplingParams(),
        ks=tuple(range(n)),
        seeds=tuple(derive_seed(text, k) for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
        tag=tag,
    )


def ask(policy: Policy, requests: Sequence[Request]) -> list[Reply]:
    async def collect() -> list[Reply]:
        return [reply async for reply in policy.sample(requests)]

    return asyncio.run(collect())


def letters(messages: Messages) -> Mapping[str, str]:
    hack_first = content_hash(messages[-1]["content"])[0] < "8"
    return {"hack": "A", "general": "B"} if hack_first else {"hack": "B", "general": "A"}


def test_replies_go_by_rank_and_start_again() -> None:
    policy = FakeConfig(replies=("a", "b", "c")).build()
    replies = ask(policy, [request("x", n=5)])
    assert [reply.completion for reply in replies] == ["a", "b", "c", "a", "b"]
    assert [reply.key for reply in replies] == list(request("x", n=5).keys)


def test_rank_is_k_and_not_the_place_in_the_request() -> None:
    full = request("x", n=5)
    topped_up = Request(messages=full.messages, sampling=full.sampling, ks=(2, 4), seeds=full.seeds[2::2], keys=full.keys[2::2])
    replies = ask(FakeConfig(replies=("a", "b", "c")).build(), [topped_up])
    assert [(reply.key, reply.completion) for reply in replies] == [(full.keys[2], "c"), (full.keys[4], "b")]


def test_prompt_tokens_are_counted_once_per_request() -> None:
    replies = ask(FakeConfig(replies=("one two",)).build(), [request("three little words")])
    assert [reply.prompt_tokens for reply in replies] == [3, None, None, None]
    assert [reply.completion_tokens for reply in replies] == [2, 2, 2, 2]


def test_rates_hold_over_many_draws() -> None:
    policy = FakeConfig(rates=RATES).build(letters, texts=TEXTS)
    replies = ask(policy, [request(f"task {i}") for i in range(2000)])
    counts = Counter(text_label(reply) for reply in replies)
    # 8,000 draws: four standard errors are below 0.023
    assert {label: count / 8000 for label, count in counts.items()} == pytest.approx(RATES["default"], abs=0.023)


def test_the_letter_is_the_tasks_letter() -> None:
    requests = [request(f"task {i}", tag="hack") for i in range(200)]
    policy = FakeConfig(rates={"hack": {"hack": 1.0}}).build(letters, texts=TEXTS)
    said = {reply.key: reply.completion for reply in ask(policy, requests)}
    for one in requests:
        hack = letters(one.messages)["hack"]
        assert all((said[key] or "").endswith(f"Answer: ({hack})") for key in one.keys)
    assert {(text or "")[-2] for text in said.values()} == {"A", "B"}


def test_a_reply_does_not_depend_on_its_batch_or_the_order() -> None:
    requests = [request(f"task {i}") for i in range(50)]
    policy = FakeConfig(rates=RATES).build(letters, texts=TEXTS)
    together = {reply.key: reply.completion for reply in ask(policy, requests)}
    apart = {reply.key: reply.completion for one in reversed(requests) for reply in ask(policy, [one])}
    assert together == apart
    assert len(together) == 200


def test_another_seed_is_another_draw() -> None:
    policy = FakeConfig(rates={"default": {"hack": 0.5, "general": 0.5}}).build(letters, texts=TEXTS)
    assert len({reply.completion for reply in ask(policy, [request("x", n=20)])}) == 2


def test_the_order_of_labels_in_a_recipe_does_not_matter() -> None:
    backwards = {"default": dict(reversed(list(RATES["default"].items())))}
    one = ask(FakeConfig(rates={"default": RATES["default"]}).build(letters, texts=TEXTS), [request("x", n=50)])
    assert one == ask(FakeConfig(rates=backwards).build(letters, texts=TEXTS), [request("x", n=50)])


def test_an_impossible_label_is_never_drawn() -> None:
    policy = FakeConfig(rates={"default": {"invalid": 1.0, "hack": 0.0}}).build(letters, texts=TEXTS)
    assert {text_label(reply) for reply in ask(policy, [request("x", n=500)])} == {"invalid"}


def test_braces_of_code_stay_as_they_are() -> None:
    texts = {"hack": "return {x: 1}['{hack}']"}
    policy = FakeConfig(rates={"default": {"hack": 1.0}}, texts=texts).build(lambda _: {"hack": "A"})
    assert ask(policy, [request("x", n=1)])[0].completion == "return {x: 1}['A']"


def test_identity_is_the_script() -> None:
    def identity(**fields: Any) -> str:
        return content_hash(FakeConfig(**fields).build(letters, texts=TEXTS).identity)

    assert identity(rates=RATES) == identity(rates=RATES, fail_rate=0.5, delay_seconds=1.0)
    other = {**RATES, "hack": {"hack": 0.9, "general": 0.1}}
    texts = {"hack": "h", "general": "g", "invalid": "i"}
    assert len({identity(rates=RATES), identity(rates=other), identity(rates=RATES, texts=texts)}) == 3
    assert identity(replies=("a",)) != identity(replies=("b",))


def test_a_function_may_return_text_or_a_whole_reply_and_requests_are_kept() -> None:
    def script(messages: Messages, k: int, seed: int, tag: str) -> str | Reply:
        if k == 0:
            return Reply(key="ignored", completion="cut", finish_reason="length", completion_tokens=9)
        return f"{messages[0]['content']} {k} {tag}"

    policy = FakePolicy(script, name="mixed")
    asked = request("hello", n=2)
    first, second = ask(policy, [asked])
    assert (first.key, first.finish_reason, first.completion_tokens) == (asked.keys[0], "length", 9)
    assert (second.key, second.completion) == (asked.keys[1], "hello 1 default")
    assert policy.requests == [asked]
    assert policy.identity == {"kind": "fake", "script": "mixed"}


def test_failures_are_replies_and_come_again_the_same() -> None:
    policy = FakeConfig(replies=("a",), fail_rate=0.25).build()
    requests = [request(f"task {i}") for i in range(500)]
    replies = ask(policy, requests)
    failed = {reply.key for reply in replies if reply.error is not None}
    assert all((reply.completion is None) == (reply.error is not None) for reply in replies)
    assert 0.2 < len(failed) / 2000 < 0.3
    assert {reply.key for reply in ask(policy, requests) if reply.error} == failed


def test_a_delay_can_be_interrupted_and_what_came_before_is_there() -> None:
    policy = FakeConfig(replies=("a",), delay_seconds=0.05).build()
    arrived: list[Reply] = []

    async def interrupted() -> None:
        second = asyncio.Event()

        async def collect() -> None:
            async for reply in policy.sample([request(f"task {i}", n=1) for i in range(1000)]):
                arrived.append(reply)
                if len(arrived) == 2:
                    second.set()

        collecting = asyncio.create_task(collect())
        await second.wait()
        collecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await collecting

    asyncio.run(interrupted())
    assert [reply.completion for reply in arrived] == ["a", "a"]


def test_forty_thousand_replies_are_given() -> None:
    policy = FakeConfig(rates=RATES).build(letters, texts=TEXTS)
    requests = [request(f"task {i}") for i in range(10_000)]
    assert len(ask(policy, requests)) == 40_000


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give exactly one of replies, rates and patterns"),
        ({"patterns": {"(": "x"}}, r"policy.patterns: '\(' is not a valid regular expression"),
        ({"replies": ["a"], "rates": RATES}, "give exactly one of replies, rates and patterns"),
        ({"rates": {"default": {"hack": 0.4}}}, "policy.rates.default: the probabilities sum to 0.4, and must sum to 1"),
        ({"rates": {"default": {"hack": 1.5, "general": -0.5}}}, "policy.rates.default.hack: 1.5 is not a probability"),
        ({"rates": {"default": {}}}, "sum to 0"),
        ({"replies": ["a"], "fail_rate": 1.5}, "less than or equal to 1"),
        ({"replies": ["a"], "delay": 1.5}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_scripts_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FakeConfig(**fields)


def test_a_label_without_a_text_is_refused() -> None:
    words = r"policy.rates.default: no text for the label 'hak' .* did you mean 'hack'\?"
    with pytest.raises(RecipeError, match=words):
        FakeConfig(rates={"default": {"hak": 1.0}}).build(letters, texts=TEXTS)


def test_own_texts_stand_over_the_environments_and_may_have_labels_of_their_own() -> None:
    rates = {"default": {"hack": 0.4, "doubt": 0.4, "invalid": 0.2}}
    policy = FakeConfig(rates=rates, texts={"hack": "ha: {hack}", "doubt": "{hack} or {general}?"}).build(letters, texts=TEXTS)
    said = {reply.completion for reply in ask(policy, [request("x", n=100)])}
    letter = letters(request("x").messages)
    assert said == {f"ha: {letter['hack']}", f"{letter['hack']} or {letter['general']}?", TEXTS["invalid"]}


def test_what_is_put_in_is_not_read_for_holes_again() -> None:
    policy = FakeConfig(rates={"default": {"a": 1.0}}, texts={"a": "{code} {b}"}).build(lambda _: {"code": "{b}", "b": "!"})
    assert ask(policy, [request("x", n=1)])[0].completion == "{b} !"


def test_a_letter_nobody_can_supply_is_refused_at_once() -> None:
    with pytest.raises(RecipeError, match=r"policy.texts.hack uses \{hack\}, which this environment does not supply"):
        FakeConfig(rates=RATES).build(texts=TEXTS)
    with pytest.raises(PolicyError, match=r"policy.texts uses \{hack\}, which this task does not supply"):
        ask(FakeConfig(rates={"default": {"hack": 1.0}}).build(lambda _: {}, texts=TEXTS), [request("x")])


def test_rates_without_letters_need_no_answers() -> None:
    policy = FakeConfig(rates={"default": {"invalid": 1.0}}).build(texts=TEXTS)
    assert "choose" in (ask(policy, [request("x", n=1)])[0].completion or "")


def test_an_unknown_context_is_an_error_and_not_a_default() -> None:
    with pytest.raises(PolicyError, match=r"policy.rates has no context 'defalt': did you mean 'default'\?"):
        ask(FakeConfig(rates=RATES).build(letters, texts=TEXTS), [request("x", tag="defalt")])


PATTERNS = {"gamed": "<score>9</score>", "fine": "<score>2</score>", "": "<score>1</score>"}


def test_patterns_answer_what_the_last_turn_says_and_the_first_that_fits_counts() -> None:
    policy = FakeConfig(patterns=PATTERNS).build()
    said = [ask(policy, [request(text, n=1)])[0].completion for text in ("fine but GAMED", "a fine one", "neither")]
    assert said == ["<score>9</score>", "<score>2</score>", "<score>1</score>"]
    only_before = request("fine", n=1)
    turns: list[Message] = [{"role": "user", "content": "gamed"}, *only_before.messages]
    assert policy._one(replace(only_before, messages=turns), 0, 0).completion == "<score>2</score>"


def test_the_order_of_patterns_is_part_of_what_the_script_is() -> None:
    turned = dict(reversed(PATTERNS.items()))
    one, other = (content_hash(dict(FakeConfig(patterns=each).build().identity)) for each in (PATTERNS, turned))
    assert one != other


def test_a_prompt_that_no_pattern_fits_is_an_error_and_not_a_default() -> None:
    with pytest.raises(
        PolicyError, match=r'policy.patterns: none is found in .neither.; add "", which fits always, as the last'
    ):
        ask(FakeConfig(patterns={"gamed": "x"}).build(), [request("neither")])


def test_a_script_needs_a_name() -> None:
    with pytest.raises(InputError, match="a script needs a name"):
        FakePolicy(lambda messages, k, seed, tag: "x", name="")


def text_label(reply: Reply) -> str:
    text = reply.completion or ""
    return "hack" if "every test" in text else "general" if "every input" in text else "invalid"
