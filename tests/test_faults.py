"""The OpenAI policy against a server that does on request whatever servers do to their clients: nothing may get lost."""

import asyncio
import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the tests' server is made of it")

from aiohttp import web

from recontext_data.core.errors import PolicyError
from recontext_data.core.records import Reply, Request, SamplingParams, content_hash, derive_seed
from recontext_data.policies.openai.chat import OpenAIConfig
from recontext_data.policies.openai.http import retry_after
from tests.fault_server import Body, Faults, FaultServer, Mode, answer_to, completion, refusal

KEY = "sk-planted-5f0c1e7a9b"


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def request(text: str, *, n: int = 1) -> Request:
    return Request(
        messages=[{"role": "user", "content": text}],
        sampling=SamplingParams(),
        ks=tuple(range(n)),
        seeds=tuple(derive_seed(text, k) for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
    )


def several(num: int, *, n: int = 1) -> list[Request]:
    return [request(f"p{i}", n=n) for i in range(num)]


def ask(server: FaultServer, requests: Iterable[Request], **fields: Any) -> list[Reply]:
    async def collect() -> list[Reply]:
        policy = OpenAIConfig(model="m", base_url=server.base_url, **fields).build()
        try:
            return [reply async for reply in policy.sample(requests)]
        finally:
            await policy.close()

    replies = asyncio.run(collect())
    assert max(Counter(reply.key for reply in replies).values(), default=1) == 1
    return replies


def asked(mode: Faults | Mode, requests: Iterable[Request], **fields: Any) -> tuple[list[Reply], FaultServer]:
    with FaultServer(mode) as server:
        return ask(server, requests, **fields), server


def the_one(mode: Faults | Mode, *, n: int = 1, **fields: Any) -> Reply:
    replies, _ = asked(mode, [request("hello", n=n)], **fields)
    return min(replies, key=lambda reply: reply.key != content_hash(["hello", 0]))


# --- failures that pass


NOW_AND_THEN = [
    Faults(fail_rate=0.15),
    Faults(reset_rate=0.15),
    Faults(cut_rate=0.15),
    Faults(truncate_rate=0.15),
    Faults(garbage_rate=0.15),
]


@pytest.mark.parametrize("faults", NOW_AND_THEN)
def test_what_fails_now_and_then_is_asked_again(faults: Faults) -> None:
    replies, server = asked(faults, several(100))
    assert [reply.error for reply in replies] == [None] * 100
    assert len(server.seen) > 100


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
def test_statuses_that_are_tried_again(status: int) -> None:
    assert the_one(Faults(fail_first=2, fail_status=status), max_retries=2).completion is not None


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_statuses_that_are_not(status: int) -> None:
    (reply,), server = asked(Faults(fail_rate=1.0, fail_status=status), several(1))
    assert reply.error == f"status {status}: try again"
    assert len(server.seen) == 1


def test_a_failure_that_lasts_is_a_reply_with_the_servers_words() -> None:
    replies, server = asked(Faults(fail_rate=1.0, fail_status=503), [request("hello", n=2)], max_retries=1)
    assert [reply.error for reply in replies] == ["status 503: try again"] * 2
    assert len(server.seen) == 2


def test_a_silent_server_is_left_after_the_timeout_and_asked_again() -> None:
    replies, server = asked(Faults(hang_rate=0.3), several(20), timeout_seconds=0.3)
    assert all(reply.error is None for reply in replies)
    assert len(server.seen) > 20
    reply = the_one(Faults(hang_rate=1.0), timeout_seconds=0.1, max_retries=1)
    assert reply.error == "no answer within policy.timeout_seconds=0.1"


def test_half_a_body_is_no_answer() -> None:
    for faults in (Faults(cut_rate=1.0), Faults(reset_rate=1.0)):
        assert "the connection broke before the answer was whole" in str(the_one(faults, max_retries=1).error)
    assert "is not JSON" in str(the_one(Faults(truncate_rate=1.0), max_retries=0).error)


def test_prompts_that_are_always_refused_do_not_hold_up_the_others() -> None:
    requests = several(50, n=2) + [request(f"poison {i}", n=2) for i in range(5)]
    replies, server = asked(Faults(poison="poison"), requests)
    failed = [reply for reply in replies if reply.completion is None]
    assert len(replies) == 110 and len(failed) == 10
    assert {reply.error for reply in failed} == {"status 400: the prompt is too long: poison"}
    assert len([body for body in server.bodies if "poison" in body["messages"][0]["content"]]) <= 10


def test_an_upstream_error_in_a_body_with_status_200_has_its_own_status() -> None:
    async def mode(body: Body, count: int) -> web.Response:
        if count == 0:
            return web.json_response({"error": {"message": "slow down", "code": 429}})
        return web.json_response(completion(body, texts=["yes"]))

    assert the_one(mode, max_retries=0).completion == "yes"


# --- rate limits


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_a_rate_limit_costs_no_reply_and_no_attempt(form: Any) -> None:
    faults = Faults(rate_per_second=60, burst=20, latency_seconds=0.02, retry_after=form)
    replies, server = asked(faults, several(120), max_retries=0)
    assert [reply.error for reply in replies] == [None] * 120
    assert server.statuses[429] > 0


def test_a_server_that_wishes_for_no_wait_is_not_run_over() -> None:
    until = time.monotonic() + 1.0

    async def mode(body: Body, count: int) -> web.Response:
        if time.monotonic() < until:
            return refusal(429, "not now", headers={"Retry-After": "0"})
        return web.json_response(completion(body, texts=["yes"]))

    replies, server = asked(mode, several(10))
    assert [reply.completion for reply in replies] == ["yes"] * 10
    assert len(server.seen) < 80


def test_a_wish_beyond_all_patience_stops_the_run() -> None:
    async def mode(body: Body, count: int) -> web.Response:
        return refusal(429, "daily limit", headers={"Retry-After": "86400"})

    with pytest.raises(PolicyError, match=r"daily limit \(it wishes a pause of 86,400 s"):
        asked(mode, several(3))


def test_both_forms_of_retry_after_are_read() -> None:
    now = 1_800_000_000.0
    date, later = formatdate(now, usegmt=True), formatdate(now + 7, usegmt=True)
    assert retry_after({"Retry-After": "3"}, now=now) == 3.0
    assert retry_after({"Retry-After": "0.5"}, now=now) == 0.5
    assert retry_after({"retry-after-ms": "250", "Retry-After": "3"}, now=now) == 0.25
    assert retry_after({"Retry-After": later}, now=now) == 7.0
    assert retry_after({"Retry-After": later, "Date": date}, now=now - 999) == 7.0, "by the server's own clock"
    assert retry_after({"Retry-After": date}, now=now + 5) == 0.0
    for nonsense in ("", "soon", "-3", "nan", "inf"):
        assert retry_after({"Retry-After": nonsense}, now=now) in (None, 0.0, 1e9)


# --- n


def test_choices_are_counted_whatever_came() -> None:
    for n in ("honoured", "ignored", "refused", "two", "one_more"):
        requests = several(6, n=5)
        replies, _ = asked(Faults(n=n), requests)
        assert sorted(reply.key for reply in replies) == sorted(key for one in requests for key in one.keys), n
        assert all(reply.completion for reply in replies), n


def test_missing_choices_are_asked_for_with_the_seeds_of_their_own_ranks() -> None:
    one = request("hello", n=5)
    _, server = asked(Faults(n="two"), [one])
    assert [(body["n"], body["seed"]) for body in server.bodies] == [
        (n, one.seeds[k] & 0x7FFFFFFF) for n, k in ((5, 0), (3, 2), (1, 4))
    ]


def test_a_refusal_of_n_is_noticed_once_and_the_rest_are_asked_side_by_side() -> None:
    _, server = asked(
        Faults(n="refused", latency_seconds=0.05), [request("hello", n=20), *several(4, n=20)], max_concurrency=16
    )
    several_asked = [i for i, body in enumerate(server.bodies) if body["n"] > 1]
    assert len(several_asked) <= 5 and max(several_asked) < 10
    assert server.most_at_once > 8


def test_equal_choices_are_kept_and_noted() -> None:
    replies, _ = asked(Faults(same_choices=True), [request("hello", n=3)])
    assert len({reply.completion for reply in replies}) == 1
    assert sorted(bool(reply.details.get("duplicate_choice")) for reply in replies) == [False, True, True]


# --- what is kept


def test_log_probabilities_are_kept_when_asked_for() -> None:
    reply = the_one(Faults(), logprobs=2)
    assert [len(token["top_logprobs"]) for token in reply.details["logprobs"]] == [2]
    assert "logprobs" not in the_one(Faults()).details
    assert the_one(Faults(logprobs=False), logprobs=0).details["logprobs_missing"] is True
    assert "logprobs" not in OpenAIConfig(model="m").build().identity
    assert OpenAIConfig(model="m", logprobs=0).build().identity["logprobs"] == 0


def test_usage_is_kept_with_cached_tokens_once_per_request() -> None:
    replies, _ = asked(Faults(), [request("hello", n=4)])
    assert [reply.prompt_tokens for reply in replies].count(10) == 1
    assert sum(reply.completion_tokens or 0 for reply in replies) == 28
    assert [reply.details.get("cached_tokens") for reply in replies].count(4) == 1


def test_nulls_that_the_schema_forbids_are_read() -> None:
    assert the_one(Faults(nulls=True), n=2).completion == the_one(Faults(), n=2).completion


def test_refusals_and_filters_are_kept_as_such() -> None:
    reply = the_one(Faults(refuses=True))
    assert (reply.completion, reply.details["refusal"]) == ("I cannot help.", True)
    reply = the_one(Faults(filters=True))
    assert (reply.completion, reply.finish_reason, reply.error) == ("", "content_filter", None)


@pytest.mark.parametrize("raw", [b'"half \\ud83d"', b'"caf\\u00e9"'])
def test_text_that_strict_readers_refuse(raw: bytes) -> None:
    async def mode(body: Body, count: int) -> web.Response:
        answer = json.dumps(completion(body, texts=["TEXT"])).encode().replace(b'"TEXT"', raw)
        return web.Response(body=answer.replace(b'"logprobs": null', b'"logprobs": {"content": [{"logprob": -Infinity}]}'))

    said = the_one(mode, max_retries=0, logprobs=0).completion
    assert said in ("half \ufffd", "café")


def test_content_in_parts() -> None:
    async def mode(body: Body, count: int) -> web.Response:
        answer = completion(body, texts=[None])
        parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "A"}]
        answer["choices"][0]["message"]["content"] = parts
        return web.json_response(answer)

    reply = the_one(mode)
    assert (reply.completion, reply.reasoning) == ("A", "hm")


