"""The sandbox holds: nothing that the code does reaches this machine, another job, or the verdict."""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox import Call, Result, Sandbox, SandboxJob, SandboxOutcome, open_sandbox, seccomp
from recontext_data.sandbox.base import normalised
from tests.sandboxes import sandbox_or_skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One worker, so that jobs follow each other in the same interpreter and could hurt each other if anything let them."""
    with sandbox_or_skip(num_workers=1) as sandbox:
        yield sandbox


def run(sandbox: Sandbox, source: str, *expressions: str, seconds: float = 10.0) -> SandboxOutcome:
    [outcome] = sandbox.run(
        [SandboxJob(source=source, calls=[Call(expression=e) for e in expressions], timeout_seconds=seconds)]
    )
    return outcome


def value(sandbox: Sandbox, source: str, expression: str) -> object:
    return run(sandbox, source, expression).value(0)


def test_calls_map_inputs_to_outputs(sandbox: Sandbox) -> None:
    job = SandboxJob(
        source="def f(n, xs):\n    xs.append(n)\n    return n + 1, {n: xs}",
        calls=[Call.of("f", 1, [0]), Call.of("f", 2**70, []), Call(expression="f(1, [])[0] == 2")],
    )
    [outcome] = sandbox.run([job])
    assert outcome.status == "ok"
    assert outcome.value(0) == {"tuple": [2, {"dict": [[1, [0, 1]]]}]}
    assert outcome.returned(0, {"tuple": [2.0, {"dict": [[1, [0, 1]]]}]})
    assert not outcome.returned(0, [2, {"dict": [[1, [0, 1]]]}])
    assert outcome.value(2) is True


def test_outcomes_come_in_the_order_of_the_jobs() -> None:
    with sandbox_or_skip(num_workers=2) as sandbox:
        outcomes = sandbox.run([SandboxJob(source="def f(n): return n * n", calls=[Call.of("f", n)]) for n in range(60)])
    assert [outcome.value(0) for outcome in outcomes] == [n * n for n in range(60)]


def test_an_error_of_one_call_leaves_the_others(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "import sys", "1 / 0", "sys.exit(0)", "exit()", "2 + 2", "undefined")
    assert [result.error for result in outcome.results] == [
        "ZeroDivisionError",
        "SystemExit",
        "NameError",  # the site module, which makes exit(), is not loaded inside
        None,
        "NameError",
    ]
    assert outcome.status == "ok" and outcome.value(3) == 4
    with pytest.raises(LookupError, match="call 0 raised ZeroDivisionError: division by zero"):
        outcome.value(0)


def test_a_source_that_fails_says_why(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(:", "1").status == "source_error"
    outcome = run(sandbox, "raise KeyError('x')", "1")
    assert (outcome.status, outcome.detail) == ("source_error", "KeyError: 'x'")
    assert run(sandbox, "import sys; sys.exit(0)", "1").status == "source_error"


def test_an_infinite_loop_ends_by_the_clock_and_earlier_results_stay(sandbox: Sandbox) -> None:
    started = time.monotonic()
    outcome = run(sandbox, "def f():\n    while True: pass", "1", "f()", "3", seconds=0.5)
    assert outcome.status == "timeout" and [r.value for r in outcome.results] == [1]
    assert time.monotonic() - started < 60  # it ends at all
    sleeper = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f(): time.sleep(60)"
    assert run(sandbox, sleeper, "f()", seconds=0.5).status == "timeout"


def test_a_job_that_closes_its_channel_and_lives_on_is_ended(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "import os, time\ndef f():\n    os.close(3)\n    time.sleep(60)", "f()", seconds=0.5)
    assert outcome.status == "timeout"


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "", "[0] * 10**9", "1")
    assert outcome.results[0].error == "MemoryError" and outcome.value(1) == 1


MANY = """
import os, time
def f(num_processes, num_bytes, touch):
    for _ in range(num_processes):
        if os.fork() == 0:
            touch(num_bytes)
            time.sleep(60)
            os._exit(0)
    time.sleep({seconds})
    return 1
def private(num_bytes):
    return bytearray(b"x") * num_bytes
def shared(num_bytes):
    import mmap
    m = mmap.mmap(-1, num_bytes)
    m.write(b"x" * num_bytes)
    globals()["kept"] = m
