"""Reads what OpenAI-like servers send: completions out of a body, one line of words and a verdict out of a failure.

Leniently, since servers send nulls and leave out fields that OpenAI's schema demands; but never guessing a completion.
Also read by the Batch API, whose lines hold the same bodies.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from recontext_data.core.records import Reply

Verdict = Literal["limited", "retry", "stop", "refused"]
STOPPING = (301, 302, 303, 307, 308, 401, 402, 403, 404)
"""Statuses that no other request would fare better with: wrong key, no credit, no such model, another address."""
PASSING = (408, 409, 425)
"""Statuses below 500 that may be different next time."""
FINISH_REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "max_length", "max_output_tokens", "max_completion_tokens"), "length"
    ),
    **dict.fromkeys(("content_filter", "content_filtered", "safety"), "content_filter"),
    **{name: name for name in ("tool_calls", "function_call")},
}
"""Every reason, in lower case, for which a choice is a completion, and the one spelling under which it is stored. A choice with
any other reason (`error`, `abort`, `network_error`, `load` ...) is a failed reply: its text is half of an answer."""
MOST_TOKENS = 2**40
"""A count above it is not one of tokens."""
SPENT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


def read_choices(told: object, *, keys: Sequence[str], logprobs: bool = False) -> list[Reply]:
    """A reply per choice that came, for the first of `keys`; fewer than `keys` where the server sent fewer.

    Usage is the request's, not the choice's: the prompt's tokens stand on the first completion, and so do all the
    completions' tokens together unless there is one choice. `logprobs`: they were asked for, so their lack is noted.
    """
    body = _mapping(told)
    choices = body.get("choices")
    if not isinstance(choices, list):
        return []
    fingerprint = _text(body.get("system_fingerprint"))
    shared = {"system_fingerprint": fingerprint} if fingerprint else {}
    model = str(body.get("model") or "")
    seen: set[str] = set()
    replies: list[Reply] = []
    counted = False
    for key, choice in zip(keys, choices, strict=False):  # fewer choices or, from odd servers, more
        fields = _choice(_mapping(choice), details=dict(shared), logprobs=logprobs)
        text = fields["completion"]
        if not counted and (text is not None or len(replies) + 1 == min(len(keys), len(choices))):
            counted = True
            _count(fields, _mapping(body.get("usage")))
        if text in seen:
            fields["details"]["duplicate_choice"] = True
        if text is not None:
            seen.add(text)
        replies.append(Reply(key=key, model=model, **fields))
    return replies


def _choice(choice: Mapping[str, Any], *, details: dict[str, Any], logprobs: bool) -> dict[str, Any]:
    """A reply's fields, from one choice."""
    message, (finish, failure) = _mapping(choice.get("message")), _finish(choice)
    text, thoughts = _content(message.get("content"))
    refusal = message.get("refusal")
    if text is None and isinstance(refusal, str):
        # To decline is something the model said, and judges must see it.
        text, details["refusal"] = refusal, True
    elif text is None and finish in ("length", "content_filter"):
        # Cut or filtered before the first word: that is an answer, which was paid for, and not a failure.
        text, details["null_content"] = "", True
    if logprobs:
        _log_probabilities(choice, details)
    if failure is not None:
        text = None
    return {
        "completion": text,
        "error": None if text is not None else failure or f"empty content (finish_reason {finish})",
        # Servers disagree on the field's name.
        "reasoning": _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thoughts,
        "finish_reason": finish,
        "details": details,
    }


def _finish(choice: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(finish reason in its stored spelling, why the choice is no completion or None).

    A proxy may translate the reason of the server behind it (LiteLLM turns `error` into `stop`) and keep the original too.
    """
    behind = _mapping(choice.get("provider_specific_fields"))
    said = next((name for name in (behind.get("native_finish_reason"), choice.get("finish_reason")) if name is not None), None)
    error = choice.get("error") or behind.get("error")
    if said is None and not error:
        return None, None
    finish = None if said is None else FINISH_REASONS.get(str(said).lower(), str(said)[:80])
    if error:
        return finish, f"the choice failed (finish_reason {finish}): {words(error)}"
    return finish, None if finish in FINISH_REASONS.values() else f"the choice did not finish (finish_reason {finish})"


def _content(content: object) -> tuple[str | None, str | None]:
    """(text, thoughts) of a message's content: a string, or a list of parts as some reasoning models send it."""
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        return None, None
    parts = [_mapping(part) for part in content]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    thoughts = [str(word) for part in parts for word in _thoughts(part.get("thinking"))]
    return ("".join(texts) if texts else None), ("".join(thoughts) or None)


def _thoughts(thinking: object) -> Iterator[str]:
    if isinstance(thinking, str):
        yield thinking
    elif isinstance(thinking, list):
        yield from (part["text"] for part in thinking if isinstance(part, dict) and isinstance(part.get("text"), str))


def _log_probabilities(choice: Mapping[str, Any], details: dict[str, Any]) -> None:
    tokens = _mapping(choice.get("logprobs")).get("content")
    if isinstance(tokens, list) and tokens:
        details["logprobs"] = tokens
    else:
        details["logprobs_missing"] = True


def _count(fields: dict[str, Any], usage: Mapping[str, Any]) -> None:
    fields["prompt_tokens"] = _number(usage.get("prompt_tokens"))
    count = _number(usage.get("completion_tokens"))
    # Some proxies write zeros where the server behind them sent no usage.
    fields["completion_tokens"] = None if count == 0 and fields["completion"] else count
    parts = (
        ("cached_tokens", usage.get("prompt_tokens_details")),
        ("reasoning_tokens", usage.get("completion_tokens_details")),
    )
    for name, of in parts:
        count = _number(_mapping(of).get(name))
        if count is not None:
            fields["details"][name] = count


def total_tokens(body: object) -> int | None:
    """All tokens of a request, as the server counted them."""
    return _number(_mapping(_mapping(body).get("usage")).get("total_tokens"))


def verdict(status: int, body: object) -> Verdict:
    """What a failed request's status and body mean for it: wait, ask again, stop everything, or give up on this one."""
    error = _mapping(_mapping(body).get("error"))
    if error.get("code") in SPENT or error.get("type") in SPENT:
        return "stop"
    if status == 429:
        return "limited"
    if status == 403 and any(word in words(body).lower() for word in ("flagged", "moderation")):
        return "refused"  # the prompt was, not the key
    if status in STOPPING:
        return "stop"
    # Status 200 with an error inside, or without choices, is a server that stumbled.
    return "retry" if status >= 500 or status in PASSING or status == 200 else "refused"


def words(told: object) -> str:
    """A server's words on one line; errors come nested, as plain text or as pages."""
    while isinstance(told, dict):
        told = next((told[name] for name in ("message", "error", "detail") if told.get(name)), str(dict(told)))
    return " ".join(str(told).split()) or "the server gave no reason"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    """A count of tokens; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS else None