# --- pulled lazily


def test_requests_are_pulled_only_as_there_is_room() -> None:
    pulled = 0

    def supply() -> Iterator[Request]:
        nonlocal pulled
        for one in several(100):
            pulled += 1
            yield one

    async def first(base_url: str) -> int:
        replies = OpenAIConfig(model="m", base_url=base_url, max_concurrency=5).build().sample(supply())
        await anext(aiter(replies))
        await replies.aclose()  # type: ignore[attr-defined]
        return pulled

    with FaultServer(Faults(latency_seconds=0.05)) as server:
        assert asyncio.run(first(server.base_url)) <= 15
        assert pulled <= 15


def test_a_supply_that_ends_early_ends_the_run_with_what_was_pulled() -> None:
    spent = False

    def supply() -> Iterator[Request]:
        for one in several(1000):
            if spent:
                return
            yield one

    async def spend(base_url: str) -> int:
        nonlocal spent
        count = 0
        async for _ in OpenAIConfig(model="m", base_url=base_url, max_concurrency=8).build().sample(supply()):
            count += 1
            spent = count >= 20
        return count

    with FaultServer(Faults(latency_seconds=0.01)) as server:
        came = asyncio.run(spend(server.base_url))
        assert 20 <= came < 20 + 2 * 8
        assert len(server.seen) == came


