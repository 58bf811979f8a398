"""The warm interpreter inside the sandbox: reads jobs, forks a keeper and a child for each, hands back what the child said.

Never imported and never run by hand: a backend starts it (`workers.py`) where only the standard library and four files of
this package are. One job at a time:

    worker      reads a job from stdin; answers {nonce, status, detail, said, size} and `size` bytes on stdout
    keeper      enters new user, pid, mount and IPC namespaces with an empty /tmp; holds the clock, reads the child,
                watches the memory of all that it started
    child       pid 1 in there: limits itself, closes every descriptor but its pipes, runs the code; when it ends, the
                kernel ends whatever it started

Started with `single` it takes one job only and makes no namespaces: those it is in are the job's own, and end with it.

The code can write what it likes into its own pipe, and so claim any result for its own calls. It cannot reach another
job: the worker's descriptors are closed in it and the worker is in a namespace that it cannot see or trace.
"""

import ctypes
import gc
import json
import os
import random
import resource
import struct
import sys
import types
from typing import Any, BinaryIO

from recontext_data.core import values
from recontext_data.sandbox import seccomp
from recontext_data.sandbox.collecting import MAX_PROCESSES, Collector, MemoryWatch

NOBODY = 65534
MAX_DETAIL = 300
"""Characters of an exception's message that are kept."""
MAX_SAID = 4096
"""Bytes that a program may say beside its output: why it ended."""
MAX_FILES = 64
MAX_FILE_BYTES = 16 * 2**20
TMP_OPTIONS = b"size=32m,nr_inodes=1k,mode=700"
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_PR_SET_DUMPABLE = 4
_CAPABILITY_VERSION_3 = 0x2008_0522
_RLIMIT_MSGQUEUE = 12  # Linux has it; `resource` does not name it
# What MBPP's solutions import: imported once here, not once a job.
WARM = (
    "bisect cmath collections copy datetime decimal fractions functools heapq io itertools math operator re "
    "statistics string threading typing"
)

_libc = ctypes.CDLL(None, use_errno=True)


def main(*, single: bool) -> None:
    """Answers jobs until stdin ends, or one."""
    _become_nobody()
    # Who shares the user and the pid namespace with this process may not look into it.
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # after `values` was imported: jobs import the library only
    for name in () if single else WARM.split():
        __import__(name)
    seccomp.program()  # kept from here on
    gc.freeze()  # a job's collections leave alone what it shares with this process, so less of it is copied
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    _send(stdout, {"ready": True}, b"")
    while header := stdin.read(4):
        job = json.loads(stdin.read(struct.unpack("<I", header)[0]))
        message, output = _keep(job, single=True) if single else _by_keeper(job)
        _send(stdout, {"nonce": job["nonce"], **message}, output)
        if single:
            return


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


