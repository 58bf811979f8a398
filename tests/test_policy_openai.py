"""The OpenAI policy against a real server on loopback that behaves as the servers of this world do."""

import asyncio
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the tests' server is made of it")

from aiohttp import web
from pydantic import ValidationError

from recontext_data.core.errors import PolicyError, SetupError
from recontext_data.core.records import Message, Reply, Request, SamplingParams, content_hash, derive_seed
from recontext_data.policies.openai.chat import OPENAI, OpenAIConfig
from tests.fault_server import Faults, FaultServer, Mode, always, completion, refusal, text_for

KEY = "sk-planted-5f0c1e7a9b"


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def request(text: str, *, n: int = 1, **sampling: Any) -> Request:
    messages: list[Message] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return Request(
        messages=messages,
        sampling=SamplingParams(**sampling),
        ks=tuple(range(n)),
        seeds=tuple(derive_seed(text, k) for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
        tag="never sent",
    )


def said(one: Request, k: int, place: int = 0) -> str:
    """What the server says where k's seed was sent and its choice came at `place`."""
    return f"{one.messages[-1]['content']}/{one.seeds[k] & 0x7FFFFFFF}/{place}"


def ask(server: FaultServer, requests: Sequence[Request], **fields: Any) -> dict[str, Reply]:
    config = OpenAIConfig(**{"model": "m", "base_url": server.base_url, "max_retries": 0, **fields})

    async def collect() -> list[Reply]:
        policy = config.build()
        try:
            return [reply async for reply in policy.sample(requests)]
        finally:
            await policy.close()

    replies = asyncio.run(collect())
    assert sorted(reply.key for reply in replies) == sorted(key for one in requests for key in one.keys)
    assert all((reply.completion is None) != (reply.error is None) for reply in replies)
    assert KEY not in repr(replies)
    return {reply.key: reply for reply in replies}


def one_reply(mode: Faults | Mode, **fields: Any) -> Reply:
    with FaultServer(mode) as server:
        (reply,) = ask(server, [request("hello")], **fields).values()
    return reply


def refused(mode: Faults | Mode, requests: Sequence[Request] | None = None, **fields: Any) -> str:
    with FaultServer(mode) as server, pytest.raises(PolicyError) as caught:
        ask(server, requests or [request("hello")], **fields)
    whole = "".join(traceback.format_exception(caught.value))
    assert KEY not in whole
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_several_completions_are_one_request() -> None:
    one = request("hello", n=4)
    with FaultServer(Faults()) as server:
        replies = ask(server, [one])
    assert [replies[key].completion for key in one.keys] == [said(one, 0, place) for place in range(4)]
    assert [body["n"] for body in server.bodies] == [4]
    assert [replies[key].prompt_tokens for key in one.keys] == [10, None, None, None]
    assert [replies[key].completion_tokens for key in one.keys] == [28, None, None, None]


def test_what_is_sent() -> None:
    one = request("hello", temperature=0.7, top_p=0.9, max_tokens=33)
    with FaultServer(Faults()) as server:
        ask(server, [one])
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "n": 1,
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 33,
            "seed": one.seeds[0] & 0x7FFFFFFF,
        }
    ]
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


def test_the_token_limit_has_the_servers_name_for_it() -> None:
    with FaultServer(Faults()) as server:
        ask(server, [request("x")], max_tokens_field="max_completion_tokens")
    assert "max_completion_tokens" in server.bodies[0] and "max_tokens" not in server.bodies[0]
    assert OpenAIConfig(model="m").base_url == OPENAI


def test_extra_body_adds_replaces_and_leaves_out() -> None:
    with FaultServer(Faults()) as server:
        ask(server, [request("x")], extra_body={"reasoning_effort": "low", "temperature": None, "top_p": 0.5})
    body = server.bodies[0]
    assert (body["reasoning_effort"], body["top_p"]) == ("low", 0.5)
    assert "temperature" not in body


def test_a_server_that_ignores_n_is_asked_for_the_rest_one_by_one() -> None:
    requests = [request(f"p{i}", n=4) for i in range(6)]
    with FaultServer(Faults(n="ignored")) as server:
        replies = ask(server, requests, max_concurrency=1)
    for one in requests:
        assert [replies[key].completion for key in one.keys] == [said(one, k) for k in range(4)]
        assert [replies[key].completion_tokens for key in one.keys] == [7] * 4
        assert [replies[key].prompt_tokens for key in one.keys] == [10] * 4, "each was a request of its own"
    assert len(server.bodies) == 24
    assert [body["n"] for body in server.bodies].count(1) == 23, "one look is enough"


def test_a_server_that_gives_fewer_is_asked_for_the_missing() -> None:
    one = request("hello", n=5)
    with FaultServer(Faults(n="two")) as server:
        replies = ask(server, [one])
    assert [body["n"] for body in server.bodies] == [5, 3, 1]
    wanted = [said(one, 0, 0), said(one, 0, 1), said(one, 2, 0), said(one, 2, 1), said(one, 4, 0)]
    assert [replies[key].completion for key in one.keys] == wanted


