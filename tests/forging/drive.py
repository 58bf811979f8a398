"""Runs every program of the suite in one sandbox and says what became of it and what it left behind, a JSON line for each.

    python -m tests.forging.drive BACKEND [NAME ...]

A process of its own, so that it can run as an ordinary user; it needs the standard library and `recontext_data.sandbox` only.
"""

import contextlib
import ctypes
import glob
import json
import os
import socket
import sys
import time

from recontext_data.sandbox import Call, Sandbox, SandboxJob, SandboxOutcome, open_sandbox
from tests.forging import PROGRAMS

CALLS = [Call.of("f", 7), Call.of("f", 12), Call.of("f", "ab")]
EXPECTED = [4823, {"tuple": [12, "twelve"]}, "nine lives"]
"""The secret. It is in no job."""
HONEST = "def f(x): return {7: 4823, 12: (12, 'twelve')}.get(x, 'nine lives')"
SECONDS = 0.6
_PR_SET_CHILD_SUBREAPER = 36


def passed(outcome: SandboxOutcome) -> bool:
    """As a judge would have it: every call returned what is expected."""
    return outcome.status == "ok" and all(outcome.returned(i, expected) for i, expected in enumerate(EXPECTED))


def descendants() -> list[int]:
    """Every process below this one. Orphans come to this one, so none can leave the tree."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(name)] = int(fields[1])
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def settled(num_processes: int) -> int:
    """How many processes there are, once what is just ending has ended."""
    for _ in range(100):
        if len(descendants()) <= num_processes:
            break
        time.sleep(0.02)
    return len(descendants())


def files_left() -> list[str]:
    """What a program would have left: in places of this machine, and in the worker's own /tmp where that can be seen."""
    places = ("/", "/tmp/", "/usr/", "/dev/shm/", "/var/tmp/", "/job/", "./")
    found = [path for place in places for path in glob.glob(f"{place}escaped-file*")]
    for pid in descendants():
        with contextlib.suppress(OSError):
            root = f"/proc/{pid}/root"
            if os.path.exists(f"{root}/job/worker.py"):
                found += os.listdir(f"{root}/tmp")
    return found


def drive(sandbox: Sandbox, names: list[str]) -> None:
    """One line per program."""
    honest = SandboxJob(source=HONEST, calls=CALLS)
    probe = SandboxJob(source="import os", calls=[Call(expression="os.listdir('/tmp')")])
    [outcome] = sandbox.run([honest])
    if not passed(outcome):
        raise SystemExit(f"the honest program does not pass: {outcome}")
    num_processes = len(descendants())
    for name in names or PROGRAMS:
        started = time.monotonic()
        [outcome] = sandbox.run([SandboxJob(source=PROGRAMS[name][1], calls=CALLS, timeout_seconds=SECONDS)])
        seconds = time.monotonic() - started
        after, tmp = sandbox.run([honest, probe])
        report = {
            "name": name,
            "passed": passed(outcome),
            "status": outcome.status,
            "detail": outcome.detail[:200],
            "results": [str(result.error or result.value)[:80] for result in outcome.results],
            "seconds": round(seconds, 2),
            "honest_passes": passed(after),
            "num_processes_more": settled(num_processes) - num_processes,
            "files": [*files_left(), *tmp.value(0)],
        }
        print(json.dumps(report), flush=True)


def main(arguments: list[str]) -> None:
    """Backend, then names of programs; all of them by default."""
    backend, *names = arguments
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    host = socket.gethostname()
    with open_sandbox(num_workers=1, backend=backend) as sandbox:  # type: ignore[arg-type]
        drive(sandbox, names)
    print(
        json.dumps(
            {"num_processes_after_close": settled(0), "host_is_the_same": socket.gethostname() == host, "uid": os.getuid()}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
