"""A stateful OpenAI on loopback, for tests: files, uploads in parts, moderations, fine-tuning jobs, events, checkpoints.

`with FakeOpenAI(contract) as server:` and point a client at `server.base_url`. What it was sent is in `server.files` and
`server.jobs`; how jobs go is decided by `server.conduct`, and what goes wrong on the way by `server.faults`. Requests and
replies are checked against OpenAI's own description; a break of it is answered with 500 and kept in `server.violations`.
Contents lie on disk, so that large files cost no memory.
"""

import asyncio
import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.batch_server import Contract
from tests.fake_openai_parts import Json, error, event, loss, page, save, verdict
from tests.loopback import Loopback

Handler = Callable[[web.Request], Any]

ROUTES = (
    ("GET", "/v1/files", "list_files"),
    ("POST", "/v1/files", "create_file"),
    ("GET", "/v1/files/{id}", "retrieve_file"),
    ("POST", "/v1/uploads", "create_upload"),
    ("POST", "/v1/uploads/{id}/parts", "add_part"),
    ("POST", "/v1/uploads/{id}/complete", "complete_upload"),
    ("POST", "/v1/moderations", "moderate"),
    ("GET", "/v1/fine_tuning/jobs", "list_jobs"),
    ("POST", "/v1/fine_tuning/jobs", "create_job"),
    ("GET", "/v1/fine_tuning/jobs/{id}", "retrieve_job"),
    ("POST", "/v1/fine_tuning/jobs/{id}/cancel", "cancel_job"),
    ("GET", "/v1/fine_tuning/jobs/{id}/events", "list_events"),
    ("GET", "/v1/fine_tuning/jobs/{id}/checkpoints", "list_checkpoints"),
)
"""Method, path and the step that faults are named by."""
STEPS = 10
SPECIAL = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>")
"""One of these in a file, and the service fails the whole job, as the real one does."""


@dataclass
class Conduct:
    """How things go."""

    job_seconds: float = 0.3
    """From creation to the end of a job."""
    ends: Callable[[Json], str] = lambda job: "succeeded"
    """How a job ends: succeeded, failed, cancelled, or `stalls` for one that stays running without news."""
    delay: Callable[[str], float] = lambda step: 0.0
    """Seconds before a step is done."""
    hang_seconds: float = 3.0
    """What a `timeout` waits for after the step is done."""
    lag_seconds: float = 0.0
    """Until something new shows up in lists."""
    processing_seconds: float = 0.0
    """Until a file may be used, as at Azure; a job on one that is not ready is refused."""
    flagged: tuple[str, ...] = ()
    """Words that moderation flags."""
    keeps_metadata: bool = True
    echoes_key: bool = False
    """Quotes the Authorization header in errors."""


@dataclass
class Stored:
    """A file's content on disk."""

    path: Path
    facts: Json
    since: float = field(default_factory=time.monotonic)


