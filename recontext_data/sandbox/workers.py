"""Worker processes and the jobs they are given: the part of a sandbox that is the same behind every backend.

A backend is a `Launcher`: it starts `worker.py` somewhere confined. One warm worker per CPU answers job after job, each job in
namespaces of its own. Where a worker may not make namespaces, each job gets a worker of its own, which ends with it.
"""

import contextlib
import json
import os
import select
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox import answers
from recontext_data.sandbox.base import Call, SandboxJob, SandboxOutcome

GRACE_SECONDS = 5.0
"""How much longer than the job's own time an answer may take; then the worker is replaced."""
_PACKAGE = Path(__file__).resolve().parent.parent
WORKER = "/job/worker.py"
_INSIDE = ("sandbox/collecting.py", "sandbox/seccomp.py", "core/values.py", "core/errors.py")
FILES = {WORKER: _PACKAGE / "sandbox" / "worker.py", **{f"/job/recontext_data/{name}": _PACKAGE / name for name in _INSIDE}}
"""All of this package that exists inside; no __init__.py is needed for a package without one."""
TRIAL = SandboxJob(source="def f(n): return n + 1", calls=[Call.of("f", 1)], timeout_seconds=20.0)


class Launcher(Protocol):
    """How a backend starts and ends a worker."""

    name: str
    how_to_allow: str
    """What to change where it does not start; ends the message of a SandboxMissing."""
    start_seconds: float
    single: bool
    """Whether a worker is for one job only."""

    def start(self, *, single: bool, stderr: Any) -> "subprocess.Popen[bytes]":
        """A process with `worker.py` behind its stdin and stdout."""
        ...

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends it and all that it started."""
        ...


class WorkerLost(Exception):
    """The worker did not answer, or not as agreed. Stays inside this module."""


class NoNamespaces(Exception):
    """A worker cannot make namespaces for its job. Stays inside this module."""


class WorkerSandbox:
    """See `open_sandbox`."""

    def __init__(self, launcher: Launcher, *, num_workers: int | None = None) -> None:
        self.launcher = launcher
        self.num_workers = num_workers or os.cpu_count() or 1
        self.single = launcher.single
        """Whether each job has a worker of its own, rather than namespaces of its own in a warm worker."""
        self._proven = False
        self._workers: list[_Worker] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        # Each thread keeps one worker and outlives it: a worker dies with the thread that started it.
        self._threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix="sandbox")
        try:
            self._prove()
        except BaseException:
            self.close()
            raise

    def _prove(self) -> None:
        try:
            [outcome] = self.run([TRIAL])
        except NoNamespaces:
            self._end_workers()
            self._local = threading.local()
            self.single = True
            [outcome] = self.run([TRIAL])
        if not outcome.returned(0, 2):
            name, allow = self.launcher.name, self.launcher.how_to_allow
            raise SandboxMissing(f"sandbox: a trial job in {name} gave {outcome.status} ({outcome.detail}); {allow}")
        self._proven = True

    def run(self, jobs: Sequence[SandboxJob]) -> list[SandboxOutcome]:
        """The outcome of each job, in order."""
        return list(self._threads.map(self._run_single if self.single else self._run_warm, jobs))

    def _run_warm(self, job: SandboxJob) -> SandboxOutcome:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = self._start(single=False)
        try:
            return worker.run(job)
        except NoNamespaces:
            if not self._proven:
                raise
            return self._run_single(job)  # the kernel is out of them just now
        except WorkerLost as error:
            self._end(worker)
            self._local.worker = None
            return SandboxOutcome(status="crash", results=(), detail=f"worker lost: {error}")

    def _run_single(self, job: SandboxJob) -> SandboxOutcome:
        worker = self._start(single=True)
        try:
            return worker.run(job)
        except WorkerLost as error:
            return SandboxOutcome(status="crash", results=(), detail=f"worker lost: {error}")
        except NoNamespaces as error:
            raise SandboxMissing(
                f"sandbox: {self.launcher.name} cannot run a job ({error}); {self.launcher.how_to_allow}"
            ) from None
        finally:
            self._end(worker)

    def _start(self, *, single: bool) -> "_Worker":
        worker = _Worker(self.launcher, single=single)
        with self._lock:
            self._workers.append(worker)
        return worker

    def _end(self, worker: "_Worker") -> None:
        with self._lock:
            mine = worker in self._workers
            if mine:
                self._workers.remove(worker)
        if mine:  # or `close` ends it
            worker.kill()

    def _end_workers(self) -> None:
        for worker in list(self._workers):
            self._end(worker)

    def close(self) -> None:
        """Ends every process of the sandbox."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end_workers()

    def __enter__(self) -> "WorkerSandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Worker:
    """One process with the interpreter in it."""

    def __init__(self, launcher: Launcher, *, single: bool) -> None:
        self._launcher = launcher
        self._num_jobs = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill()
        self._process = launcher.start(single=single, stderr=self._stderr)
        try:
            self._receive(time.monotonic() + launcher.start_seconds)
        except WorkerLost as error:
            reason = self._complaint() or str(error)
            self.kill()
            raise SandboxMissing(f"sandbox: {launcher.name} does not start ({reason}); {launcher.how_to_allow}") from None

    def _complaint(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # what it says last may come after its output has ended
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def run(self, job: SandboxJob) -> SandboxOutcome:
        """What became of the job.

        Raises:
            WorkerLost: no answer in time, or not to this job; the worker must be replaced.
            NoNamespaces: the worker cannot confine a job beside others.
        """
        self._num_jobs += 1
        deadline = time.monotonic() + job.timeout_seconds + GRACE_SECONDS
        self._send(answers.message(job, self._num_jobs))
        head, output = self._receive(deadline)
        if head.get("nonce") != self._num_jobs:
            raise WorkerLost("an answer to another job")
        if head["status"] == "setup":
            raise NoNamespaces(head["detail"])
        return answers.outcome(job, head, output)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        stream = self._process.stdin
        assert stream is not None
        try:
            stream.write(struct.pack("<I", len(data)) + data)
            stream.flush()
        except BrokenPipeError:
            raise WorkerLost("it has ended") from None

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        (length,) = struct.unpack("<I", self._read(4, deadline))
        head: dict[str, Any] = json.loads(self._read(length, deadline))
        return head, self._read(head["size"], deadline)

    def _read(self, num_bytes: int, deadline: float) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        parts: list[bytes] = []
        while num_bytes > 0:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise WorkerLost("no answer in time")
            part = os.read(stream.fileno(), min(num_bytes, 1 << 20))
            if not part:
                raise WorkerLost("it has ended")
            parts.append(part)
            num_bytes -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """Ends it and, by its pid namespace, all that it started."""
        self._launcher.stop(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._stderr.close()
        self._process.wait()
