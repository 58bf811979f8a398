"""Every backend holds alike: a bubblewrap per job, podman where there is one, and docker's command line."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox import Call, SandboxJob, container, open_sandbox
from recontext_data.sandbox.workers import FILES, WORKER, WorkerSandbox
from tests.sandboxes import check, finish, open_folder, readable_copy, readable_python, sandbox_or_skip, start

CORNERS = (
    *("always_equal", "patched_worker", "every_descriptor", "worker_answer", "exit_zero", "thread", "kill_parent"),
    *("kill_everything", "stop_parent", "daemon", "daemon_that_holds_the_pipe", "parent_memory", "parent_descriptors"),
    *("ptrace", "fork_bomb", "memory_bomb_in_many", "system_v_memory", "large_channel", "leave_in_tmp"),
    *("new_user_namespace", "network", "execs_itself", "mount", "setuid_file", "signal_handler"),
)
"""Of the forging suite, what touches other processes, the channel and the file system."""
SQUARES = [SandboxJob(source="def f(n): return n * n", calls=[Call.of("f", n)]) for n in range(6)]


def users() -> list[str]:
    return ["root", "ordinary"] if os.getuid() == 0 else ["ordinary"]


def python_of(user: str) -> str:
    return readable_python() if user == "ordinary" else sys.executable


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    with open_folder() as folder:
        yield readable_copy(folder)


def test_a_bubblewrap_per_job_holds_against_the_forging_suite_as_every_user(copy: Path) -> None:
    drive = ["-B", "-m", "tests.forging.drive", "bubblewrap_per_job", *CORNERS]
    for found in [finish(process) for process in [start(copy, [python_of(user), *drive], user) for user in users()]]:
        assert set(found) == {*CORNERS, "end"}
        for name in CORNERS:
            check(found[name])
        assert found["end"]["num_processes_after_close"] == 0


TELL = """
from recontext_data.sandbox import Call, SandboxJob, open_sandbox
with open_sandbox(num_workers=2) as sandbox:
    outcomes = sandbox.run([SandboxJob(source="def f(n): return n * n", calls=[Call.of("f", n)]) for n in range(6)])
    print(sandbox.single, [outcome.value(0) for outcome in outcomes])