def test_a_supply_that_raises_is_heard() -> None:
    def supply() -> Iterator[Request]:
        yield from several(3)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        asked(Faults(latency_seconds=0.01), supply(), max_concurrency=2)


def test_no_requests_are_no_trouble() -> None:
    assert asked(Faults(), [])[0] == []


# --- the key


@pytest.mark.parametrize("faults", [Faults(echoes_key=True), Faults(echoes_key=True, fail_rate=1.0, fail_status=400)])
def test_an_echoed_key_is_blotted_out(faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    replies, _ = asked(faults, several(2, n=2))
    assert all("[key]" in (reply.completion or reply.error or "") for reply in replies)
    assert KEY not in repr(replies) and KEY not in caplog.text


def test_a_key_in_json_escapes_is_blotted_out() -> None:
    async def mode(body: Body, count: int) -> web.Response:
        hidden = KEY.replace("s", "\\u0073", 1)
        return web.Response(
            body=json.dumps(completion(body, texts=["KEY"])).replace("KEY", hidden), content_type="application/json"
        )

    assert the_one(mode).completion == "[key]"


def test_an_exception_holds_no_key() -> None:
    with pytest.raises(PolicyError) as caught:
        asked(Faults(echoes_key=True, fail_rate=1.0, fail_status=401), several(1))
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert "status 401: try again Bearer [key]" in str(caught.value)


# --- the server itself


def without_nullable(schema: Any) -> Any:
    """OpenAPI's old `nullable: true` as JSON Schema says it."""
    if isinstance(schema, list):
        return [without_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: without_nullable(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def test_requests_and_the_servers_replies_are_as_openai_publishes(shared: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: it reads OpenAI's contract")
    contract = json.loads((shared / "contracts" / "openai-openapi.json").read_text())
    schemas = without_nullable(contract["components"])

    def check(value: Any, name: str) -> None:
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": schemas})

    _, server = asked(Faults(), [request("hello", n=3)], logprobs=2, max_tokens_field="max_completion_tokens")
    asked_with = server.bodies[0]
    check(asked_with, "CreateChatCompletionRequest")
    for faults in (Faults(), Faults(refuses=True), Faults(filters=True), Faults(n="two"), Faults(same_choices=True)):
        check(answer_to(asked_with, faults), "CreateChatCompletionResponse")
    check(json.loads(refusal(400, "no").body), "ErrorResponse")  # type: ignore[arg-type]
    with pytest.raises(jsonschema.ValidationError):
        check(answer_to(asked_with, Faults(nulls=True)), "CreateChatCompletionResponse")
    with pytest.raises(jsonschema.ValidationError):
        check({**asked_with, "n": "three"}, "CreateChatCompletionRequest")


def test_the_same_requests_meet_the_same_faults() -> None:
    first, second = (asked(Faults(fail_rate=0.3), several(30), max_retries=0)[0] for _ in range(2))
    failed = [{reply.key for reply in replies if reply.error} for replies in (first, second)]
    assert failed[0] == failed[1] and 2 < len(failed[0]) < 20
