"""The sandbox on bubblewrap: one warm interpreter per CPU, each behind namespaces, each job in namespaces of its own.

No network, a read-only system, a private /tmp, an empty environment, an unprivileged user, and limits on memory, CPU time,
processes, files and output; the wall clock is held outside. Works as an ordinary user where the kernel lets users make
namespaces, and as root. Use it through `recontext_data.sandbox.open_sandbox`.
"""

import contextlib
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from recontext_data import values
from recontext_data.errors import DataError, SandboxMissing
from recontext_data.sandbox.base import Call, Job, Outcome, Result, Status

START_SECONDS = 20.0
GRACE_SECONDS = 5.0
"""How much longer than the job's own time an answer may take; then the worker is replaced."""
_PACKAGE = Path(__file__).resolve().parent.parent
_FILES = {
    "/job/worker.py": _PACKAGE / "sandbox" / "worker.py",
    "/job/recontext_data/values.py": _PACKAGE / "values.py",
    "/job/recontext_data/errors.py": _PACKAGE / "errors.py",
}
"""All of this package that exists inside; no __init__.py is needed for a package without one."""


class WorkerLost(Exception):
    """The worker did not answer, or not as agreed. Stays inside this module."""


class BubblewrapSandbox:
    """See `open_sandbox`."""

    def __init__(self, *, num_workers: int | None = None) -> None:
        self.num_workers = num_workers or os.cpu_count() or 1
        self._workers: list[_Worker] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        _find_bwrap()
        # Each thread keeps one worker and outlives it: a worker dies with the thread that started it.
        self._threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix="sandbox")
        try:
            self._prove()
        except BaseException:
            self.close()
            raise

    def _prove(self) -> None:
        [outcome] = self.run([Job(source="def f(n): return n + 1", calls=[Call.of("f", 1)])])
        if not outcome.returned(0, 2):
            raise SandboxMissing(f"sandbox: a trial job gave {outcome.status} {outcome.detail}; check that bwrap works here")

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job, in order."""
        return list(self._threads.map(self._run_one, jobs))

    def _run_one(self, job: Job) -> Outcome:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker()
            with self._lock:
                self._workers.append(worker)
        try:
            return worker.run(job)
        except WorkerLost as error:
            worker.kill()
            with self._lock:
                self._workers.remove(worker)
            self._local.worker = None
            return Outcome(status="crash", results=(), detail=f"worker lost: {error}")

    def close(self) -> None:
        """Ends every process of the sandbox."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def __enter__(self) -> "BubblewrapSandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Worker:
    """One bubblewrap process with the warm interpreter in it."""

    def __init__(self) -> None:
        self._num_jobs = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill()
        with contextlib.ExitStack() as stack:
            files = {inside: stack.enter_context(outside.open("rb")) for inside, outside in _FILES.items()}
            fds = {inside: stream.fileno() for inside, stream in files.items()}
            self._process = subprocess.Popen(
                _command(fds),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=list(fds.values()),
                env={},
            )
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except WorkerLost as error:
            reason = self._complaint() or str(error)
            self.kill()
            raise SandboxMissing(f"sandbox: bubblewrap does not start ({reason}); {_HOW_TO_ALLOW}") from None

    def _complaint(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def run(self, job: Job) -> Outcome:
        """What became of the job.

        Raises:
            WorkerLost: no answer in time, or not to this job; the worker must be replaced.
        """
        self._num_jobs += 1
        deadline = time.monotonic() + job.timeout_seconds + GRACE_SECONDS
        self._send(_job_message(job, self._num_jobs))
        head, output = self._receive(deadline)
        if head.get("nonce") != self._num_jobs:
            raise WorkerLost("an answer to another job")
        if head["status"] == "setup":
            raise SandboxMissing(f"sandbox: a job's namespaces cannot be made ({head['detail']}); {_HOW_TO_ALLOW}")
        return _outcome(job, head["status"], head["detail"], output)

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
        parts: list[bytes] = []
        while num_bytes > 0:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerLost("no answer in time")
            part = os.read(stream.fileno(), min(num_bytes, 1 << 20))
            if not part:
                raise WorkerLost("it has ended")
            parts.append(part)
            num_bytes -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """Ends it and, by its pid namespace, all that it started."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._stderr.close()
        self._process.wait()


def _job_message(job: Job, nonce: int) -> dict[str, Any]:
    return {
        "nonce": nonce,
        "source": job.source,
        "calls": [
            {"function": call.function, "arguments": list(call.arguments), "expression": call.expression} for call in job.calls
        ],
        "timeout_seconds": job.timeout_seconds,
        "memory_bytes": job.memory_bytes,
        "output_bytes": job.output_bytes,
    }


def _outcome(job: Job, status: str, detail: str, output: bytes) -> Outcome:
    """Reads what the child wrote. It may have written anything, so every line is checked."""
    results: list[Result] = []
    lines = output.split(b"\n")[:-1]  # what follows the last newline was cut off
    for line in lines:
        try:
            said = json.loads(line, parse_constant=_no_constant)
            if "source_error" in said and not results:
                return Outcome(status="source_error", results=(), detail=_text(said["source_error"], said["detail"]))
            results.append(_result(said))
        except (DataError, ValueError, TypeError, KeyError, RecursionError):
            return Outcome(status="garbled", results=(), detail="the code wrote into its result channel")
    if len(results) > len(job.calls):
        return Outcome(status="garbled", results=(), detail="more results than calls")
    if len(results) == len(job.calls):
        return Outcome(status="ok", results=results)
    ended: dict[str, Status] = {"timeout": "timeout", "output_limit": "output_limit"}
    return Outcome(status=ended.get(status, "crash"), results=results, detail=detail)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON; a value of ours is tagged")


def _result(said: dict[str, Any]) -> Result:
    if set(said) == {"value"}:
        values.decode(said["value"])  # proves the form: the comparison must not fail on it later
        return Result(value=said["value"])
    if set(said) != {"error", "detail"}:
        raise ValueError("neither a value nor an error")
    return Result(error=str(said["error"]), detail=str(said["detail"]))


def _text(*parts: object) -> str:
    return ": ".join(str(part) for part in parts)


_HOW_TO_GET = "install it: apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), pacman -S bubblewrap"
_HOW_TO_ALLOW = (
    "let users make namespaces: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "
    "or a container started with --privileged"
)


def _find_bwrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxMissing(f"sandbox: no bwrap on PATH, and code is never run without it; {_HOW_TO_GET}")
    return found


def _command(fds: dict[str, int]) -> list[str]:
    """The bwrap command line: what is inside and what is not."""
    command = [_find_bwrap(), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:
        # Real root becomes nobody by itself (see the worker); a user namespace would only rename it.
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--die-with-parent", "--new-session", "--clearenv"]
    # A fixed hash seed: a solution that lists a set gives the same order every time and everywhere.
    for name, text in {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}.items():
        command += ["--setenv", name, text]
    command += _mounts()
    for inside, fd in fds.items():
        command += ["--perms", "0444", "--file", str(fd), inside]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    return [*command, _interpreter(), "-s", "-S", "-B", "/job/worker.py"]


def _mounts() -> list[str]:
    mounts = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/bin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(folder):
            mounts += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            mounts += ["--ro-bind", folder, folder]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        # Made by hand, or bwrap would close a closed home to the worker, which is not its owner.
        for parent in [*prefix.parents][-2::-1]:
            mounts += ["--perms", "0755", "--dir", str(parent)]
        mounts += ["--ro-bind", str(prefix), str(prefix)]
    return [*mounts, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]


def _interpreter() -> str:
    """The interpreter that this one is, without its virtual environment: only the standard library is wanted inside."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