"""


def test_where_a_worker_may_not_make_namespaces_each_job_gets_a_bubblewrap(copy: Path) -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("needs bubblewrap")
    stub = copy / "bin" / "bwrap"
    stub.parent.mkdir()
    # It needs a user namespace, which an ordinary user's bubblewrap has and root's has not.
    stub.write_text(f'#!/bin/sh\nexec {bwrap} --disable-userns "$@"\n')
    stub.chmod(0o755)
    command = ["env", f"PATH={stub.parent}:{os.environ['PATH']}", python_of("ordinary"), "-B", "-c", TELL]
    out, err = start(copy, command, "ordinary").communicate(timeout=60)
    if "Unknown option --disable-userns" in err:
        pytest.skip("this bubblewrap is older than 0.8")
    assert out == "True [0, 1, 4, 9, 16, 25]\n", err


def test_a_backend_is_chosen_by_argument_by_variable_and_by_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with sandbox_or_skip(num_workers=1, backend="bubblewrap_per_job") as sandbox:
        assert isinstance(sandbox, WorkerSandbox) and sandbox.single and sandbox.launcher.name == "bubblewrap"
    monkeypatch.setenv("RECONTEXT_SANDBOX", "bubblewrap_per_job")
    with sandbox_or_skip(num_workers=1) as sandbox:
        assert isinstance(sandbox, WorkerSandbox) and sandbox.single
    with sandbox_or_skip(num_workers=1, backend="bubblewrap") as sandbox:
        assert isinstance(sandbox, WorkerSandbox) and sandbox.launcher.name == "bubblewrap"
    monkeypatch.setenv("RECONTEXT_SANDBOX", "bublewrap")
    with pytest.raises(SandboxMissing, match=r"unknown backend 'bublewrap' \(RECONTEXT_SANDBOX\); did you mean 'bubblewrap'"):
        open_sandbox()
    monkeypatch.delenv("RECONTEXT_SANDBOX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxMissing, match=r"no docker on PATH; install it, or bubblewrap"):
        open_sandbox(backend="docker")
    with pytest.raises(SandboxMissing, match=r"no bwrap on PATH.*apt-get install bubblewrap"):
        open_sandbox()


# Takes what docker would be told and gives the worker bubblewrap's namespaces in place of a container's: never a bare run.
STAND_IN = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(arguments) + chr(10))
if arguments[0] == "kill":
    sys.exit(0)
from recontext_data.sandbox import bubblewrap
end = arguments.index({image!r})
volumes = [arguments[i + 1].split(":") for i in range(end) if arguments[i] == "--volume"]
command = [{bwrap!r}, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
command += ["--die-with-parent", "--as-pid-1", *(["--disable-userns"] if os.path.exists({log!r} + ".refuse") else [])]
command += [*bubblewrap._mounts(), "--setenv", "PYTHONHASHSEED", "0"]
for outside, inside, _ in volumes:
    command += ["--ro-bind", outside, inside]
os.execv({bwrap!r}, [*command, "--chdir", "/tmp", "--", bubblewrap._interpreter(), *arguments[end + 1:]])
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `docker` on PATH, alone there but for the shell's own tools; the file it logs its command lines to."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("needs bubblewrap")
    with sandbox_or_skip(num_workers=1):
        pass
    log = tmp_path / "log"
    root = str(Path(container.__file__).parents[2])
    script = STAND_IN.format(python=sys.executable, root=root, log=str(log), image="image:tag", bwrap=bwrap)
    (tmp_path / "log.refuse").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(script)
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("RECONTEXT_SANDBOX_IMAGE", "image:tag")
    return log


def test_without_bubblewrap_the_worker_runs_in_a_container_one_per_job_where_it_must(stand_in: Path) -> None:
    with open_sandbox(num_workers=2) as sandbox:
        assert isinstance(sandbox, WorkerSandbox) and sandbox.launcher.name == "docker"
        assert [outcome.value(0) for outcome in sandbox.run(SQUARES)] == [0, 1, 4, 9, 16, 25]
        assert sandbox.single, "the stand-in refuses namespaces, as docker does"
        [outcome] = sandbox.run([SandboxJob(source="while True: pass", calls=[Call.of("f")], timeout_seconds=0.5)])
        assert outcome.status == "timeout"
        worker = sandbox.launcher.start(single=True, stderr=subprocess.DEVNULL)
        assert worker.stdout is not None and worker.stdout.read(4)  # it is up
        os.kill(worker.pid, signal.SIGSTOP)
        sandbox.launcher.stop(worker)
        assert worker.wait(5) != 0
    lines = stand_in.read_text().splitlines()
    started = [line.split()[2] for line in lines if line.startswith("run --name ")]
    assert len(started) == len(set(started)) == 1 + 1 + len(SQUARES) + 1 + 1  # refused, trial, jobs, stopped
    assert [line for line in lines if line.startswith("kill ")] == [f"kill {started[-1]}"], "the others ended by themselves"


def test_a_worker_that_is_refused_namespaces_later_runs_its_job_in_a_worker_of_its_own(stand_in: Path) -> None:
    refuse = Path(f"{stand_in}.refuse")
    refuse.unlink()
    with open_sandbox(num_workers=2) as sandbox:
        assert isinstance(sandbox, WorkerSandbox) and not sandbox.single
        refuse.touch()
        slow = SandboxJob(source="import time\ndef f(n):\n    time.sleep(0.5)\n    return n", calls=[Call.of("f", 7)])
        assert [outcome.value(0) for outcome in sandbox.run([slow] * 4)] == [7] * 4
        assert not sandbox.single
    modes = [line.split()[-1] for line in stand_in.read_text().splitlines() if line.startswith("run ")]
    assert modes[:2] == ["warm", "warm"] and "single" in modes


def test_what_docker_is_told(stand_in: Path) -> None:
    command = container.Container("docker").command("the-name", single=True)
    line = " ".join(command[1:])
    for wanted in (
        "run --name the-name --rm --interactive --pull never",
        "--network none",
        "--read-only --tmpfs /tmp:rw,size=32m",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--memory 2g --memory-swap 2g --pids-limit 80",
        "--user 65534:65534",
    ):
        assert wanted in line
    assert "--privileged" not in line and "docker.sock" not in line
    assert command[-6:] == ["image:tag", "-s", "-S", "-B", WORKER, "single"]
    volumes = [command[i + 1] for i, part in enumerate(command) if part == "--volume"]
    assert volumes == [f"{outside}:{inside}:ro" for inside, outside in FILES.items()]


def test_an_engine_that_does_not_answer_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "docker"
    stub.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("RECONTEXT_SANDBOX_IMAGE", raising=False)
    message = r"docker does not start \(Cannot connect to the Docker daemon\); .*`docker pull python:3.11-slim`"
    with pytest.raises(SandboxMissing, match=message):
        open_sandbox(backend="docker")


@pytest.fixture(scope="module")
def podman() -> Iterator[dict[str, str]]:
    """The environment in which podman runs containers here, from a root folder made of this machine's own Python."""
    if shutil.which("podman") is None or shutil.which("ldd") is None:
        pytest.skip("needs podman")
    with open_folder() as parent:
        folder = root_folder(parent / "image")
        config = parent / "containers.conf"
        reason = ""
        for text in ("", '[engine]\nruntime = "runc"\n'):
            config.write_text(text)
            environment = {"RECONTEXT_SANDBOX_IMAGE": str(folder), **({"CONTAINERS_CONF": str(config)} if text else {})}
            done = subprocess.run(
                ["podman", "run", *container.OPTIONS.split(), "--rootfs", str(folder), "-c", "print(1)"],
                capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=60,
            )  # fmt: skip
            if done.returncode == 0:
                yield environment
                return
            reason = done.stderr.strip().splitlines()[-1]
    pytest.skip(f"podman cannot run a container here: {reason}")


