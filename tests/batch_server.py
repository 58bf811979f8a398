"""A stateful Batch API on loopback, for tests: files, batches, and the ways in which they end.

`with BatchServer(contract) as server:` and point a policy at `server.base_url`. What it was sent is in `server.files` and
`server.batches`; how a batch goes is decided by `server.conduct` when the batch is created. Whatever the contract has a
schema for is checked against it, requests and replies alike; a request that breaks it is answered with 500 and kept in
`server.violations`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.loopback import Loopback

Json = dict[str, Any]


class Contract:
    """OpenAI's description of its API, as something to check objects with."""

    def __init__(self, path: Path) -> None:
        self._components = _folded(json.loads(path.read_text("utf-8"))["components"])
        self._validator = cache(self._make)

    def check(self, name: str, value: Any) -> None:
        """Raises AssertionError where `value` is no `name`."""
        error = next(self._validator(name).iter_errors(value), None)
        assert error is None, f"{name}: {error.message} at {error.json_path}"

    def _make(self, name: str) -> Any:
        from jsonschema import Draft202012Validator

        return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": self._components})


def _folded(node: Any) -> Any:
    """`nullable: true` and `exclusiveMinimum: true`, leftovers of an older version of the format, in today's words."""
    if isinstance(node, list):
        return [_folded(part) for part in node]
    if not isinstance(node, dict):
        return node
    folded = {name: _folded(part) for name, part in node.items() if name != "nullable"}
    if folded.get("exclusiveMinimum") is True:
        folded["exclusiveMinimum"] = folded.pop("minimum")
    return {"anyOf": [folded, {"type": "null"}]} if node.get("nullable") is True else folded


def answer(line: Json) -> Json:
    """A response line with as many choices as were asked for; the text says the prompt, the seed and the place."""
    body = line["body"]
    texts = [f"{body['messages'][-1]['content']}/{body['seed']}/{i}" for i in range(body["n"])]
    return succeeded(line, texts)


def succeeded(line: Json, texts: list[str]) -> Json:
    """A response line with these choices, the last one first: their index tells them apart."""
    message = {"role": "assistant", "refusal": None}
    choices = [
        {"index": i, "message": {**message, "content": text}, "finish_reason": "stop", "logprobs": None}
        for i, text in reversed(list(enumerate(texts)))
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 7 * len(texts), "total_tokens": 10 + 7 * len(texts)}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": line["body"]["model"],
        "choices": choices, "usage": usage,
    }  # fmt: skip
    return _response(line, 200, body)


def refused(line: Json, status: int, message: str, *, nested: bool = False) -> Json:
    """A line of the error file; `nested` wraps the error twice, as some servers do."""
    error: Json = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return _response(line, status, {"error": error} if nested else error)


def expired(line: Json) -> Json:
    """What the error file says of a line that was not reached in time."""
    error = {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}
    return {"id": f"r-{line['custom_id'][:8]}", "custom_id": line["custom_id"], "response": None, "error": error}


def _response(line: Json, status: int, body: Json) -> Json:
    response = {"status_code": status, "request_id": "req-1", "body": body}
    return {"id": f"r-{line['custom_id'][:8]}", "custom_id": line["custom_id"], "response": response, "error": None}


@dataclass
class Conduct:
    """How batches that are created now will go."""

    answer: Callable[[Json], Json | None] = answer
    """Of each input line, its line in a file; None for a line that is left out."""
    ends: str = "completed"
    seconds: float = 0.0
    """From creation to the end."""
    lost_answers: int = 0
    """Creations that happen, and whose answer is lost on the way."""
    refuses: tuple[int, Json] | None = None
    """Status and body for creations that do not happen."""
    errors: list[Json] = field(default_factory=list)
    """Why the validation failed, where `ends` is failed."""
    broken_downloads: int = 0
    """Downloads that break off half-way."""


