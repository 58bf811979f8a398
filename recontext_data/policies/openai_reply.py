"""Reads what OpenAI-like servers send: completions out of a body, one line of words out of a failure.

Leniently, since servers send nulls and leave out fields that OpenAI's schema demands; but never guessing a completion.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.records import Reply

if TYPE_CHECKING:
    from openai import APIError


def read_choices(body: Any, *, keys: Sequence[str]) -> list[Reply]:
    """A reply per choice that came, for the first of `keys`; fewer than `keys` where the server sent fewer.

    Usage is the request's, not the choice's: the prompt's tokens stand on the first reply, and so do all the completions'
    tokens together unless there is one choice.
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list):
        return []
    usage = _mapping(body.get("usage"))
    shared = {"system_fingerprint": body["system_fingerprint"]} if body.get("system_fingerprint") else {}
    model = body.get("model") or ""
    replies = []
    for i, (key, choice) in enumerate(zip(keys, choices, strict=False)):  # fewer choices or, from odd servers, more
        tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if i == 0 else (None, None)
        replies.append(_read_choice(_mapping(choice), key=key, model=str(model), tokens=tokens, shared=shared))
    return replies


def _read_choice(
    choice: Mapping[str, Any], *, key: str, model: str, tokens: tuple[int | None, int | None], shared: Mapping[str, Any]
) -> Reply:
    message, finish = _mapping(choice.get("message")), choice.get("finish_reason")
    text, refusal = message.get("content"), message.get("refusal")
    details = dict(shared)
    if text is None and isinstance(refusal, str):
        # To decline is something the model said, and judges must see it.
        text, details["refusal"] = refusal, True
    failed = None if isinstance(text, str) else f"empty content (finish_reason {finish})"
    return Reply(
        key=key,
        completion=text if isinstance(text, str) else None,
        error=failed,
        # Servers disagree on the field's name.
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        finish_reason=finish,
        model=model,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        details=details,
    )


def failure(error: "APIError", *, base_url: str, timeout_seconds: float) -> str:
    """One line about a failed request: the status and the server's words, or what happened on the way."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return f"no answer within policy.timeout_seconds={timeout_seconds:g}"
    if isinstance(error, APIConnectionError):
        cause = type(error.__cause__).__name__ if error.__cause__ else "connection error"
        return f"cannot reach {base_url} ({cause}): check policy.base_url and that the server runs"
    if isinstance(error, APIStatusError):
        return f"status {error.status_code}: {words(error.body if error.body is not None else error.message)}"
    return words(error.message)


def words(told: Any) -> str:
    """A server's words on one line; errors come nested, as plain text or as pages."""
    while isinstance(told, dict):
        told = next((told[name] for name in ("message", "error", "detail") if told.get(name)), str(dict(told)))
    return " ".join(str(told).split()) or "the server gave no reason"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