"""


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_the_memory_of_a_job_is_that_of_all_its_processes(sandbox: Sandbox, kind: str) -> None:
    def outcome(num_processes: int, num_bytes: int, seconds: float) -> SandboxOutcome:
        source = MANY.replace("{seconds}", str(seconds))
        return run(sandbox, source, f"f({num_processes}, {num_bytes}, {kind})", seconds=30.0)

    much = outcome(6, 150 * 2**20, 30.0)
    assert much.status == "crash" and "MiB in 7 processes, 512 MiB allowed" in much.detail
    # Stopped soon after the limit, not at what six processes would hold.
    assert 512 <= int(much.detail.split()[1]) < 850
    assert outcome(3, 50 * 2**20, 1.0).returned(0, 1)


def test_memory_that_is_no_process_s_cannot_be_had(sandbox: Sandbox) -> None:
    source = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)"
    assert value(sandbox, source, "libc.shmget(0, 4096, 0o1600), ctypes.get_errno()") == {"tuple": [-1, 1]}
    assert run(sandbox, source, "os.memfd_create('a')").results[0].error == "PermissionError"
    fill = "def f():\n    for i in range(9):\n        with open(f'/tmp/{i}', 'wb') as file: file.write(bytes(8 * 2**20))"
    assert run(sandbox, fill, "f()").results[0].detail.startswith("[Errno 28]")


def test_a_job_without_calls_says_whether_the_source_ran_to_its_end(sandbox: Sandbox) -> None:
    assert run(sandbox, "x = 1").status == "ok"
    assert run(sandbox, "while True: pass", seconds=0.3).status == "timeout"
    assert run(sandbox, "import os; os._exit(1)").status == "crash"


def program(sandbox: Sandbox, source: str, stdin: str = "", **options: Any) -> SandboxOutcome:
    [outcome] = sandbox.run([SandboxJob(source=source, stdin=stdin, **options)])
    return outcome


def test_a_program_reads_stdin_and_prints(sandbox: Sandbox) -> None:
    source = "import sys\nn = int(input())\nfor line in sys.stdin: print(int(line) * n)"
    assert program(sandbox, source, "2\n10\n20\n") == SandboxOutcome(status="ok", results=(Result(value="20\n40\n"),))
    assert program(sandbox, "print(input())", "ä €\n").printed("ä €")
    long = "1 " * 500_000
    assert program(sandbox, "print(len(input().split()))", long).printed("500000")


@pytest.mark.parametrize(
    "source",
    [
        "if __name__ == '__main__': print(3)",
        "print(3); exit()",
        "import sys; print(3); sys.exit(0)",
        "import os; os.write(1, b'3'); os._exit(0)",
        "import threading\ndef main(): print(3)\nthreading.stack_size(2**26)\nthreading.Thread(target=main).start()",
        "import atexit; atexit.register(print, 3)",
        "import sys; sys.stdout.write('3'); sys.stderr.write('noise')",
        "import subprocess; subprocess.run(['echo', '3'])",
        "import os, time\nprint(3, flush=True)\nif os.fork() == 0: time.sleep(60)",
        "open(0, closefd=False); print(3)",
    ],
)
def test_a_program_runs_as_a_script_does(sandbox: Sandbox, source: str) -> None:
    outcome = program(sandbox, source)
    assert outcome.printed("3"), outcome


def test_a_program_that_fails_has_printed_nothing_that_counts(sandbox: Sandbox) -> None:
    raised = program(sandbox, "print(3)\n1 / 0")
    assert (raised.status, raised.detail) == ("source_error", "ZeroDivisionError: division by zero")
    assert program(sandbox, "print(3").status == "source_error"
    left = program(sandbox, "import sys; print(3); sys.exit(4)")
    assert (left.status, left.detail) == ("crash", "exit status 4")
    assert program(sandbox, "import sys; print(3); sys.exit('why')").detail == "exit status 1"
    assert program(sandbox, "import time; print(3, flush=True); time.sleep(60)", timeout_seconds=0.4).status == "timeout"
    assert program(sandbox, "while True: print('x' * 1000)").status == "output_limit"
    assert program(sandbox, "import os, signal; print(3, flush=True); os.kill(os.getpid(), 6)").status in ("crash", "ok")
    for outcome in (raised, left):
        assert not outcome.printed("3") and outcome.results == ()
    forged = program(sandbox, 'import os; os.write(3, b\'{"source_error": "x", "detail": []}\\n\'); os._exit(0)')
    assert forged.printed("") and not forged.printed("3")


def test_what_is_printed_is_compared_but_for_whitespace() -> None:
    def printed(text: str, expected: str) -> bool:
        return SandboxOutcome(status="ok", results=(Result(value=text),)).printed(expected)

    assert printed("1  2 \r\n3\n\n", "1 2\n3") and printed("", "\n")
    assert not printed("1 2 3", "1 2\n3") and not printed("1\n\n2", "1\n2") and not printed("A", "a")
    assert not printed("1.0", "1") and not printed("12", "1 2")
    assert not SandboxOutcome(status="crash", results=(Result(value="1"),)).printed("1")
    assert not SandboxOutcome(status="ok", results=(Result(value=1),)).printed("1")
    assert normalised(" a\tb \n\n") == ["a b"]


def test_a_job_is_a_program_or_has_calls_and_its_stdin_is_bounded() -> None:
    with pytest.raises(ValueError, match=r"job: stdin and calls; a program \(stdin\) has no calls"):
        SandboxJob(source="", stdin="", calls=[Call.of("f")])
    with pytest.raises(ValueError, match=r"job: stdin of 16,777,217 characters; at most 16,777,216"):
        SandboxJob(source="", stdin="x" * (2**24 + 1))


def test_system_calls_that_no_solution_needs_are_refused(sandbox: Sandbox) -> None:
    if not seccomp.program():
        pytest.skip("no filter for this machine")
    column = 0 if os.uname().machine == "x86_64" else 1
    numbers = {name: pair[column] for name, pair in seccomp.REFUSED.items()}
    source = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    source += "def f(n):\n    return libc.syscall(n, -1, -1, -1, -1, -1), ctypes.get_errno()"
    [outcome] = sandbox.run([SandboxJob(source=source, calls=[Call.of("f", number) for number in numbers.values()])])
    for index, name in enumerate(numbers):
        assert outcome.value(index) == {"tuple": [-1, 1]}, name
    families = "import socket\ndef f(family):\n    return socket.socket(family, 1)"
    [outcome] = sandbox.run([SandboxJob(source=families, calls=[Call.of("f", family) for family in (2, 10, 16, 17, 38, 40)])])
    assert all("[Errno 97]" in result.detail for result in outcome.results)
    assert value(sandbox, "import socket", "len(socket.socketpair())") == 2
    assert value(sandbox, "import subprocess", "subprocess.check_output(['echo', 'a'])") == {"bytes": b"a\n".hex()}
    thread = "import threading\ndef f():\n    found = []\n    t = threading.Thread(target=found.append, args=[1])\n"
    assert value(sandbox, thread + "    t.start(); t.join()\n    return found", "f()") == [1]
    if column == 0:
        i386 = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)"
        assert value(sandbox, i386, "libc.syscall(0x40000000 | 272, 0), ctypes.get_errno()") == {"tuple": [-1, 38]}


def test_the_numbers_of_the_filter_are_the_kernel_s() -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("needs libseccomp to compare with")
    for name, numbers in {**seccomp.REFUSED, **seccomp.ARGUED}.items():
        for architecture, number in zip((0xC000003E, 0xC00000B7), numbers, strict=True):
            known = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture), name.encode())
            assert known in (number, -1), (name, hex(architecture))  # an old library does not know the newest
    assert seccomp.program("riscv64") == b"" and len(seccomp.program("aarch64")) < len(seccomp.program("x86_64"))


def test_output_is_bounded(sandbox: Sandbox) -> None:
    assert run(sandbox, "", "'x' * 10_000_000", "1").status == "output_limit"


def test_leaving_the_process_is_a_crash_and_no_pass(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "import os", "1", "os._exit(0)", "3")
    assert outcome.status == "crash" and len(outcome.results) == 1
    assert not outcome.returned(1, None)
    with pytest.raises(LookupError, match="call 1 has no result: crash"):
        outcome.value(1)


def test_noise_on_stdout_and_an_empty_stdin_change_nothing(sandbox: Sandbox) -> None:
    noise = "import os, sys\nprint('{\"value\": 9}')\nos.write(1, b'x' * 100_000)\nsys.stderr.write('y' * 100_000)"
    assert value(sandbox, noise, "3") == 3
    assert run(sandbox, "", "input()").results[0].error == "EOFError"


def test_an_object_that_equals_everything_is_no_value(sandbox: Sandbox) -> None:
    source = (
        "class E:\n    __eq__ = lambda s, o: True\nclass I(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__"
    )
    outcome = run(sandbox, source, "E()", "I(3)", "[I(3)]")
    assert [result.error for result in outcome.results] == ["EncodingError"] * 3
    assert not outcome.returned(0, 3)


def test_what_is_written_into_the_channel_is_not_believed(sandbox: Sandbox) -> None:
    for forged in ('{"value": 7}', '{"value": {"set": [[]]}}', "{}", "[1]", "nonsense", '{"value": NaN}', "[" * 100_000):
        source = f"import os\ndef f():\n    os.write(3, {forged!r}.encode() + b'\\n')\n    return 1"
        outcome = run(sandbox, source, "f()")
        assert outcome.status == "garbled" and outcome.results == (), forged


def test_there_is_no_network(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "import socket", "socket.create_connection(('192.0.2.1', 80), 2)", "socket.gethostbyname('a.test')")
    assert [result.error for result in outcome.results] == ["OSError", "gaierror"]


def test_it_sees_nothing_of_this_machine(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(sandbox, "import os", "os.environ.get('HOME')") == "/tmp"
    assert value(sandbox, "import os", "os.getuid()") == 65534
    assert (
        value(sandbox, "import os", "[d for d in ('/home', '/mnt', '/sys', '/var', '/etc/passwd') if os.path.exists(d)]") == []
    )
    assert value(sandbox, "import os", f"os.path.exists({os.path.abspath(__file__)!r})") is False
    assert value(sandbox, "import os", "os.listdir('/proc')") == []


def test_files_do_not_persist_and_the_system_is_read_only(sandbox: Sandbox) -> None:
    write = "import os\ndef f(p):\n    open(p, 'w').write('x')\n    return os.listdir('/tmp')"
    assert value(sandbox, write, "f('/tmp/a')") == ["a"]
    assert value(sandbox, "import os", "os.listdir('/tmp')") == []
    for path in ("/usr/a", "/a", "/dev/shm/a", "/job/worker.py", "/job/recontext_data/core/values.py"):
        assert run(sandbox, write, f"f({path!r})").results[0].error in ("OSError", "PermissionError"), path


def test_a_changed_library_is_whole_again_for_the_next_job(sandbox: Sandbox) -> None:
    run(sandbox, "import json, math, builtins\nmath.sqrt = lambda n: 0\nbuiltins.len = lambda n: 0", "1")
    assert value(sandbox, "import math", "math.sqrt(4), len('ab')") == {"tuple": [2.0, 2]}


def test_it_cannot_regain_rights(sandbox: Sandbox) -> None:
    source = "import ctypes\nlibc = ctypes.CDLL(None)"
    assert value(sandbox, source, "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)") == -1
    assert run(sandbox, "import os", "os.setuid(0)").results[0].error in ("PermissionError", "OSError")
    assert run(sandbox, "import resource as r", "r.setrlimit(r.RLIMIT_AS, (-1, -1))").results[0].error == "ValueError"


def descendants() -> set[int]:
    """Every process below this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


