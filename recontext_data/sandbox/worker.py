"""The warm interpreter inside the sandbox: reads jobs, forks a keeper and a child for each, hands back what the child said.

Never imported and never run by hand: `bubblewrap.py` starts it inside bubblewrap, where only the standard library,
`recontext_data/values.py` and `recontext_data/errors.py` are there. One job at a time:

    worker      reads a job from stdin; answers {nonce, status, detail, size} and `size` bytes on stdout
    keeper      enters new user, pid, mount and IPC namespaces with an empty /tmp; holds the clock and reads the child
    child       pid 1 in there: limits itself, closes every descriptor but its pipe, runs the code; when it ends, the
                kernel ends whatever it started

The code can write what it likes into its own pipe, and so claim any result for its own calls. It cannot reach another
job: the worker's descriptors are closed in it and the worker is in a namespace that it cannot see or trace.
"""

import ctypes
import json
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import types
from typing import Any, BinaryIO

NOBODY = 65534
MAX_DETAIL = 300
"""Characters of an exception's message that are kept."""
MAX_PROCESSES = 32
"""Processes and threads of one job, the keeper included."""
MAX_FILES = 64
MAX_FILE_BYTES = 16 * 2**20
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_PR_SET_DUMPABLE = 4
_CAPABILITY_VERSION_3 = 0x2008_0522
# What MBPP's solutions import: imported once here, not once a job.
WARM = (
    "bisect cmath collections copy datetime decimal fractions functools heapq itertools math operator re "
    "statistics string typing"
)

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Answers jobs until stdin ends."""
    _become_nobody()
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # after `values` was imported: jobs import the library only
    for name in WARM.split():
        __import__(name)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    _send(stdout, {"ready": True}, b"")
    while header := stdin.read(4):
        job = json.loads(stdin.read(struct.unpack("<I", header)[0]))
        status, detail, output = _run(job)
        _send(stdout, {"nonce": job["nonce"], "status": status, "detail": detail}, output)


def _become_nobody() -> None:
    """Real root is exempt from the limit on processes, so it is left for good."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _send(stream: BinaryIO, message: dict[str, Any], output: bytes) -> None:
    head = json.dumps({**message, "size": len(output)}).encode()
    stream.write(struct.pack("<I", len(head)) + head + output)
    stream.flush()


def _run(job: dict[str, Any]) -> tuple[str, str, bytes]:
    """Status, detail and output of one job, by way of a keeper."""
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        _keep(job, writing)  # never returns
    os.close(writing)
    with open(reading, "rb") as stream:
        head, _, output = stream.read().partition(b"\n")
    os.waitpid(keeper, 0)
    if not head:
        return "setup", "the keeper said nothing", b""
    status, detail = json.loads(head)
    return status, detail, output


def _keep(job: dict[str, Any], writing: int) -> None:
    """The keeper: prepares the namespaces, starts the child, reads it until it ends or its time is over."""
    try:
        _unshare()
        reading, result_fd = os.pipe()
        child = os.fork()
        if child == 0:
            _child(job, result_fd)  # never returns
        os.close(result_fd)
        status, output = _collect(reading, child, job)
        _, wait_status = os.waitpid(child, 0)
        detail = _how_it_ended(wait_status) if status == "ended" else ""
    except OSError as error:
        status, detail, output = "setup", str(error), b""
    with open(writing, "wb") as stream:
        stream.write(json.dumps([status, detail]).encode() + b"\n" + output)
    os._exit(0)


def _how_it_ended(wait_status: int) -> str:
    code = os.waitstatus_to_exitcode(wait_status)
    return f"exit status {code}" if code >= 0 else f"signal {-code}"


def _unshare() -> None:
    """New namespaces: the next fork is pid 1; /tmp is empty and private; /proc shows nothing."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC)
    _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # leaving root made /proc/self root's, and the maps are written there
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    flags = _MS_NOSUID | _MS_NODEV
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", flags, b"size=32m,nr_inodes=1k,mode=700")
    _call("mount", b"tmpfs", b"/proc", b"tmpfs", flags | _MS_NOEXEC | _MS_RDONLY, b"size=4k")
    os.chdir("/tmp")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _collect(reading: int, child: int, job: dict[str, Any]) -> tuple[str, bytes]:
    """Everything that the child wrote, and `ended`, or why it was killed."""
    deadline = time.monotonic() + job["timeout_seconds"]
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    parts: list[bytes] = []
    num_bytes = 0
    status = "ended"
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            status = "timeout"
            break
        part = os.read(reading, 1 << 16)
        if not part:
            # The pipe is closed, but the child may have closed it by itself and live on.
            status = "ended" if _ends_by(child, deadline) else "timeout"
            break
        parts.append(part)
        num_bytes += len(part)
        if num_bytes > job["output_bytes"]:
            status = "output_limit"
            break
    os.kill(child, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
    return status, b"".join(parts)


def _ends_by(child: int, deadline: float) -> bool:
    while True:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)


def _child(job: dict[str, Any], result_fd: int) -> None:
    """Confines itself and runs the code."""
    code = 1
    try:
        _confine(job, result_fd)
        _evaluate(job)
        code = 0
    except BaseException as error:  # the code may raise anything, and must not run on as a copy of the keeper
        _tell({"source_error": type(error).__name__, "detail": _describe(error)})
    finally:
        os._exit(code)


RESULT_FD = 3


def _confine(job: dict[str, Any], result_fd: int) -> None:
    """Leaves the code its pipe, an empty stdin, a silent stdout and stderr, and limits that it cannot lift."""
    os.setsid()  # a process group reaches across pid namespaces: kill(0) would end the keeper and the worker
    null = os.open("/dev/null", os.O_RDWR)
    kept = os.dup2(result_fd, max(result_fd, null, RESULT_FD) + 1)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(kept, RESULT_FD)
    os.closerange(RESULT_FD + 1, 1 << 16)
    cpu_seconds = int(job["timeout_seconds"]) + 2
    limits = {
        resource.RLIMIT_AS: job["memory_bytes"],
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_NPROC: MAX_PROCESSES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    # The new user namespace gave every capability inside itself, such as mounting; none is needed any more.
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))
    random.seed(0)


def _evaluate(job: dict[str, Any]) -> None:
    """Runs the source in a module of its own, then each call; says each result as soon as it is there."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look their module up
    names = module.__dict__
    exec(compile(job["source"], "<solution>", "exec"), names)
    for call in job["calls"]:
        try:
            value = _evaluate_call(call, names)
            said = {"value": values.encode(value)}
        except BaseException as error:  # sys.exit and the like are an error of this call, not the end of the job
            said = {"error": type(error).__name__, "detail": _describe(error)}
        _tell(said)


def _evaluate_call(call: dict[str, Any], names: dict[str, Any]) -> object:
    if call["expression"] is not None:
        return eval(call["expression"], names)
    function = names[call["function"]]
    return function(*[values.decode(argument) for argument in call["arguments"]])


def _describe(error: BaseException) -> str:
    try:
        return str(error)[:MAX_DETAIL].encode(errors="replace").decode()
    except BaseException:  # its __str__ is the code's own
        return ""


def _tell(said: dict[str, Any]) -> None:
    data = json.dumps(said).encode() + b"\n"
    while data:
        data = data[os.write(RESULT_FD, data) :]


if __name__ == "__main__":
    from recontext_data import values

    main()
