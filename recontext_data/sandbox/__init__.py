"""Runs code that nobody has read: model-written solutions, downloaded references. Nothing else in this package does.

    from recontext_data.sandbox import Call, Job, open_sandbox
    with open_sandbox() as sandbox:
        [outcome] = sandbox.run([Job(source="def f(n): return n + 1", calls=[Call.of("f", 1)])])
        outcome.results[0].value        2
        [outcome] = sandbox.run([Job(source="print(int(input()) + 1)", stdin="1")])
        outcome.printed("2")            True

The code maps inputs to outputs and is told no expected value; outputs come back in the JSON form of `core.values`
and are compared here, in a process that ran none of it. docs/security.md says what this protects from and what not.
"""

import os
import shutil
from typing import TYPE_CHECKING, Literal, get_args

from recontext_data.core.errors import SandboxMissing, did_you_mean
from recontext_data.sandbox.base import Call, Result, Sandbox, SandboxJob, SandboxOutcome, Status

if TYPE_CHECKING:
    from recontext_data.sandbox.workers import Launcher

__all__ = ["Backend", "Call", "Result", "Sandbox", "SandboxJob", "SandboxOutcome", "Status", "open_sandbox"]

Backend = Literal["bubblewrap", "bubblewrap_per_job", "podman", "docker"]
"""`bubblewrap`: warm workers, namespaces per job, or one bubblewrap per job where a worker may not make them.
`bubblewrap_per_job`: always so. `podman`, `docker`: the same worker in a container."""
BACKEND_VARIABLE = "RECONTEXT_SANDBOX"


def open_sandbox(*, num_workers: int | None = None, backend: Backend | None = None) -> Sandbox:
    """A sandbox ready to run jobs; close it, or use it as a context manager.

    Args:
        num_workers: jobs run at the same time; one per CPU by default.
        backend: what confines the code. By default what the environment variable RECONTEXT_SANDBOX says, else bubblewrap,
            else, where that is not installed, podman or docker.

    Raises:
        SandboxMissing: this machine has nothing to confine the code with, or not what was asked for. Code is never run bare.
    """
    from recontext_data.sandbox.workers import WorkerSandbox

    return WorkerSandbox(_launcher(backend or os.environ.get(BACKEND_VARIABLE) or None), num_workers=num_workers)


def _launcher(backend: str | None) -> "Launcher":
    from recontext_data.sandbox.bubblewrap import Bubblewrap
    from recontext_data.sandbox.container import ENGINES, Container

    if backend is None and shutil.which("bwrap") is None:
        backend = next((name for name in ENGINES if shutil.which(name)), None)
    if backend is None or backend in ("bubblewrap", "bubblewrap_per_job"):
        return Bubblewrap(single=backend == "bubblewrap_per_job")
    if backend in ENGINES:
        return Container(backend)
    raise SandboxMissing(
        f"sandbox: unknown backend {backend!r} ({BACKEND_VARIABLE}); {did_you_mean(backend, get_args(Backend))}"
    )
