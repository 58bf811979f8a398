"""A small chat completions server on loopback, for tests: real HTTP, with the ways of real servers as modes.

`with OpenAIServer(ignores_n()) as server:` and point a policy at `server.base_url`. Every request it got is in
`server.requests` (the body) and `server.headers`.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Body = dict[str, Any]
Mode = Callable[[Body, int], Awaitable[web.StreamResponse]]
"""Answers a body; the number counts the requests before this one."""


def completion(body: Body, *, texts: list[str | None], **message: Any) -> Body:
    """A well-formed answer with one choice per text; 10 prompt tokens, 7 per completion."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop", "logprobs": None}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 7 * len(texts), "total_tokens": 10 + 7 * len(texts)}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": usage}


def text_for(body: Body, place: int) -> str:
    """What this server says: who asked, with which seed, and the place among the choices."""
    return f"{body['messages'][-1]['content']}/{body['seed']}/{place}"


def refusal(status: int, message: str, **fields: Any) -> web.Response:
    """An error in OpenAI's form."""
    return web.json_response({"error": {"message": message, "type": "error", **fields}}, status=status)


def honours_n(delay_seconds: float = 0.0) -> Mode:
    """As many choices as were asked for."""

    async def mode(body: Body, count: int) -> web.Response:
        await asyncio.sleep(delay_seconds)
        return web.json_response(completion(body, texts=[text_for(body, i) for i in range(body.get("n", 1))]))

    return mode


def at_most(limit: int) -> Mode:
    """At most `limit` choices, with status 200: 1 is llama-cpp-python and `transformers serve`."""

    async def mode(body: Body, count: int) -> web.Response:
        return web.json_response(completion(body, texts=[text_for(body, i) for i in range(min(limit, body.get("n", 1)))]))

    return mode


def refuses_n() -> Mode:
    """Status 400 for n above 1, as Groq."""

    async def mode(body: Body, count: int) -> web.Response:
        if body.get("n", 1) > 1:
            return refusal(400, "'n' : number must be at most 1")
        return web.json_response(completion(body, texts=[text_for(body, 0)]))

    return mode


def fails_first(times: int, status: int = 500) -> Mode:
    """The first `times` requests fail."""

    async def mode(body: Body, count: int) -> web.Response:
        if count < times:
            return refusal(status, "try again")
        return web.json_response(completion(body, texts=[text_for(body, i) for i in range(body.get("n", 1))]))

    return mode


def always(response: Callable[[Body], web.StreamResponse]) -> Mode:
    """Whatever the function makes of a body."""

    async def mode(body: Body, count: int) -> web.StreamResponse:
        return response(body)

    return mode


class OpenAIServer:
    """Serves one mode on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner
        self.base_url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        # Handlers that hang are part of the tests: they must not hold up the end.
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        count = len(self.requests)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self.mode(body, count)
        finally:
            self._at_once -= 1