def test_a_server_that_gives_more_is_cut() -> None:
    reply = one_reply(always(lambda body: web.json_response(completion(body, texts=["a", "b", "c"]))))
    assert reply.completion == "a"


def test_a_server_that_refuses_n_is_noticed_once() -> None:
    requests = [request(f"p{i}", n=3) for i in range(5)]
    with FaultServer(Faults(n="refused")) as server:
        replies = ask(server, requests, max_concurrency=1)
    for one in requests:
        assert [replies[key].completion for key in one.keys] == [said(one, k) for k in range(3)]
    assert [body["n"] for body in server.bodies] == [3] + [1] * 15


def test_a_refused_prompt_is_an_error_reply_and_the_others_go_on() -> None:
    async def mode(body: dict[str, Any], count: int) -> web.Response:
        if body["messages"][-1]["content"] == "bad":
            return refusal(400, "this prompt\nis too long", code="context_length_exceeded")
        return web.json_response(completion(body, texts=[text_for(body, i) for i in range(body["n"])]))

    bad, good = request("bad", n=3), request("good", n=3)
    with FaultServer(mode) as server:
        replies = ask(server, [bad, good])
    assert {replies[key].error for key in bad.keys} == {"status 400: this prompt is too long"}
    assert [replies[key].completion for key in good.keys] == [said(good, 0, place) for place in range(3)]
    assert all(body["n"] == 3 for body in server.bodies if body["messages"][-1]["content"] == "good")


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not() -> None:
    assert one_reply(Faults(latency_seconds=0.3), timeout_seconds=5.0).completion is not None
    assert one_reply(Faults(latency_seconds=5.0), timeout_seconds=0.2).error == "no answer within policy.timeout_seconds=0.2"


def test_time_in_the_queue_is_no_timeout() -> None:
    with FaultServer(Faults(latency_seconds=0.2)) as server:
        replies = ask(server, [request(f"p{i}") for i in range(8)], max_concurrency=1, timeout_seconds=0.8)
    assert all(reply.error is None for reply in replies.values())
    assert server.most_at_once == 1


def test_requests_run_side_by_side_up_to_the_limit() -> None:
    with FaultServer(Faults(latency_seconds=0.1)) as server:
        ask(server, [request(f"p{i}") for i in range(40)], max_concurrency=20)
    assert 10 < server.most_at_once <= 20


def test_replies_that_are_no_json() -> None:
    reply = one_reply(always(lambda _: web.Response(text="<html>gateway</html>", content_type="text/html")))
    assert reply.error == "the server's reply is not JSON: <html>gateway</html>"


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, [], {"choices": {}}])
def test_replies_without_choices(body: Any) -> None:
    assert one_reply(always(lambda _: web.json_response(body))).error == "the server sent no choices"


def test_an_error_with_status_200_is_an_error() -> None:
    reply = one_reply(always(lambda _: web.json_response({"error": {"message": "provider is down"}})))
    assert reply.error == "provider is down"


def test_null_content_is_no_completion() -> None:
    reply = one_reply(always(lambda body: web.json_response(completion(body, texts=[None]))))
    assert (reply.completion, reply.error) == (None, "empty content (finish_reason stop)")
    assert (reply.finish_reason, reply.prompt_tokens) == ("stop", 10)


def test_an_empty_text_is_a_completion() -> None:
    assert one_reply(always(lambda body: web.json_response(completion(body, texts=[""])))).completion == ""


def test_a_refusal_is_something_the_model_said() -> None:
    reply = one_reply(always(lambda body: web.json_response(completion(body, texts=[None], refusal="I cannot."))))
    assert (reply.completion, reply.error, reply.finish_reason) == ("I cannot.", None, "stop")
    assert reply.details == {"refusal": True, "cached_tokens": 4}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(field: str) -> None:
    reply = one_reply(always(lambda body: web.json_response(completion(body, texts=["B"], **{field: "A? No."}))))
    assert (reply.completion, reply.reasoning) == ("B", "A? No.")


def test_finish_reasons_are_kept() -> None:
    def filtered(body: dict[str, Any]) -> web.Response:
        answer = completion(body, texts=["half"])
        answer["choices"][0]["finish_reason"] = "content_filter"
        return web.json_response(answer)

    reply = one_reply(always(filtered))
    assert (reply.completion, reply.finish_reason) == ("half", "content_filter")


def test_nulls_and_missing_fields_are_taken_leniently() -> None:
    answer = {
        "choices": [{"message": {"content": "yes", "tool_calls": None}, "finish_reason": None}],
        "usage": None,
        "model": None,
    }
    reply = one_reply(always(lambda _: web.json_response(answer)))
    assert (reply.completion, reply.prompt_tokens, reply.model) == ("yes", None, "")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_makes_all_requests_pointless_stops_the_run(status: int) -> None:
    # The server quotes the key, as some do, with a text so long that cutting it would leave half a key.
    words = refused(always(lambda _: refusal(status, f"key {KEY} or model is wrong {'x' * 470} {KEY}")))
    assert f"status {status}: key [key] or model is wrong" in words
    assert "sk-planted" not in words


