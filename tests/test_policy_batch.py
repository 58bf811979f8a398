"""The Batch API against a stateful server on loopback: nothing lost, nothing bought twice, everything matched by content."""

import asyncio
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import PolicyError
from recontext_data.core.records import Message, Reply, Request, SamplingParams, content_hash
from recontext_data.policies.openai.batch import OpenAIBatchConfig, OpenAIBatchPolicy
from recontext_data.policies.openai.chat import OpenAIConfig
from tests.batch_server import BatchServer, Conduct, Contract, answer, expired, refused, succeeded

KEY = "sk-planted-0123456789"


@pytest.fixture(scope="module")
def contract(shared: Path) -> Contract:
    pytest.importorskip("jsonschema", reason="jsonschema is not installed: it reads OpenAI's contract")
    return Contract(shared / "contracts" / "openai-openapi.json")


@pytest.fixture
def server(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("BATCH_TEST_KEY", KEY)
    with BatchServer(contract) as running:
        yield running


def config(server: BatchServer, **fields: Any) -> OpenAIBatchConfig:
    fixed = {"model": "m", "base_url": server.base_url, "api_key_env": "BATCH_TEST_KEY", "poll_seconds": 0.02}
    return OpenAIBatchConfig(**{**fixed, **fields})


def request(text: str, *, ks: Sequence[int] = (0,), **sampling: Any) -> Request:
    messages: list[Message] = [{"role": "user", "content": text}]
    return Request(
        messages=messages,
        sampling=SamplingParams(**sampling),
        ks=tuple(ks),
        seeds=tuple(1000 + k for k in ks),
        keys=tuple(content_hash([text, k]) for k in ks),
    )


def requests(count: int, n: int = 2) -> list[Request]:
    return [request(f"prompt {i}", ks=range(n)) for i in range(count)]


def ask(policy: OpenAIBatchPolicy, wanted: Sequence[Request], *, stop_after: int | None = None) -> dict[str, Reply]:
    async def collect() -> list[Reply]:
        replies = []
        stream = policy.sample(iter(wanted))
        async for reply in stream:
            replies.append(reply)
            if len(replies) == stop_after:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        await policy.close()
        return replies

    replies = asyncio.run(collect())
    assert len({reply.key for reply in replies}) == len(replies), "every key once"
    if stop_after is None:
        assert {reply.key for reply in replies} == {key for one in wanted for key in one.keys}
    return {reply.key: reply for reply in replies}


def texts(replies: dict[str, Reply]) -> dict[str, str | None]:
    return {key: reply.completion for key, reply in replies.items()}


def expected(wanted: Sequence[Request]) -> dict[str, str | None]:
    return {
        key: f"{one.messages[-1]['content']}/{one.seeds[0]}/{i}" for one in wanted for i, key in enumerate(one.keys)
    }  # fmt: skip


def errors(replies: dict[str, Reply]) -> set[str | None]:
    return {reply.error for reply in replies.values()}


def test_a_line_per_prompt_and_every_choice_finds_its_key(server: BatchServer) -> None:
    wanted = requests(5, n=3)
    replies = ask(config(server).build(), wanted)
    assert texts(replies) == expected(wanted)
    (batch,) = server.batches.values()
    lines = server.lines(batch)
    assert [line["body"]["n"] for line in lines] == [3] * 5
    assert (batch["completion_window"], batch["endpoint"]) == ("24h", "/v1/chat/completions")
    assert [replies[key].prompt_tokens for key in wanted[0].keys] == [10, None, None], "a prompt is billed once"
    assert server.keys == {f"Bearer {KEY}"}


def test_the_body_is_that_of_single_requests(server: BatchServer) -> None:
    one = request("hello", ks=(2, 3), temperature=0.5, top_p=0.9, max_tokens=17)
    ask(config(server, extra_body={"top_p": None, "reasoning_effort": "low"}).build(), [one])
    (batch,) = server.batches.values()
    assert server.lines(batch)[0]["body"] == {
        "model": "m", "messages": [{"role": "user", "content": "hello"}], "n": 2, "temperature": 0.5, "max_tokens": 17,
        "seed": 1002, "reasoning_effort": "low",
    }  # fmt: skip


def test_identity_is_that_of_single_requests(server: BatchServer) -> None:
    policy = config(server, extra_body={"a": 1}).build()
    same = OpenAIConfig(model="m", base_url=server.base_url, extra_body={"a": 1}).build()
    assert policy.identity == same.identity
    assert policy.count_tokens([]) is None
    assert KEY not in json.dumps(dict(policy.identity)) + policy.description


def test_files_are_split_by_count_and_by_bytes(server: BatchServer) -> None:
    wanted = requests(7)
    assert texts(ask(config(server, max_requests_per_file=3).build(), wanted)) == expected(wanted)
    assert sorted(len(server.lines(batch)) for batch in server.batches.values()) == [1, 3, 3]
    largest = max(len(data) for name, data in server.files.items() if name.startswith("file-"))
    ask(config(server, model="other", max_bytes_per_file=largest - 1).build(), wanted)
    for batch in list(server.batches.values())[3:]:
        assert len(server.files[batch["input_file_id"]]) < largest
    assert len(server.batches) > 6


def test_more_choices_than_a_request_may_have_are_several_lines(server: BatchServer) -> None:
    replies = ask(config(server).build(), [request("x", ks=range(130))])
    (batch,) = server.batches.values()
    assert sorted(line["body"]["n"] for line in server.lines(batch)) == [2, 128]
    assert None not in texts(replies).values()


def test_nothing_wanted_is_nothing_sent(server: BatchServer) -> None:
    assert ask(config(server).build(), []) == {}
    assert server.log == []


def test_what_was_bought_is_read_again_and_not_bought_again(server: BatchServer) -> None:
    wanted = requests(4)
    first = ask(config(server).build(), wanted)
    # Another process without any memory; the requests in another order.
    assert texts(ask(config(server).build(), wanted[::-1])) == texts(first)
    assert len(server.batches) == 1


def test_the_rest_of_a_batch_whose_replies_were_half_stored(server: BatchServer, tmp_path: Path) -> None:
    wanted = requests(6, n=3)
    stored = ask(config(server).build(tmp_path), wanted, stop_after=7)
    rest = []
    for one in wanted:
        ks = [k for k, key in zip(one.ks, one.keys, strict=True) if key not in stored]
        rest += [request(str(one.messages[-1]["content"]), ks=ks)] if ks else []
    assert any(len(one.ks) < 3 for one in rest), "a prompt's choices were torn apart"
    replies = ask(config(server).build(tmp_path), rest)
    assert texts(stored) | texts(replies) == expected(wanted)
    assert len(server.batches) == 1


def test_another_model_or_more_completions_are_bought(server: BatchServer, tmp_path: Path) -> None:
    wanted = requests(2)
    ask(config(server).build(tmp_path), wanted)
    ask(config(server, model="other").build(tmp_path), wanted)
    assert len(server.batches) == 2
    more = [request(f"prompt {i}", ks=range(3)) for i in range(2)]
    ask(config(server).build(tmp_path), more)
    newest = list(server.batches.values())[2]
    assert [(line["body"]["n"], line["body"]["seed"]) for line in server.lines(newest)] == [(1, 1002)] * 2


CLIENT = """
import asyncio, sys
from pathlib import Path
from tests.test_policy_batch import OpenAIBatchConfig, requests
config = OpenAIBatchConfig(model="m", base_url=sys.argv[1], api_key_env="BATCH_TEST_KEY", poll_seconds=0.02)
async def main():
    state = Path(sys.argv[2]) if sys.argv[2] else None
    async for reply in config.build(state).sample(requests(20)):
        print(reply.key, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("remembers", [True, False])
def test_kill_9_while_the_batch_runs(server: BatchServer, tmp_path: Path, remembers: bool) -> None:
    server.conduct = Conduct(seconds=1.5)
    state = tmp_path if remembers else None
    client = subprocess.Popen([sys.executable, "-c", CLIENT, server.base_url, str(state or "")], stdout=subprocess.PIPE)
    wait_for(lambda: bool(server.batches) and server.log[-1] == "GET batches")
    client.kill()
    client.communicate()
    assert texts(ask(config(server).build(state), requests(20))) == expected(requests(20))
    assert len(server.batches) == 1


def test_kill_9_while_the_file_goes_up_and_while_replies_come(server: BatchServer, tmp_path: Path) -> None:
    """At whatever request it dies, exactly one batch is created for what is wanted."""
    for number, moment in enumerate(["POST files", "POST batches"]):
        client = subprocess.Popen([sys.executable, "-c", CLIENT, server.base_url, str(tmp_path)], stdout=subprocess.PIPE)
        wait_for(functools.partial(server.log.__contains__, moment))
        client.kill()
        client.communicate()
        assert len(server.batches) <= 1, number
    client = subprocess.Popen([sys.executable, "-c", CLIENT, server.base_url, str(tmp_path)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    stored = {client.stdout.readline().decode().strip() for _ in range(5)}
    client.kill()
    client.communicate()
    rest = [one for one in requests(20) if not stored & set(one.keys)]
    assert 0 < len(rest) < 20
    assert texts(ask(config(server).build(tmp_path), rest)) == expected(rest)
    assert len(server.batches) == 1


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_builds_at_once_buy_once(server: BatchServer, tmp_path: Path) -> None:
    server.conduct = Conduct(seconds=0.5)
    arguments = [sys.executable, "-c", CLIENT, server.base_url, str(tmp_path)]
    clients = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [sorted(client.communicate(timeout=60)[0].split()) for client in clients]
    assert said[0] == said[1] == sorted(key for one in requests(20) for key in one.keys)
    assert len(server.batches) == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_a_creation_whose_answer_is_lost_is_found(server: BatchServer, lost: int) -> None:
    server.conduct = Conduct(lost_answers=lost)
    assert texts(ask(config(server).build(), requests(2))) == expected(requests(2))
    assert len(server.batches) == 1, "found by its metadata, not created again"
    assert server.log.count("POST batches") == 1


def test_an_expired_batch_gives_what_it_has(server: BatchServer, tmp_path: Path) -> None:
    def conduct(line: dict[str, Any]) -> dict[str, Any]:
        return answer(line) if line["body"]["messages"][-1]["content"] < "prompt 2" else expired(line)

    server.conduct = Conduct(ends="expired", answer=conduct)
    wanted = requests(5)
    replies = ask(config(server).build(tmp_path), wanted)
    assert {key: text for key, text in texts(replies).items() if text} == expected(wanted[:2])
    assert errors(replies) == {None, "batch expired"}
    # The next build asks for the rest, and for the rest alone.
    server.conduct = Conduct()
    assert texts(ask(config(server).build(tmp_path), wanted[2:])) == expected(wanted[2:])
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [5, 3]


def test_an_expired_batch_without_any_file(server: BatchServer) -> None:
    server.conduct = Conduct(ends="expired", answer=lambda line: None)
    assert errors(ask(config(server).build(), requests(2))) == {"batch expired"}
    server.conduct = Conduct(ends="cancelled", answer=lambda line: None)
    assert errors(ask(config(server).build(), requests(2))) == {"batch cancelled"}
    server.conduct = Conduct(answer=lambda line: None)
    assert errors(ask(config(server).build(), requests(2))) == {"the batch's files have no line for this prompt"}
    assert len(server.batches) == 3


def test_an_expired_batch_seen_only_afterwards_is_completed_by_another(server: BatchServer, tmp_path: Path) -> None:
    server.conduct = Conduct(
        ends="expired", answer=lambda line: answer(line) if line["body"]["seed"] == 1000 else expired(line)
    )
    wanted = [*requests(2), request("late", ks=(5,))]
    ask(config(server).build(tmp_path), wanted, stop_after=1)
    server.conduct = Conduct()
    replies = ask(config(server).build(tmp_path), wanted)
    assert texts(replies) == expected(wanted)
    assert [len(server.lines(batch)) for batch in server.batches.values()] == [3, 1]


def test_lines_that_failed(server: BatchServer) -> None:
    def conduct(line: dict[str, Any]) -> dict[str, Any]:
        return {
            "a": refused(line, 400, "too long"),
            "b": refused(line, 500, "overloaded", nested=True),
            "c": succeeded(line, ["only one"]),
            "d": {**succeeded(line, []), "error": {"error": {"error": {"message": "deep down"}}}, "response": None},
            "e": answer(line),
        }[line["body"]["messages"][-1]["content"]]

    server.conduct = Conduct(answer=conduct)
    wanted = [request(text, ks=range(2)) for text in "abcde"]
    replies = ask(config(server).build(), wanted)
    said = [[replies[key].completion or replies[key].error for key in one.keys] for one in wanted]
    assert said == [
        ["status 400: too long"] * 2,
        ["status 500: overloaded"] * 2,
        ["only one", "the server sent 1 of 2 choices"],
        ["deep down"] * 2,
        ["e/1000/0", "e/1000/1"],
    ]


def test_what_failed_is_asked_again_and_not_read_again(server: BatchServer, tmp_path: Path) -> None:
    server.conduct = Conduct(answer=lambda line: refused(line, 500, "overloaded"))
    assert errors(ask(config(server).build(tmp_path), requests(2))) == {"status 500: overloaded"}
    server.conduct = Conduct()
    assert texts(ask(config(server).build(tmp_path), requests(2))) == expected(requests(2))


def test_a_batch_that_failed_its_validation(server: BatchServer) -> None:
    told = {"code": "invalid", "message": f"model m does not exist for {KEY}", "param": "model", "line": 1}
    server.conduct = Conduct(ends="failed", errors=[told])
    with pytest.raises(PolicyError, match=r"batch batch-0 failed: model m does not exist for \[key\] \(line 1\)") as caught:
        ask(config(server).build(), requests(2))
    assert KEY not in str(caught.value)
    server.conduct = Conduct()
    assert texts(ask(config(server).build(), requests(2))) == expected(requests(2))


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_creation_is_told_in_the_servers_words(server: BatchServer, status: int) -> None:
    server.conduct = Conduct(refuses=(status, {"error": {"message": f"not with {KEY}", "type": "x", "code": "y"}}))
    with pytest.raises(PolicyError, match=rf"the batch cannot be created: status {status}: not with \[key\]") as caught:
        ask(config(server).build(), requests(2))
    assert caught.value.__cause__ is None and KEY not in str(caught.value)
    assert server.log.count("POST batches") == 1


def test_a_download_that_breaks_off_is_read_again(server: BatchServer) -> None:
    server.conduct = Conduct(broken_downloads=2)
    assert texts(ask(config(server).build(), requests(30))) == expected(requests(30))


def test_a_file_that_is_gone_is_bought_again(server: BatchServer) -> None:
    ask(config(server).build(), requests(2))
    del server.files["batch-0-output"]
    assert texts(ask(config(server).build(), requests(2))) == expected(requests(2))
    assert len(server.batches) == 2


def test_a_missing_key_and_an_address_where_nobody_is(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyError, match=r"batches cannot be listed: .*onnection error"):
        ask(config(server, base_url="http://127.0.0.1:9/v1", timeout_seconds=2.0).build(), requests(1))
    monkeypatch.delenv("BATCH_TEST_KEY")
    with pytest.raises(PolicyError, match="no API key: set BATCH_TEST_KEY"):
        ask(config(server).build(), requests(1))


def test_settings_are_checked_like_those_of_single_requests() -> None:
    with pytest.raises(ValueError, match=r"policy\.extra_body must not set n"):
        OpenAIBatchConfig(model="m", extra_body={"n": 3})
    with pytest.raises(ValueError, match="base_url"):
        OpenAIBatchConfig(model="m", base_url="no address")


def test_importing_and_building_load_nothing_heavy() -> None:
    code = (
        "import sys; from recontext_data.policies.openai.batch import OpenAIBatchConfig as C\n"
        "C(model='m').build().identity; print([m for m in ('openai', 'aiohttp', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_progress_is_told(server: BatchServer, caplog: pytest.LogCaptureFixture) -> None:
    policy = config(server).build()
    with caplog.at_level("INFO", logger="recontext_data"):
        ask(policy, requests(3))
    assert policy.progress == "batch batch-0: completed, 3 of 3 prompts done, 0 failed"
    assert "batch batch-0 is created: 3 prompts" in caplog.text
    assert KEY not in caplog.text
