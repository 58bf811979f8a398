"""The sandbox holds: nothing that the code does reaches this machine, another job, or the verdict."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recontext_data.errors import SandboxMissing
from recontext_data.sandbox import Call, Job, Outcome, Sandbox, open_sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One worker, so that jobs follow each other in the same interpreter and could hurt each other if anything let them."""
    try:
        opened = open_sandbox(num_workers=1)
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")
    with opened as sandbox:
        yield sandbox


def run(sandbox: Sandbox, source: str, *expressions: str, seconds: float = 10.0) -> Outcome:
    [outcome] = sandbox.run([Job(source=source, calls=[Call(expression=e) for e in expressions], timeout_seconds=seconds)])
    return outcome


def value(sandbox: Sandbox, source: str, expression: str) -> object:
    return run(sandbox, source, expression).value(0)


def test_calls_map_inputs_to_outputs(sandbox: Sandbox) -> None:
    job = Job(
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
    try:
        opened = open_sandbox(num_workers=2)
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")
    with opened as sandbox:
        outcomes = sandbox.run([Job(source="def f(n): return n * n", calls=[Call.of("f", n)]) for n in range(60)])
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
    assert time.monotonic() - started < 5
    sleeper = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f(): time.sleep(60)"
    assert run(sandbox, sleeper, "f()", seconds=0.5).status == "timeout"


def test_a_job_that_closes_its_channel_and_lives_on_is_ended(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "import os, time\ndef f():\n    os.close(3)\n    time.sleep(60)", "f()", seconds=0.5)
    assert outcome.status == "timeout"


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "", "[0] * 10**9", "1")
    assert outcome.results[0].error == "MemoryError" and outcome.value(1) == 1


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
    for path in ("/usr/a", "/a", "/dev/shm/a", "/job/worker.py", "/job/recontext_data/values.py"):
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
    try:
        opened = open_sandbox(num_workers=2)
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")
    with opened as sandbox:
        sandbox.run([Job(source="", calls=[Call(expression="1")])] * 4)
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
