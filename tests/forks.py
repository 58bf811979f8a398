"""Processes forked from one that was started for them, with an environment and imports of its own choosing.

`tests.children` serves what may share one list of imports. huggingface_hub reads where its Hub and its cache are as it is
imported, so its users fork from a process that was started with both:

    forks = Forks(["datasets"], environment)
    done = forks.run(Job(verb="publish", words=[...], environment={...}, folder="."))
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from queue import Queue
from typing import Any

from tests.conftest import ROOT


@dataclass(frozen=True, kw_only=True)
class Job:
    """A verb of recontext with its words, or a script."""

    environment: Mapping[str, str]
    verb: str = ""
    words: Sequence[str] = ()
    script: str = ""


class Forked:
    """One process under way; as much of Popen as the tests use."""

    def __init__(self, forks: "Forks", pid: int, said: Path) -> None:
        self._forks, self.pid, self._said = forks, pid, said

    def wait(self, seconds: float) -> int:
        """Its exit code; -9 after `kill`."""
        return self._forks.code_of(self.pid, seconds)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def text(self, stream: str) -> str:
        return (self._said / stream).read_text(encoding="utf-8")


class Forks:
    """Imports the modules under the environment, once, and forks whatever is asked for."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.forks", *modules]
        self._server = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self._started: Queue[int] = Queue()
        self._codes: dict[int, int] = {}
        self._ended = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: Job) -> Forked:
        said = Path(tempfile.mkdtemp(dir=self._folder.name))
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asdict(job) | {"folder": os.getcwd(), "said": str(said)}) + "\n")
        self._server.stdin.flush()
        return Forked(self, self._started.get(timeout=120), said)

    def run(self, job: Job) -> "subprocess.CompletedProcess[str]":
        """To its end."""
        process = self.start(job)
        code = process.wait(120)
        return subprocess.CompletedProcess(job.words, code, process.text("stdout"), process.text("stderr"))

    def code_of(self, pid: int, seconds: float) -> int:
        with self._ended:
            assert self._ended.wait_for(lambda: pid in self._codes, seconds), f"process {pid} did not end"
            return self._codes.pop(pid)

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            word, pid, *rest = line.split()
            if word == "started":
                self._started.put(int(pid))
                continue
            with self._ended:
                self._codes[int(pid)] = os.waitstatus_to_exitcode(int(rest[0]))
                self._ended.notify_all()


def _serve(modules: Sequence[str]) -> None:
    for name in modules:
        import_module(name)
    signal.signal(signal.SIGCHLD, _tell_ended)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        os.write(1, f"started {pid}\n".encode())


def _tell_ended(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        os.write(1, f"ended {pid} {status}\n".encode())


def _become(request: Mapping[str, Any]) -> None:
    """Does what is asked, as a process of its own would; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(Path(request["said"], name), os.O_WRONLY | os.O_CREAT), number)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        if request["script"]:
            exec(compile(request["script"], "<script>", "exec"), {"__name__": "__main__"})
            code = 0
        else:
            code = import_module(f"recontext_data.{request['verb']}").main(request["words"])
    except BaseException:  # as Python does at the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
