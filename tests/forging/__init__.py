"""Programs that try to earn a pass without solving the task, to break out, or to stay behind: data for tests/test_forging.py.

Each has a name, a reason why it might work somewhere, and a source. The task is a secret: `f` is called with the arguments of
`drive.CALLS` and must return what `drive.EXPECTED` says; no program computes that, so whichever passes has forged it.
"""

from tests.forging import channels, lies, processes, resources, system

PROGRAMS: dict[str, tuple[str, str]] = {
    **lies.PROGRAMS,
    **channels.PROGRAMS,
    **processes.PROGRAMS,
    **resources.PROGRAMS,
    **system.PROGRAMS,
}
"""Name to (why, source)."""
