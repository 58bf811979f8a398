"""Runs code that nobody has read: model-written solutions, downloaded references. Nothing else in this package does.

    from recontext_data.sandbox import Call, Job, open_sandbox
    with open_sandbox() as sandbox:
        [outcome] = sandbox.run([Job(source="def f(n): return n + 1", calls=[Call.of("f", 1)])])
        outcome.results[0].value        2

The code maps inputs to outputs and is told no expected value; outputs come back in the JSON form of `recontext_data.values`
and are compared here, in a process that ran none of it.
"""

from recontext_data.sandbox.base import Call, Job, Outcome, Result, Sandbox, Status

__all__ = ["Call", "Job", "Outcome", "Result", "Sandbox", "Status", "open_sandbox"]


def open_sandbox(*, num_workers: int | None = None) -> Sandbox:
    """A sandbox ready to run jobs; close it, or use it as a context manager.

    Args:
        num_workers: jobs run at the same time; one per CPU by default.

    Raises:
        SandboxMissing: this machine has nothing to confine the code with. Code is never run bare.
    """
    from recontext_data.sandbox.bubblewrap import BubblewrapSandbox

    return BubblewrapSandbox(num_workers=num_workers)
