"""Recontextualization data: sample under one prompt, train under another, with provenance for every row.

The verbs are commands (`recontext build recipe=code_mc`); the names below are the library. They load when first used.
"""

from typing import TYPE_CHECKING, Any

from recontext_data.core.version import __version__ as __version__

if TYPE_CHECKING:
    from recontext_data.config.loading import load
    from recontext_data.config.recipe import Recipe
    from recontext_data.contexts.context import Context, render
    from recontext_data.core.errors import RecontextError
    from recontext_data.core.records import Candidate, Judgement, Reply, Request, Task
    from recontext_data.policies.fake import FakePolicy

_HOMES = {
    "Candidate": "core.records",
    "Context": "contexts.context",
    "FakePolicy": "policies.fake",
    "Judgement": "core.records",
    "Recipe": "config.recipe",
    "RecontextError": "core.errors",
    "Reply": "core.records",
    "Request": "core.records",
    "Task": "core.records",
    "load": "config.loading",
    "render": "contexts.context",
}

__all__ = [
    "Candidate",
    "Context",
    "FakePolicy",
    "Judgement",
    "Recipe",
    "RecontextError",
    "Reply",
    "Request",
    "Task",
    "load",
    "render",
]


def __getattr__(name: str) -> Any:
    # Importing the package must cost nothing: every verb starts with it.
    if name not in _HOMES:
        raise AttributeError(f"module 'recontext_data' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"recontext_data.{_HOMES[name]}"), name)