class FakeOpenAI(Loopback):
    """Serves on a free port of 127.0.0.1, in a thread of its own."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.conduct = Conduct()
        self.faults: dict[str, list[str]] = defaultdict(list)
        """Step -> what happens to its next calls: lost, error_after, timeout, error_before, busy, quota, forbidden, none."""
        self.files: dict[str, Stored] = {}
        self.uploads: dict[str, Json] = {}
        self.jobs: dict[str, Json] = {}
        self.moderated: list[list[str]] = []
        self.log: list[str] = []
        self.keys: set[str] = set()
        self._began: dict[str, tuple[float, str]] = {}
        self._contract = contract
        self._folder = tempfile.TemporaryDirectory(prefix="fake-openai-")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._folder:
            super().__exit__(kind, error, trace)

    def content(self, file_id: str) -> bytes:
        """What a file holds."""
        return self.files[file_id].path.read_bytes()

    def lines(self, file_id: str) -> list[Json]:
        """A file's lines."""
        return [json.loads(line) for line in self.content(file_id).splitlines()]

    def count(self, step: str) -> int:
        """How often a step was asked for."""
        return self.log.count(step)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._watch], client_max_size=1 << 30)
        for method, path, step in ROUTES:
            app.router.add_route(method, path, getattr(self, f"_{step}"), name=step)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        step = request.match_info.route.name or "unknown"
        self.keys.add(request.headers.get("Authorization", ""))
        self.log.append(step)
        fault = self.faults[step].pop(0) if self.faults[step] else "none"
        if refusal := self._refusal(fault, request):
            await request.read()
            return refusal
        await asyncio.sleep(self.conduct.delay(step))
        try:
            response: web.StreamResponse = await handler(request)
        except AssertionError as violation:
            self.violations.append(f"{step}: {violation}")
            return error(500, str(violation))
        return await self._spoilt(fault, request, response)

    def _refusal(self, fault: str, request: web.Request) -> web.Response | None:
        echo = request.headers.get("Authorization", "") if self.conduct.echoes_key else ""
        refusals = {
            "busy": lambda: error(429, f"too many requests {echo}", headers={"Retry-After": "0"}),
            "quota": lambda: error(429, "you exceeded your quota", code="insufficient_quota"),
            "forbidden": lambda: error(403, f"Fine-tuning is not available to your organization {echo}"),
            "error_before": lambda: error(500, f"the server stumbled {echo}"),
            "bad": lambda: error(400, f"that will not do {echo}"),
        }
        return refusals[fault]() if fault in refusals else None

    async def _spoilt(self, fault: str, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """The answer, or what comes in its place although the step was done."""
        if fault == "error_after":
            return error(500, "the server stumbled")
        if fault == "timeout":
            await asyncio.sleep(self.conduct.hang_seconds)
        if fault in ("lost", "timeout"):
            assert request.transport is not None
            request.transport.close()
        return response

    def _reply(self, name: str, value: Json) -> web.Response:
        self._contract.check(name, value)
        return web.json_response(value)

    # Files

    async def _list_files(self, request: web.Request) -> web.Response:
        assert request.query.get("purpose") == "fine-tune"
        newest = [stored.facts for stored in reversed(self.files.values()) if self._visible(stored.since)]
        some, more = page(newest, request, size=4)
        ends = {"first_id": some[0]["id"] if some else "", "last_id": some[-1]["id"] if some else ""}
        return self._reply("ListFilesResponse", {"object": "list", "data": some, "has_more": more, **ends})

    async def _create_file(self, request: web.Request) -> web.Response:
        fields: dict[str, str] = {}
        path, name = self._new_path(), ""
        async for part in await request.multipart():
            if part.name == "file":  # type: ignore[union-attr]
                name = part.filename or ""  # type: ignore[union-attr]
                await save(part, path)
            else:
                fields[part.name or ""] = await part.text()  # type: ignore[union-attr]
        assert fields == {"purpose": "fine-tune"} and name.endswith(".jsonl"), (fields, name)
        return self._reply("OpenAIFile", self._store(path, name))

    async def _retrieve_file(self, request: web.Request) -> web.Response:
        stored = self.files.get(request.match_info["id"])
        if stored is None:
            return error(404, "No such File object")
        if time.monotonic() - stored.since < self.conduct.processing_seconds:
            return web.json_response(stored.facts | {"status": "pending"})  # Azure's word, which OpenAI's contract lacks
        return self._reply("OpenAIFile", stored.facts)

    def _store(self, path: Path, name: str) -> Json:
        file_id = f"file-{len(self.files)}"
        facts = {
            "id": file_id, "object": "file", "purpose": "fine-tune", "status": "processed", "filename": name,
            "bytes": path.stat().st_size, "created_at": int(time.time()),
        }  # fmt: skip
        self.files[file_id] = Stored(path, facts)
        return facts

    def _new_path(self) -> Path:
        return Path(tempfile.mkstemp(dir=self._folder.name)[1])

    # Uploads

    async def _create_upload(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._contract.check("CreateUploadRequest", asked)
        name = f"upload-{len(self.uploads)}"
        self.uploads[name] = {"asked": asked, "parts": {}, "file": None, "created": int(time.time())}
        return self._reply("Upload", self._upload_facts(name, "pending"))

    async def _add_part(self, request: web.Request) -> web.Response:
        upload = self.uploads.get(request.match_info["id"])
        if upload is None or upload["file"]:
            return error(404, "No such upload")
        path = self._new_path()
        async for part in await request.multipart():
            assert part.name == "data"  # type: ignore[union-attr]
            await save(part, path)
        assert path.stat().st_size <= 64 << 20
        part_id = f"part-{len(upload['parts'])}-{request.match_info['id']}"
        upload["parts"][part_id] = path
        facts = {"id": part_id, "object": "upload.part", "created_at": int(time.time()), "upload_id": request.match_info["id"]}
        return self._reply("UploadPart", facts)

    async def _complete_upload(self, request: web.Request) -> web.Response:
        name, asked = request.match_info["id"], await request.json()
        self._contract.check("CompleteUploadRequest", asked)
        upload = self.uploads.get(name)
        if upload is None or upload["file"]:
            return error(400, "the upload is not pending")
        path, checksum = self._new_path(), hashlib.md5()
        with path.open("wb") as whole:
            for part_id in asked["part_ids"]:
                data = upload["parts"][part_id].read_bytes()
                checksum.update(data)
                whole.write(data)
        if path.stat().st_size != upload["asked"]["bytes"] or asked.get("md5") != checksum.hexdigest():
            return error(400, "the parts are not the file that was announced")
        upload["file"] = self._store(path, upload["asked"]["filename"])
        return self._reply("Upload", self._upload_facts(name, "completed"))

    def _upload_facts(self, name: str, status: str) -> Json:
        upload = self.uploads[name]
        asked = {key: upload["asked"][key] for key in ("filename", "bytes", "purpose")}
        times = {"created_at": upload["created"], "expires_at": upload["created"] + 3600}
        file = {"file": upload["file"]} if upload["file"] else {}
        return {"id": name, "object": "upload", "status": status, **asked, **times, **file}

    # Moderations

    async def _moderate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._contract.check("CreateModerationRequest", asked)
        self.moderated.append(asked["input"])
        results = [verdict(text, self.conduct.flagged) for text in asked["input"]]
        return self._reply("CreateModerationResponse", {"id": "modr-1", "model": asked["model"], "results": results})

    # Jobs

    async def _create_job(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._contract.check("CreateFineTuningJobRequest", asked)
        for name in ("training_file", "validation_file"):
            if asked.get(name) is not None and asked[name] not in self.files:
                return error(400, f"invalid {name}: {asked[name]}")
            if asked.get(name) and time.monotonic() - self.files[asked[name]].since < self.conduct.processing_seconds:
                return error(400, f"{name} {asked[name]} is not ready")
        name = f"ftjob-{len(self.jobs)}"
        method = asked["method"]
        hyper = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
        hyper |= {key: value for key, value in method[method["type"]].get("hyperparameters", {}).items() if key in hyper}
        self.jobs[name] = {
            "id": name, "object": "fine_tuning.job", "created_at": int(time.time()), "error": None, "fine_tuned_model": None,
            "finished_at": None, "hyperparameters": hyper, "model": asked["model"], "organization_id": "org-1",
            "result_files": [], "status": "validating_files", "trained_tokens": None, "training_file": asked["training_file"],
            "validation_file": asked.get("validation_file"), "seed": asked["seed"], "method": method,
            "metadata": asked["metadata"] if self.conduct.keeps_metadata else None,
        }  # fmt: skip
        self._suffix(name, asked.get("suffix"))
        self._began[name] = (time.monotonic(), self._end_of(self.jobs[name] | {"metadata": asked["metadata"]}))
        return self._reply("FineTuningJob", self._now(name))

    def _suffix(self, name: str, suffix: str | None) -> None:
        assert suffix is None or 1 <= len(suffix) <= 64
        self._models = getattr(self, "_models", {}) | {name: f"ft:{self.jobs[name]['model']}:org:{suffix}:{name}"}

    def _end_of(self, job: Json) -> str:
        text = self.content(job["training_file"]).decode()
        if any(token in text for token in SPECIAL) or len(text.splitlines()) < 10:
            return "failed"
        return self.conduct.ends(job)

    async def _list_jobs(self, request: web.Request) -> web.Response:
        newest = [self._now(name) for name in reversed(self.jobs) if self._visible(self._began[name][0])]
        some, more = page(newest, request, size=3)
        return self._reply("ListPaginatedFineTuningJobsResponse", {"object": "list", "data": some, "has_more": more})

    async def _retrieve_job(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return self._reply("FineTuningJob", self._now(name)) if name in self.jobs else error(404, "no such job")

    async def _cancel_job(self, request: web.Request) -> web.Response:
        job = self._now(request.match_info["id"])
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return error(400, f"the job has already {job['status']}")
        job["status"] = "cancelled"
        return self._reply("FineTuningJob", job)

    async def _list_events(self, request: web.Request) -> web.Response:
        newest = self._events(request.match_info["id"])[::-1]
        some, more = page(newest, request, size=4)
        return self._reply("ListFineTuningJobEventsResponse", {"object": "list", "data": some, "has_more": more})

    async def _list_checkpoints(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        steps = [STEPS, STEPS // 2] if self._now(name)["status"] == "succeeded" else []
        points = [
            {
                "id": f"ftckpt-{name}-{step}", "object": "fine_tuning.job.checkpoint", "created_at": int(time.time()),
                "fine_tuning_job_id": name, "fine_tuned_model_checkpoint": f"{self._models[name]}:ckpt-step-{step}",
                "step_number": step, "metrics": {"step": step, "train_loss": loss(step), "full_valid_loss": 1.0},
            }
            for step in steps
        ]  # fmt: skip
        ends = {"first_id": points[0]["id"] if points else None, "last_id": points[-1]["id"] if points else None}
        return self._reply(
            "ListFineTuningJobCheckpointsResponse", {"object": "list", "data": points, "has_more": False, **ends}
        )

    def _now(self, name: str) -> Json:
        """The job as it stands, moved on if its time has come."""
        job, (began, end) = self.jobs[name], self._began[name]
        share = (time.monotonic() - began) / max(self.conduct.job_seconds, 1e-9)
        if job["status"] not in ("validating_files", "queued", "running"):
            return job
        job["status"] = "validating_files" if share < 0.1 else "queued" if share < 0.2 else "running"
        if share >= 1 and end != "stalls":
            job["status"] = end
            if end == "failed":
                message = "The job failed due to an invalid training file. Line 3 is invalid."
                job["error"] = {"code": "invalid_training_file", "message": message, "param": "training_file"}
            if end == "succeeded":
                job |= {"fine_tuned_model": self._models[name], "finished_at": int(time.time()), "trained_tokens": 1234}
        return job

    def _events(self, name: str) -> list[Json]:
        job, (began, end) = self._now(name), self._began[name]
        share = min(1.0, (time.monotonic() - began) / max(self.conduct.job_seconds, 1e-9))
        steps = int(STEPS * max(0.0, share - 0.2) / 0.8) if job["status"] in ("running", "succeeded") else 0
        steps = min(steps, STEPS // 2) if end == "stalls" else steps
        told = [event(name, 0, "message", "Created fine-tuning job", {}, int(job["created_at"]))]
        for step in range(1, steps + 1):
            data = {"step": step, "train_loss": loss(step), "total_steps": STEPS, "train_mean_token_accuracy": 0.5}
            message = f"Step {step}/{STEPS}: training loss={loss(step):.2f}"
            told.append(event(name, step, "metrics", message, data, int(job["created_at"])))
        return told

    def _visible(self, since: float) -> bool:
        return time.monotonic() - since >= self.conduct.lag_seconds
