"""Where a run can be published: the targets, their options, and the call of each."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from recontext_data.config.options import model_of
from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError
from recontext_data.publishing.runs import FinishedRun, open_run

TARGETS = {
    "hub": ("hub.publish", "the Hugging Face Hub or one of your own: datasets, adapters and models"),
    "openai": (
        "services.openai_finetune",
        "the fine-tuning API of OpenAI or of a server like it: files, jobs and their models",
    ),
    "file": ("formats.export", "files in the formats that trainers read"),
}
"""Target -> (module in recontext_data.publishing, what it is)."""


class Target(Protocol):
    """The module of a target."""

    OPTIONS: type[Config]

    def publish(self, run: FinishedRun | None, options: Config, *, output: Path) -> int:
        """Publishes a run; returns the exit code. A run of None: the options name files in its place."""


def target_of(name: str) -> Target:
    """The module of a target."""
    return cast("Target", import_module(f"recontext_data.publishing.{TARGETS[name][0]}"))


def publish_run(to: str, run: str | None, given: Mapping[str, str], *, output: Path, beside: Sequence[str] = ()) -> int:
    """Publishes a run by its folder's path or its recipe's name; `given`: the target's options as texts.

    Raises:
        RecontextError: of any kind; what a server took is kept.
    """
    target = target_of(to)
    if run is None and not given.get("data"):
        raise RecipeError("run: missing; write run=path/to/a/run, or run=RECIPE for a recipe's latest run")
    options = model_of(target.OPTIONS, given, beside=beside)
    return target.publish(None if run is None else open_run(run, output=output), options, output=output)