class BatchServer(Loopback):
    """Serves on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.conduct = Conduct()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Json] = {}
        self.log: list[str] = []
        self.keys: set[str] = set()
        self._ends: dict[str, tuple[float, Conduct]] = {}
        self._contract = contract

    def lines(self, batch: Json) -> list[Json]:
        """The input lines of a batch."""
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._watch], client_max_size=1 << 28)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._download)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    @web.middleware
    async def _watch(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self.keys.add(request.headers.get("Authorization", ""))
        self.log.append(f"{request.method} {request.path.removeprefix('/v1').split('/')[1]}")
        try:
            response: web.StreamResponse = await handler(request)
        except AssertionError as error:
            self.violations.append(str(error))
            return web.json_response({"error": {"message": str(error)}}, status=500)
        return response

    def _reply(self, name: str, value: Json) -> web.Response:
        self._contract.check(name, value)
        return web.json_response(value)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert form["purpose"] == "batch" and isinstance(file, web.FileField)
        name = f"file-{len(self.files)}"
        self.files[name] = file.file.read()
        told = {"bytes": len(self.files[name]), "created_at": int(time.time()), "filename": file.filename}
        return self._reply("OpenAIFile", {"id": name, "object": "file", "purpose": "batch", "status": "processed", **told})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        data = self.files.get(request.match_info["id"])
        if data is None:
            return web.json_response({"error": {"message": "No such File object"}}, status=404)
        if self.conduct.broken_downloads:
            self.conduct.broken_downloads -= 1
            response = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(body=data)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self._contract.check("CreateBatchRequest", asked)
        if self.conduct.refuses:
            return web.json_response(self.conduct.refuses[1], status=self.conduct.refuses[0])
        name = f"batch-{len(self.batches)}"
        lines = self.lines(asked)
        self._check_lines(lines)
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        fixed = {"id": name, "object": "batch", "status": "validating", "created_at": int(time.time())}
        self.batches[name] = {**asked, **fixed, "request_counts": counts}
        self._ends[name] = (time.monotonic() + self.conduct.seconds, self.conduct)
        if self.conduct.lost_answers:
            self.conduct.lost_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return self._reply("Batch", self.batches[name])

    def _check_lines(self, lines: list[Json]) -> None:
        assert len({line["custom_id"] for line in lines}) == len(lines), "custom_ids must differ"
        for line in lines:
            assert set(line) == {"custom_id", "method", "url", "body"}
            assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
            self._contract.check("CreateChatCompletionRequest", line["body"])

    async def _list(self, request: web.Request) -> web.Response:
        newest = [self._now(name) for name in reversed(self.batches)]
        names = [batch["id"] for batch in newest]
        start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = newest[start : start + min(int(request.query.get("limit", 20)), 2)]  # small pages, so that they are turned
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        more = start + len(page) < len(newest)
        return self._reply("ListBatchesResponse", {"object": "list", "data": page, "has_more": more, **ends})

    async def _retrieve(self, request: web.Request) -> web.Response:
        return self._reply("Batch", self._now(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        return self._reply("Batch", {**self._now(request.match_info["id"]), "status": "cancelling"})

    def _now(self, name: str) -> Json:
        """The batch as it stands, moved on if its time has come."""
        batch = self.batches[name]
        when, conduct = self._ends[name]
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if time.monotonic() >= when:
                self._end(batch, conduct)
        return batch

    def _end(self, batch: Json, conduct: Conduct) -> None:
        batch["status"] = conduct.ends
        if conduct.ends == "failed":
            batch["errors"] = {"object": "list", "data": conduct.errors}
            return
        answers = [told for line in self.lines(batch) if (told := conduct.answer(line)) is not None]
        good = [told for told in answers if (told["response"] or {}).get("status_code") == 200]
        bad = [told for told in answers if told not in good]
        for told in good:
            self._contract.check("CreateChatCompletionResponse", told["response"]["body"])
        for kind, part in (("output", good), ("error", bad)):
            if part:
                batch[f"{kind}_file_id"] = f"{batch['id']}-{kind}"
                # In another order than they were asked.
                self.files[f"{batch['id']}-{kind}"] = b"".join(json.dumps(told).encode() + b"\n" for told in reversed(part))
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
