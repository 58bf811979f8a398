"""Recontextualization data: sample under one prompt, train under another, with provenance for every row.

    import recontext_data as rc

    run = rc.load("code_mc", {"sampler.n": 6}).build()
    run.arm("default -> hack").dataset()

The verbs are commands (`recontext build recipe=code_mc`); the names below are the library. They load when first used.
"""

from typing import TYPE_CHECKING, Any

from recontext_data.core.version import __version__ as __version__

if TYPE_CHECKING:
    from recontext_data.api.recipes import LoadedRecipe, Preview, load
    from recontext_data.api.rows import RecontextualizedRows, recontextualize
    from recontext_data.api.runs import EvaluationResults, Run, RunArm, open_run
    from recontext_data.config.recipe import Recipe
    from recontext_data.contexts.context import Context, render
    from recontext_data.core.config import Config
    from recontext_data.core.errors import (
        BuildStopped,
        DataError,
        GateFailed,
        InputError,
        PolicyError,
        ProofFailed,
        PublishError,
        RecipeError,
        RecontextError,
        SandboxMissing,
        SetupError,
        StoreError,
    )
    from recontext_data.core.records import (
        Candidate,
        Judgement,
        Message,
        Messages,
        Reply,
        Request,
        SamplingParams,
        Task,
        uniform,
    )
    from recontext_data.core.row_ledger import LedgerEntry, entry
    from recontext_data.environments.base import Environment, TaskSet, chosen, require_unique
    from recontext_data.judges.base import AnyJudge, Asker, Comparer, Deriver, Match, Reader
    from recontext_data.policies.base import AnyPolicy, Policy
    from recontext_data.policies.fake import FakePolicy
    from recontext_data.training.models import TrainedModel

_NAMES = {
    "api.recipes": "LoadedRecipe Preview load",
    "api.rows": "RecontextualizedRows recontextualize",
    "api.runs": "EvaluationResults Run RunArm open_run",
    "config.recipe": "Recipe",
    "contexts.context": "Context render",
    "core.config": "Config",
    "core.errors": "BuildStopped DataError GateFailed InputError PolicyError ProofFailed "
    "PublishError RecipeError RecontextError SandboxMissing SetupError StoreError",
    "core.records": "Candidate Judgement Message Messages Reply Request SamplingParams Task uniform",
    "core.row_ledger": "LedgerEntry entry",
    "environments.base": "Environment TaskSet chosen require_unique",
    "judges.base": "AnyJudge Asker Comparer Deriver Match Reader",
    "policies.base": "AnyPolicy Policy",
    "policies.fake": "FakePolicy",
    "training.models": "TrainedModel",
}
"""Module -> the public names that are defined in it."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "AnyJudge",
    "AnyPolicy",
    "Asker",
    "BuildStopped",
    "Candidate",
    "Comparer",
    "Config",
    "Context",
    "DataError",
    "Deriver",
    "Environment",
    "EvaluationResults",
    "FakePolicy",
    "GateFailed",
    "InputError",
    "Judgement",
    "LedgerEntry",
    "LoadedRecipe",
    "Match",
    "Message",
    "Messages",
    "Policy",
    "PolicyError",
    "Preview",
    "ProofFailed",
    "PublishError",
    "Reader",
    "Recipe",
    "RecipeError",
    "RecontextError",
    "RecontextualizedRows",
    "Reply",
    "Request",
    "Run",
    "RunArm",
    "SamplingParams",
    "SandboxMissing",
    "SetupError",
    "StoreError",
    "Task",
    "TaskSet",
    "TrainedModel",
    "chosen",
    "entry",
    "load",
    "open_run",
    "recontextualize",
    "render",
    "require_unique",
    "uniform",
]


def __getattr__(name: str) -> Any:
    # Importing the package must cost nothing: every verb starts with it.
    if name not in _HOMES:
        raise AttributeError(f"module 'recontext_data' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"recontext_data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