def root_folder(folder: Path) -> Path:
    """This Python, its library and the shared objects that they need."""
    python = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    for name in ("proc", "dev", "sys", "tmp", "job", "etc", "run", "lib64", "lib", "usr/local/bin", "usr/local/lib"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)  # podman gives its own /tmp the same mode
    shutil.copyfile(python, folder / "usr/local/bin/python3")
    (folder / "usr/local/bin/python3").chmod(0o755)
    unneeded = shutil.ignore_patterns(
        "test", "tests", "site-packages", "dist-packages", "config-*", "__pycache__", "idlelib", "*.a"
    )
    shutil.copytree(library, folder / "usr/local/lib" / library.name, ignore=unneeded)
    listed = subprocess.run(
        ["ldd", str(python), *map(str, (library / "lib-dynload").glob("*.so"))], capture_output=True, text=True, check=True
    )
    for word in set(listed.stdout.split()):
        if word.startswith("/") and ".so" in word and not word.endswith(":"):
            place = "lib64" if "/ld-linux" in word else "lib"
            shutil.copyfile(word, folder / place / Path(word).name)
            (folder / place / Path(word).name).chmod(0o755)
    return folder


@pytest.mark.parametrize("single", [False, True])
def test_podman_runs_the_worker_for_many_jobs_or_one(
    podman: dict[str, str], monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    for name, text in podman.items():
        monkeypatch.setenv(name, text)
    launcher = container.Container("podman")
    launcher.single = single
    with WorkerSandbox(launcher, num_workers=1) as sandbox:
        assert [outcome.value(0) for outcome in sandbox.run(SQUARES[:3])] == [0, 1, 4]
        jobs = [
            SandboxJob(source="import os", calls=[Call(expression="os.getuid()"), Call(expression="os.listdir('/tmp')")]),
            SandboxJob(source="open('/usr/escaped-file', 'w')", calls=[]),
            SandboxJob(
                source="import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", calls=[], timeout_seconds=1.0
            ),
            SandboxJob(source="import socket\nsocket.create_connection(('192.0.2.1', 80), 1)", calls=[]),
            SandboxJob(source="import sys; print(sys.stdin.read())", stdin="read and said"),
        ]
        outcomes = sandbox.run(jobs)
    assert [outcome.status for outcome in outcomes[:2]] == ["ok", "source_error"]
    assert outcomes[2].status in ("timeout", "crash")
    assert outcomes[3].status == "source_error"
    assert outcomes[0].value(0) == 65534 and outcomes[0].value(1) == [] and outcomes[4].printed("read and said")
    listed = subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    assert "recontext-" not in listed.stdout