def _by_keeper(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What became of one job, by way of a keeper: a process that enters namespaces does not come out of them."""
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        message, output = _keep(job, single=False)
        with open(writing, "wb") as stream:
            stream.write(json.dumps(message).encode() + b"\n" + output)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        head, _, output = stream.read().partition(b"\n")
    os.waitpid(keeper, 0)
    message = json.loads(head) if head else {"status": "setup", "detail": "the keeper said nothing", "said": ""}
    return message, output


def _keep(job: dict[str, Any], *, single: bool) -> tuple[dict[str, Any], bytes]:
    """Prepares the namespaces, starts the child, reads it until it ends or a limit is reached."""
    try:
        watch = MemoryWatch(job["memory_bytes"])
        if not single:
            _unshare()
        results, result_fd = os.pipe()
        prints, print_fd = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        streams = (null, null) if job["stdin"] is None else (_file_of(job["stdin"]), print_fd)
        child = os.fork()
        if child == 0:
            _child(job, (*streams, null, result_fd), single=single)  # never returns
        os.close(result_fd)
        os.close(print_fd)
        limits = {name: job[name] for name in ("timeout_seconds", "output_bytes")}
        collector = Collector(child, (results, prints), **limits)
        status, detail = collector.collect(watch)
        _, wait_status = os.waitpid(child, 0)
    except OSError as error:
        return {"status": "setup", "detail": str(error), "said": ""}, b""
    if status == "ended":
        status, detail = _how_it_ended(wait_status)
    if job["stdin"] is None:
        return {"status": status, "detail": detail, "said": ""}, collector.read(results)
    said = collector.read(results)[:MAX_SAID].decode(errors="replace")
    return {"status": status, "detail": detail, "said": said}, collector.read(prints)


def _how_it_ended(wait_status: int) -> tuple[str, str]:
    code = os.waitstatus_to_exitcode(wait_status)
    return ("done" if code == 0 else "crash"), (f"exit status {code}" if code >= 0 else f"signal {-code}")


def _unshare() -> None:
    """New namespaces: the next fork is pid 1; /tmp is empty and private; /proc shows nothing."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC)
    _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self would be root's, and the maps are written there
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    flags = _MS_NOSUID | _MS_NODEV
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", flags, TMP_OPTIONS)
    _call("mount", b"tmpfs", b"/proc", b"tmpfs", flags | _MS_NOEXEC | _MS_RDONLY, b"size=4k")
    os.chdir("/tmp")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _child(job: dict[str, Any], fds: tuple[int, ...], *, single: bool) -> None:
    """Confines itself and runs the code."""
    code = 1
    try:
        _confine(job, fds, single=single)
        code = _evaluate(job) if job["stdin"] is None else _run_program(job["source"])
    except BaseException as error:  # the code may raise anything, and must not run on as a copy of the keeper
        _tell({"source_error": type(error).__name__, "detail": _describe(error)})
    finally:
        os._exit(code)


RESULT_FD = 3


def _confine(job: dict[str, Any], fds: tuple[int, ...], *, single: bool) -> None:
    """Leaves the code its stdin, stdout, stderr and result pipe (in that order), and limits that it cannot lift."""
    os.setsid()  # a process group reaches across pid namespaces: kill(0) would end the keeper and the worker
    # First above all that is needed, then down to their places: none is overwritten before it is moved.
    moved = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
    for place, fd in enumerate(moved):
        os.dup2(fd, place)
    os.closerange(RESULT_FD + 1, 1 << 16)
    cpu_seconds = int(job["timeout_seconds"]) + 2
    limits = {
        resource.RLIMIT_AS: job["memory_bytes"],
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_FILES,
        # Without a user namespace of its own the count is of all that this user runs: the watch counts the job's.
        resource.RLIMIT_NPROC: 8 * MAX_PROCESSES if single else MAX_PROCESSES,
        resource.RLIMIT_CORE: 0,
        _RLIMIT_MSGQUEUE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    # The new user namespace gave every capability inside itself, such as mounting; none is needed any more.
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))
    seccomp.install(seccomp.program())
    random.seed(0)


def _file_of(text: str) -> int:
    """A file without a name that holds the text."""
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    with open(fd, "wb", closefd=False) as stream:
        stream.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _evaluate(job: dict[str, Any]) -> int:
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
    return 0


def _evaluate_call(call: dict[str, Any], names: dict[str, Any]) -> object:
    if call["expression"] is not None:
        return eval(call["expression"], names)
    function = names[call["function"]]
    return function(*[values.decode(argument) for argument in call["arguments"]])


def _run_program(source: str) -> int:
    """Runs the source as `python program.py` would, to its exit status: guard, exit(), threads and atexit included."""
    import atexit
    import builtins
    import io
    import threading

    sys.argv = ["program.py"]
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # the site module, which makes them, is not loaded
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
        code = 0
    except SystemExit as error:
        code = _exit_status(error.code)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


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
    main(single="single" in sys.argv[1:])
