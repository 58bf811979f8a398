"""The files of OpenAI's Batch API: a line per prompt going up, and lines in any order coming down.

A line's custom_id is the hash of the reply keys that it asks for, so what comes back is matched by content. A `Content` is
one input file: its lines sorted by custom_id, its name the hash of its bytes, whatever order the requests came in.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from recontext_data.core.records import Reply, Request, content_hash
from recontext_data.policies.openai.reply import read_choices, words

ENDPOINT = "/v1/chat/completions"
MOST_CHOICES = 128
"""OpenAI refuses a larger n."""
REASONS = {"batch_expired": "batch expired", "batch_cancelled": "batch cancelled"}

Body = Callable[[Request], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One prompt, for some of its completions. Its bytes are made anew when they are needed: a file has up to 200 MB."""

    custom_id: str
    request: Request
    num_bytes: int

    @classmethod
    def of(cls, request: Request, body: Body) -> "BatchLine":
        custom_id = content_hash(list(request.keys))
        return cls(custom_id, request, len(_encode(custom_id, request, body)))


@dataclass(frozen=True, slots=True)
class Content:
    """One input file, not yet sent."""

    name: str
    """SHA-256 of its bytes."""
    lines: Sequence[BatchLine]

    @property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """The reply keys of each custom_id."""
        return {line.custom_id: line.request.keys for line in self.lines}

    def encode(self, body: Body) -> bytes:
        """The file."""
        return b"".join(_encode(line.custom_id, line.request, body) for line in self.lines)


def contents(lines: Iterable[BatchLine], body: Body, *, max_lines: int, max_bytes: int) -> Iterator[Content]:
    """As few files as the limits allow. A line larger than `max_bytes` gets a file of its own."""
    part: list[BatchLine] = []
    size = 0
    for line in sorted(lines, key=lambda line: line.custom_id):
        if part and (len(part) == max_lines or size + line.num_bytes > max_bytes):
            yield _content(part, body)
            part, size = [], 0
        part.append(line)
        size += line.num_bytes
    if part:
        yield _content(part, body)


def lines_for(requests: Iterable[Request], *, keys: Mapping[str, Any] | set[str], body: Body) -> Iterator[BatchLine]:
    """A line per request, for those of its completions whose key is in `keys`; more than one only beyond `MOST_CHOICES`."""
    for request in requests:
        places = [place for place, key in enumerate(request.keys) if key in keys]
        for start in range(0, len(places), MOST_CHOICES):
            yield BatchLine.of(_part(request, places[start : start + MOST_CHOICES]), body)


def read_line(line: Mapping[str, Any], *, keys: Sequence[str], model: str) -> list[Reply]:
    """A reply for each of the keys that a line of an output or error file is about: completions, or the reason for none."""
    response, error = line.get("response"), line.get("error")
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        return errors(keys, REASONS.get(str(code)) or words(error), model=model)
    if not isinstance(response, dict):
        return errors(keys, "the line has neither a response nor an error", model=model)
    status, body = response.get("status_code"), _json(response.get("body"))
    if status != 200:
        return errors(keys, f"status {status}: {words(body)}", model=model)
    replies = read_choices(_by_index(body), keys=keys)
    if not replies:
        told = body.get("error") if isinstance(body, dict) else None
        return errors(keys, words(told) if told else "the server sent no choices", model=model)
    lost = f"the server sent {len(replies)} of {len(keys)} choices"
    return [*replies, *errors(keys[len(replies) :], lost, model=model)]


def errors(keys: Iterable[str], reason: str, *, model: str) -> list[Reply]:
    """The same reason for each key."""
    return [Reply(key=key, completion=None, error=reason, model=model) for key in keys]


def _encode(custom_id: str, request: Request, body: Body) -> bytes:
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body(request)}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE, default=list)


def _content(lines: Sequence[BatchLine], body: Body) -> Content:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(_encode(line.custom_id, line.request, body))
    return Content(digest.hexdigest(), tuple(lines))


def _part(request: Request, places: Sequence[int]) -> Request:
    if len(places) == len(request.keys):
        return request
    return Request(
        messages=request.messages,
        sampling=request.sampling,
        ks=tuple(request.ks[place] for place in places),
        seeds=tuple(request.seeds[place] for place in places),
        keys=tuple(request.keys[place] for place in places),
        tag=request.tag,
    )


def _json(body: Any) -> Any:
    """Some servers write a line's body as text."""
    if not isinstance(body, str):
        return body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body


def _by_index(body: Any) -> Any:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not all(isinstance(c, dict) and isinstance(c.get("index"), int) for c in choices):
        return body
    return {**body, "choices": sorted(choices, key=lambda choice: int(choice["index"]))}
