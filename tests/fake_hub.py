"""A Hub on loopback that speaks what huggingface_hub and datasets really call, and checks what a real one checks.

    with FakeHub(folder) as hub:
        subprocess.run(command, env=os.environ | hub.environment("ann-writes"))

Repositories have commits, trees, tags and permissions; large files go through the LFS batch and are refused when their
SHA-256 is wrong; a commit on a stale parent is refused. `hub.faults` makes chosen requests fail: before they are done,
after they are done, in the middle, or never answered. `hub.requests` has every request in order. The protocol itself is
in fake_hub_state.py and fake_hub_routes.py.
"""

import asyncio
import functools
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from tests.fake_hub_routes import STATE, Handler, routes
from tests.fake_hub_state import Repo, State, User

TOKEN = "hf_annWritesHerOwnRepositories00000000"
READ_ONLY = "hf_bobMayOnlyReadWhatHeIsShown0000000"
STRANGER = "hf_carolHasNothingToDoWithAnn000000000"


@dataclass
class Fault:
    """What goes wrong with requests whose method and path contain these."""

    method: str
    path: str
    mode: Literal["before", "after", "drop", "half", "hang", "pass"] = "before"
    """Answered with `status` before or after it was done; dropped before it was done; its body cut; never answered; or
    answered as ever, for the sake of `action`."""
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    times: int = 1
    action: Callable[[], object] | None = None
    """Done before anything else."""
    skip: int = 0
    """Matching requests that are let through first."""
    hit: threading.Event = field(default_factory=threading.Event)


@functools.cache
def _place() -> socket.socket:
    """Where every Hub of this process listens, one after another: what was imported for one of them serves the next."""
    return socket.create_server(("127.0.0.1", 0))


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-hub-")


def _home() -> Path:
    """The clients' cache, emptied for every Hub."""
    return Path(_kept().name) / "home"


class FakeHub:
    """The server in a thread of its own."""

    def __init__(self, folder: Path, *, part_bytes: int = 5_000_000) -> None:
        self.state = State(folder, part_bytes=part_bytes)
        self.state.users = {
            TOKEN: User("ann", orgs=("lab",)),
            READ_ONLY: User("bob", orgs=("lab",), writes=False),
            STRANGER: User("carol"),
        }
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(_home(), ignore_errors=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return self.state.url

    def environment(self, token: str | None = TOKEN, *, home: Path | None = None) -> dict[str, str]:
        """The variables that make a client of this Hub."""
        found = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(home or _home())}
        return found | ({"HF_TOKEN": token} if token else {})

    def repo(self, name: str, *, kind: str = "dataset") -> Repo:
        """A repository; KeyError where there is none."""
        return self.state.repos[kind, name]

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        """Plants a fault."""
        fault = Fault(method, path, **how)
        self.faults.append(fault)
        return fault

    def asked(self, text: str) -> list[str]:
        """The requests with this in them."""
        return [request for request in self.requests if text in request]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        assert self._runner is not None
        pending = [task for task in asyncio.all_tasks(self._loop) if not task.done()]
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._misbehaving], client_max_size=2**30)
        app[STATE] = self.state
        app.add_routes(routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.SockSite(self._runner, _place().dup())
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.state.url = f"http://{host}:{port}"
        self.state.storage_url = f"http://localhost:{port}"

    @web.middleware
    async def _misbehaving(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        fault = self._fault(request)
        if fault is None:
            return await handler(request)
        if fault.action is not None:
            fault.action()
        fault.hit.set()
        if fault.mode == "pass":
            return await handler(request)
        if fault.mode == "hang":
            await asyncio.sleep(3600)
        if fault.mode == "half":
            await request.content.read(1000)
        if fault.mode in ("half", "drop"):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.mode == "after":
            await handler(request)
        body = fault.body if fault.body is not None else {"error": "planted"}
        return web.json_response(body, status=fault.status, headers=fault.headers)

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == request.method and fault.path in request.path:
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None