def test_a_spent_quota_stops_the_run() -> None:
    assert "no credit" in refused(always(lambda _: refusal(429, "no credit", code="insufficient_quota")))


def test_what_was_under_way_is_handed_over_before_the_run_stops() -> None:
    async def mode(body: dict[str, Any], count: int) -> web.Response:
        if body["messages"][-1]["content"] == "p3":
            return refusal(403, "stop here")
        await asyncio.sleep(0.3)
        return web.json_response(completion(body, texts=["paid"]))

    arrived: list[Reply] = []

    async def collect(base_url: str) -> None:
        policy = OpenAIConfig(model="m", base_url=base_url, max_concurrency=4, max_retries=0).build()
        try:
            async for reply in policy.sample([request(f"p{i}") for i in range(100)]):
                arrived.append(reply)
        finally:
            await policy.close()

    with FaultServer(mode) as server, pytest.raises(PolicyError, match="stop here"):
        asyncio.run(collect(server.base_url))
    assert [reply.completion for reply in arrived] == ["paid"] * 3
    assert len(server.bodies) == 4


def test_nobody_at_the_address() -> None:
    with FaultServer(Faults()) as gone:
        pass
    with pytest.raises(PolicyError, match=r"m at 127.0.0.1:\d+: cannot reach http.*check policy.base_url") as caught:
        ask(gone, [request("hello")])
    assert "\n" not in str(caught.value)


def test_a_connection_lost_later_is_an_error_reply() -> None:
    async def mode(body: dict[str, Any], count: int) -> web.StreamResponse:
        if count == 0:
            return web.json_response(completion(body, texts=["first"]))
        return web.StreamResponse(headers={"Content-Length": "1000"})  # promises a body that never comes

    with FaultServer(mode) as server:
        replies = ask(server, [request("a"), request("b")], max_concurrency=1, timeout_seconds=1.0)
    errors = [reply.error for reply in replies.values() if reply.error]
    assert len(errors) == 1


def test_without_aiohttp_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported
    with FaultServer() as server:
        monkeypatch.setitem(sys.modules, "aiohttp", None)
        with pytest.raises(SetupError, match="pip install aiohttp"):
            ask(server, [request("hello")])


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    words = refused(Faults())
    assert words == "no API key: set OPENAI_API_KEY in the environment; for a local server set policy.api_key_env=''"
    assert "no API key: set OTHER_KEY " in refused(Faults(), api_key_env="OTHER_KEY")


def test_the_key_comes_from_the_named_variable_without_its_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "other-key\n")
    with FaultServer(Faults()) as server:
        ask(server, [request("x")], api_key_env="OTHER_KEY")
    assert server.seen[0].headers["Authorization"] == "Bearer other-key"


def test_a_key_that_cannot_be_sent_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\nmore")
    assert "OPENAI_API_KEY has characters that no key has" in refused(Faults())


def test_a_server_that_needs_no_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    with FaultServer(Faults()) as server:
        ask(server, [request("x")], api_key_env="")
    assert KEY not in json.dumps([one.headers for one in server.seen])


def test_the_environment_does_not_choose_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert one_reply(Faults()).completion is not None


def test_a_policy_outlives_an_event_loop() -> None:
    with FaultServer(Faults()) as server:
        policy = OpenAIConfig(model="m", base_url=server.base_url, max_retries=0).build()

        async def once() -> list[Reply]:
            return [reply async for reply in policy.sample([request("x")])]

        assert asyncio.run(once()) == asyncio.run(once())


def test_ctrl_c_leaves_nothing_running() -> None:
    async def interrupted(base_url: str) -> set[asyncio.Task[Any]]:
        policy = OpenAIConfig(model="m", base_url=base_url).build()
        replies = policy.sample([request(f"p{i}") for i in range(10)])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(replies)), timeout=0.3)
        await policy.close()
        return asyncio.all_tasks() - {asyncio.current_task()}

    with FaultServer(Faults(latency_seconds=30)) as server:
        assert asyncio.run(interrupted(server.base_url)) == set()


def test_identity_is_server_model_and_extra_body() -> None:
    def identity(**fields: Any) -> str:
        return content_hash(OpenAIConfig(**{"model": "m", **fields}).build().identity)

    same = identity(max_concurrency=3, timeout_seconds=1, max_retries=1, api_key_env="X", base_url=OPENAI + "/")
    assert same == identity()
    others: list[dict[str, Any]] = [{"model": "other"}, {"base_url": "http://127.0.0.1:1/v1"}, {"extra_body": {"a": 1}}]
    assert len({identity(), *(identity(**fields) for fields in others)}) == 4
    assert OpenAIConfig(model="m").build().count_tokens(request("x").messages) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"base_url": "http://me:secret@127.0.0.1/v1"}, "must not carry a user or password"),
        ({"extra_body": {"n": 3}}, "policy.extra_body must not set n"),
        ({"extra_body": {"stream": True}}, "policy.extra_body must not set stream"),
        ({"api_key": KEY}, "Extra inputs are not permitted"),
        ({"max_concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OpenAIConfig(**{"model": "m", **fields})