FORKS = """
import os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    return 1
"""


def test_a_fork_leaves_no_process_behind(sandbox: Sandbox) -> None:
    value(sandbox, "", "1")
    before = descendants()
    assert run(sandbox, FORKS, "f()").returned(0, 1)
    assert descendants() == before


def test_a_fork_bomb_is_bounded(sandbox: Sandbox) -> None:
    bomb = "import os, time\ndef f():\n    n = 0\n    while True:\n        if os.fork() == 0: time.sleep(60)\n        n += 1"
    outcome = run(sandbox, bomb, "f()", "1")
    assert outcome.results[0].error == "BlockingIOError" and outcome.value(1) == 1


def test_a_job_cannot_end_the_interpreter(sandbox: Sandbox) -> None:
    before = descendants()
    kill = (
        "import os, signal\nfor pid in (-1, *range(2, 400), os.getppid()):\n    try: os.kill(pid, 9)\n    except OSError: pass"
    )
    assert value(sandbox, kill, "os.getppid()") == 0
    assert value(sandbox, "", "1") == 1
    assert descendants() == before


def test_closing_ends_every_process() -> None:
    before = descendants()
    with sandbox_or_skip(num_workers=2) as sandbox:
        sandbox.run([SandboxJob(source="", calls=[Call(expression="1")])] * 4)
        assert descendants() > before
    assert descendants() == before


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxMissing, match=r"no bwrap on PATH.*apt-get install bubblewrap"):
        open_sandbox()


def test_a_bubblewrap_that_may_not_make_namespaces_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "bwrap"
    stub.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxMissing, match=r"No permissions to create new namespace.*unprivileged_userns_clone=1"):
        open_sandbox()
