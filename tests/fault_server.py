"""A chat completions server on loopback that does, on request, whatever servers of this world do to their clients.

    with FaultServer(Faults(rate_per_second=60, burst=10)) as server:  # in this process; point a policy at server.base_url
    python -m tests.fault_server --latency_seconds 0.05 --fail_rate 0.05  # in its own; prints its base URL, serves until killed

`Faults` are set once; a function of (body, number of the request) in their place answers each request as it likes. Every
request is in `server.seen`; a server in its own process tells the sums at `<base_url>/seen`. What is random is a hash of the
request's bytes and of how often they came, so that the same run meets the same faults.
"""

import argparse
import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from email.utils import formatdate
from typing import Any, Literal

import orjson
from aiohttp import web

from tests.loopback import Loopback

Body = dict[str, Any]
Mode = Callable[[Body, int], Awaitable[web.StreamResponse]]
"""Answers a body; the number counts the requests before this one."""

PROMPT_TOKENS, COMPLETION_TOKENS = 10, 7
"""Billed per request, and per choice."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What this server does wrong. Rates are shares of requests, each drawn by itself."""

    latency_seconds: float = 0.0
    rate_per_second: float = 0.0
    """Above it: status 429. 0 is not a limit."""
    burst: int = 1
    """Requests that the rate limit lets through at once after a pause."""
    window: bool = False
    """Count by whole seconds in place of a bucket that fills steadily."""
    retry_after: Literal["seconds", "date", "none"] = "seconds"
    """How a 429 says when to come again: whole seconds, an HTTP date, or not at all."""
    fail_first: int = 0
    """So many requests fail before any is answered."""
    fail_rate: float = 0.0
    fail_status: int = 500
    hang_rate: float = 0.0
    """Never answered."""
    reset_rate: float = 0.0
    """The connection is reset before the answer."""
    cut_rate: float = 0.0
    """The connection ends half-way through the body."""
    truncate_rate: float = 0.0
    """A whole answer whose JSON stops half-way."""
    garbage_rate: float = 0.0
    """A page of HTML with status 200."""
    n: Literal["honoured", "ignored", "refused", "two", "one_more"] = "honoured"
    """What becomes of n: choices as asked for, one, status 400, two at most, or one too many."""
    same_choices: bool = False
    """All choices of a request say the same."""
    nulls: bool = False
    """Null wherever OpenAI's schema forbids it and vLLM sends it."""
    refuses: bool = False
    """The model declines: `refusal` in place of content."""
    filters: bool = False
    """Content is filtered: null, with finish_reason content_filter."""
    logprobs: bool = True
    """Whether they come when asked for."""
    echoes_key: bool = False
    """Quotes the Authorization header in answers and errors."""
    poison: str = ""
    """Prompts with this text get status 400, always."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    time: float
    body: Body
    headers: dict[str, str]


def completion(body: Body, *, texts: list[str | None], **message: Any) -> Body:
    """A well-formed answer with one choice per text."""
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text, "refusal": None, **message},
            "finish_reason": "stop",
            "logprobs": None,
        }
        for i, text in enumerate(texts)
    ]
    billed = COMPLETION_TOKENS * len(texts)
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": billed,
        "total_tokens": PROMPT_TOKENS + billed,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": usage}


def text_for(body: Body, place: int) -> str:
    """What this server says: who asked, with which seed, and the place among the choices."""
    return f"{body['messages'][-1]['content']}/{body.get('seed')}/{place}"


def refusal(status: int, message: str, *, headers: dict[str, str] | None = None, **fields: Any) -> web.Response:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "error", "param": None, "code": None, **fields}
    return _json({"error": error}, status=status, headers=headers)


def always(response: Callable[[Body], web.StreamResponse]) -> Mode:
    """Whatever the function makes of a body."""

    async def mode(body: Body, count: int) -> web.StreamResponse:
        return response(body)

    return mode


class FaultServer(Loopback):
    """Serves on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, mode: Faults | Mode | None = None) -> None:
        super().__init__()
        self.mode = mode or Faults()
        self.seen: list[Seen] = []
        self.statuses: Counter[int] = Counter()
        self.most_at_once = 0
        self.billed_prompt_tokens = 0
        self._at_once = 0
        self._times_seen: Counter[bytes] = Counter()
        self._tokens, self._filled_at = 0.0, 0.0

    @property
    def bodies(self) -> list[Body]:
        """The bodies of all requests, in the order in which they came."""
        return [one.body for one in self.seen]

    async def _start(self) -> None:
        await self.start(0)

    async def start(self, port: int) -> None:
        """Listens, in the running event loop."""
        # Handlers that hang are part of the tests: they must not hold up the end.
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        self._filled_at = time.monotonic()
        if isinstance(self.mode, Faults):
            self._tokens = self.mode.rate_per_second if self.mode.window else float(self.mode.burst)
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def sums(self) -> Body:
        """What has come and gone so far."""
        return {
            "requests": len(self.seen),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "prompt_tokens": self.billed_prompt_tokens,
            "most_at_once": self.most_at_once,
            "first": self.seen[0].time if self.seen else None,
            "last": self.seen[-1].time if self.seen else None,
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/seen"):
            return _json(self.sums())
        raw = await request.read()
        body: Body = orjson.loads(raw)
        count = len(self.seen)
        self.seen.append(Seen(time.monotonic(), body, dict(request.headers)))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if isinstance(self.mode, Faults):
                response = await self._answer(self.mode, request, raw, body, count)
            else:
                response = await self.mode(body, count)
        finally:
            self._at_once -= 1
        self.statuses[response.status] += 1
        return response

    async def _answer(self, faults: Faults, request: web.BaseRequest, raw: bytes, body: Body, count: int) -> web.StreamResponse:
        key = f" {request.headers.get('Authorization')}" if faults.echoes_key else ""
        if faults.rate_per_second and (wait := self._over_limit(faults)) > 0:
            return refusal(429, f"too many requests{key}", headers=_wish(faults, wait), code="rate_limit_exceeded")
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        self._times_seen[raw] += 1
        draw = Draw(raw, self._times_seen[raw])
        if count < faults.fail_first or draw.hits("fail", faults.fail_rate):
            return refusal(faults.fail_status, f"try again{key}")
        if faults.poison and faults.poison in body["messages"][-1]["content"]:
            return refusal(400, f"the prompt is too long: {faults.poison}{key}", code="context_length_exceeded")
        if faults.n == "refused" and body.get("n", 1) > 1:
            return refusal(400, "'n' : number must be at most 1")
        broken = await _broken(faults, request, draw)
        if broken is not None:
            return broken
        self.billed_prompt_tokens += PROMPT_TOKENS
        answer = orjson.dumps(answer_to(body, faults, key=key))
        if draw.hits("cut", faults.cut_rate):
            return await _cut(request, answer)
        return web.Response(
            body=answer[: len(answer) // 2] if draw.hits("truncate", faults.truncate_rate) else answer, headers=_JSON
        )

    def _over_limit(self, faults: Faults) -> float:
        """Seconds that are missing; 0 where the request may pass, which it then has."""
        now, rate = time.monotonic(), faults.rate_per_second
        if faults.window:
            if int(now) > int(self._filled_at):
                self._tokens, self._filled_at = rate, now
            missing = 1.0 - now % 1.0
        else:
            self._tokens = min(float(faults.burst), self._tokens + rate * (now - self._filled_at))
            self._filled_at = now
            missing = (1.0 - self._tokens) / rate
        if self._tokens < 1.0:
            return missing
        self._tokens -= 1.0
        return 0.0


class Draw:
    """Random by content: the same bytes, come for the same time, meet the same fate."""

    def __init__(self, raw: bytes, times: int) -> None:
        self._raw, self._times = raw, times

    def hits(self, name: str, rate: float) -> bool:
        """Whether the fault of this name and rate befalls this request."""
        if rate <= 0:
            return False
        digest = hashlib.sha256(b"%s %d %s" % (name.encode(), self._times, self._raw)).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < rate


def answer_to(body: Body, faults: Faults, *, key: str = "") -> Body:
    """The answer of a server with these faults, as far as they are in the body."""
    asked = body.get("n", 1)
    num = {"honoured": asked, "ignored": 1, "refused": asked, "two": min(2, asked), "one_more": asked + 1}[faults.n]
    texts: list[str | None] = [text_for(body, 0 if faults.same_choices else i) + key for i in range(num)]
    if faults.refuses or faults.filters:
        texts = [None] * num
    answer = completion(body, texts=texts, **({"refusal": "I cannot help."} if faults.refuses else {}))
    for choice in answer["choices"]:
        if faults.filters:
            choice["finish_reason"] = "content_filter"
        if body.get("logprobs") and faults.logprobs:
            choice["logprobs"] = {"content": _log_probabilities(body), "refusal": None}
    if faults.nulls:
        for choice in answer["choices"]:
            choice["message"] |= {"tool_calls": None, "annotations": None, "audio": None, "role": None}
        answer["usage"] |= {"prompt_tokens_details": None, "completion_tokens_details": None}
        answer |= {"service_tier": None, "system_fingerprint": None, "created": None}
    return answer


def _log_probabilities(body: Body) -> list[Body]:
    others = [{"token": f"t{i}", "logprob": -1.0 - i, "bytes": None} for i in range(body.get("top_logprobs", 0))]
    return [{"token": "yes", "logprob": -0.25, "bytes": [121, 101, 115], "top_logprobs": others}]


async def _broken(faults: Faults, request: web.BaseRequest, draw: Draw) -> web.StreamResponse | None:
    """An answer that is none; None where it shall be one."""
    if draw.hits("hang", faults.hang_rate):
        await asyncio.sleep(3600)
    if draw.hits("reset", faults.reset_rate):
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    if draw.hits("garbage", faults.garbage_rate):
        return web.Response(text="<html>gateway</html>", content_type="text/html")
    return None


async def _cut(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Half of the body that the header promised, and no more."""
    response = web.StreamResponse(headers={**_JSON, "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


_JSON = {"Content-Type": "application/json"}


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers=_JSON | (headers or {}))


def _wish(faults: Faults, seconds: float) -> dict[str, str]:
    whole = int(seconds) + 1
    if faults.retry_after == "none":
        return {}
    return {"Retry-After": str(whole) if faults.retry_after == "seconds" else formatdate(time.time() + whole, usegmt=True)}


async def _serve(faults: Faults, port: int) -> None:
    server = FaultServer(faults)
    await server.start(port)
    print(server.base_url, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    for field in fields(Faults):
        kind = type(field.default)
        read = (lambda text: text in ("1", "true", "yes")) if kind is bool else kind
        parser.add_argument(f"--{field.name}", type=read, default=field.default)
    options = vars(parser.parse_args())
    port = options.pop("port")
    asyncio.run(_serve(Faults(**options), port))


if __name__ == "__main__":
    main()
