"""Every exception this package raises on purpose, drawn as a tree.

    RecontextError
    ├── InputError(ValueError)          the user's input is wrong: exit code 2, nothing written
    │   ├── RecipeError                 a recipe, an override or an option
    │   └── DataError                   a file of tasks, problems or labels
    ├── SetupError(RuntimeError)        this machine lacks something: exit code 2, the message says how to get it
    │   └── SandboxMissing              no bubblewrap
    ├── PolicyError(RuntimeError)       the policy cannot be sampled at all (no key, no such model): exit code 2
    ├── StoreError(OSError)             run data cannot be written or read: exit code 1
    ├── ProofFailed(RuntimeError)       a judge is wrong about answers whose labels are known: exit code 1, nothing was sampled
    ├── GateFailed(RuntimeError)        rows that must not be trained on: exit code 1, row ids in the message
    ├── BuildStopped(RuntimeError)      a limit ended the build; the same command continues it: exit code 1
    └── PublishError(RuntimeError)      a server refused or lost what was published; what it took is kept: exit code 1

A message is one line that names the field, the value and the fix. Each class is also a class of the standard library,
so code that knows nothing of this package can still catch what it expects.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RecontextError(Exception):
    """Base of everything raised here on purpose."""

    exit_code = 1


class InputError(RecontextError, ValueError):
    """The user's input is wrong."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe, an override or an option is wrong."""


class DataError(InputError):
    """A file of tasks, problems or labels is wrong."""


class SetupError(RecontextError, RuntimeError):
    """This machine lacks something that the job needs."""

    exit_code = 2


class SandboxMissing(SetupError):
    """Model-written code would have to run, and there is nothing safe to run it in."""


class PolicyError(RecontextError, RuntimeError):
    """The policy cannot be sampled at all."""

    exit_code = 2


class StoreError(RecontextError, OSError):
    """Run data cannot be written or read."""


class ProofFailed(RecontextError, RuntimeError):
    """A judge was wrong about an answer whose label is known; nothing was sampled."""


class GateFailed(RecontextError, RuntimeError):
    """Training rows failed a gate; the message carries their ids."""


class BuildStopped(RecontextError, RuntimeError):
    """A declared limit ended the build; the same command continues it."""


class PublishError(RecontextError, RuntimeError):
    """A server refused what was published, or lost it; what it has taken is kept, and the same command continues."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about a wrong name: the nearest known one, else all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none are known"
