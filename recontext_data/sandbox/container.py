"""Starts workers in docker or podman containers, for systems without bubblewrap. Slower: most start a container per job.

Use it through `recontext_data.sandbox.open_sandbox(backend="docker")`. The image needs Python 3.11 or newer as `python3` and
nothing else; it is never fetched by this package.
"""

import contextlib
import os
import shutil
import subprocess
import uuid
from typing import Any

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox.workers import FILES, WORKER

ENGINES = ("podman", "docker")
IMAGE = "python:3.11-slim"
IMAGE_VARIABLE = "RECONTEXT_SANDBOX_IMAGE"
MEMORY = "2g"
"""Of a container. A job's own limit is below it and held by the worker; this one is the kernel's."""
NUM_PIDS = 80
STOP_SECONDS = 20.0
PATIENCE_SECONDS = 2.0
OPTIONS = f"""
    --rm --interactive --pull never --entrypoint python3 --workdir /tmp
    --network none --ipc private --read-only --tmpfs /tmp:rw,size=32m,mode=1777 --shm-size 64k
    --user 65534:65534 --cap-drop ALL --security-opt no-new-privileges
    --memory {MEMORY} --memory-swap {MEMORY} --pids-limit {NUM_PIDS}
    --ulimit core=0:0 --ulimit nofile=256:256 --ulimit nproc=4096:4096
    --env HOME=/tmp --env LANG=C.UTF-8 --env PYTHONHASHSEED=0
"""


class Container:
    """A `Launcher`.

    Raises:
        SandboxMissing: the engine is not on PATH.
    """

    start_seconds = 60.0

    def __init__(self, engine: str) -> None:
        self.single = False
        self.name: str = engine
        self.image = os.environ.get(IMAGE_VARIABLE) or IMAGE
        """A path names a root folder in place of an image, which podman alone can take."""
        self.how_to_allow = (
            f"start the {engine} service, get the image with `{engine} pull {self.image}`, or name one in {IMAGE_VARIABLE}"
        )
        self._names: dict[int, str] = {}
        find_engine(engine)

    def start(self, *, single: bool, stderr: Any) -> "subprocess.Popen[bytes]":
        """The worker as the first process of a container of its own."""
        name = f"recontext-{uuid.uuid4().hex}"
        process = subprocess.Popen(
            self.command(name, single=single), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        self._names[process.pid] = name
        return process

    def command(self, name: str, *, single: bool) -> list[str]:
        """The command line: what is inside and what is not."""
        command = [find_engine(self.name), "run", "--name", name, *OPTIONS.split()]
        for inside, outside in FILES.items():
            command += ["--volume", f"{outside}:{inside}:ro"]
        image = ["--rootfs", self.image] if os.path.isabs(self.image) else [self.image]
        return [*command, *image, "-s", "-S", "-B", WORKER, "single" if single else "warm"]

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends the container; ending the client alone would leave it running."""
        name = self._names.pop(process.pid, None)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # a worker that is well ends by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        if process.poll() is None and name is not None:
            # `--rm` then removes it. `rm --force` would do both, but podman's first asks politely for ten seconds.
            subprocess.run([find_engine(self.name), "kill", name], capture_output=True, check=False, timeout=STOP_SECONDS)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
        process.kill()


def find_engine(engine: str) -> str:
    """Where docker or podman is.

    Raises:
        SandboxMissing: not on PATH.
    """
    found = shutil.which(engine)
    if found is None:
        raise SandboxMissing(f"sandbox: no {engine} on PATH; install it, or bubblewrap, which is faster")
    return found
