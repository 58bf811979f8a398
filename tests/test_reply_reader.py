"""What a server's choice may hold: reasons that mean failure, spellings of `length`, counts that cannot be."""

from typing import Any

import pytest

from recontext_data.core.records import Reply
from recontext_data.policies.openai.reply import read_choices


def read(usage: Any = None, **choice: Any) -> Reply:
    body = {"choices": [{"message": {"content": "Code: def f("}, **choice}], "model": "m", "usage": usage}
    (reply,) = read_choices(body, keys=["key"])
    return reply


@pytest.mark.parametrize("reason", ["error", "abort", "network_error", "load", "cancelled", "something new", "", 7])
def test_a_reason_that_is_not_known_to_be_good_is_a_failed_reply(reason: object) -> None:
    reply = read(finish_reason=reason)
    assert reply.completion is None and f"finish_reason {reason}" in (reply.error or "")


def test_a_choice_that_carries_an_error_has_failed_and_says_why() -> None:
    reply = read(finish_reason="error", error={"code": 502, "message": "upstream closed"})
    assert reply.completion is None and reply.error == "the choice failed (finish_reason error): upstream closed"
    assert read(finish_reason="stop", error={"message": "half"}).completion is None


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_every_spelling_of_a_cut_completion_is_length(reason: str) -> None:
    reply = read(finish_reason=reason)
    assert (reply.completion, reply.finish_reason) == ("Code: def f(", "length")


@pytest.mark.parametrize(("reason", "stored"), [("stop", "stop"), ("STOP", "stop"), ("eos_token", "stop"), (None, None)])
def test_a_finished_completion_is_kept(reason: str | None, stored: str | None) -> None:
    reply = read(finish_reason=reason)
    assert (reply.completion, reply.finish_reason, reply.error) == ("Code: def f(", stored, None)


@pytest.mark.parametrize(("native", "finish", "kept"), [("error", "error", False), ("model_length", "length", True)])
def test_the_reason_of_the_server_behind_a_proxy_wins(native: str, finish: str, kept: bool) -> None:
    reply = read(finish_reason="stop", provider_specific_fields={"native_finish_reason": native})
    assert (reply.completion is not None) is kept and reply.finish_reason == finish
    assert read(finish_reason="stop", provider_specific_fields={"error": {"code": 502}}).completion is None


@pytest.mark.parametrize("count", [-1, -192_000, 2**63, 2**64, 1e308, float("nan"), float("inf"), "12", True, None, [], 0])
def test_a_count_that_cannot_be_is_null(count: object) -> None:
    reply = read({"prompt_tokens": 3, "completion_tokens": count}, finish_reason="stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, None)


def test_no_tokens_are_no_contradiction_of_an_empty_completion() -> None:
    body = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}], "usage": {"completion_tokens": 0}}
    assert read_choices(body, keys=["key"])[0].completion_tokens == 0


def test_a_fingerprint_that_is_not_text_is_left_out() -> None:
    nested: Any = "deep"
    for _ in range(600):
        nested = [nested]
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "system_fingerprint": nested}
    assert read_choices(body, keys=["key"])[0].details == {}
