"""The options of `to=hub`."""

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from recontext_data.config.options import FolderName, model_of
from recontext_data.core.config import Config

REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
MAX_ID = 96
"""Characters of a repository's id; the Hub's limit."""


def _repository(name: str | None) -> str | None:
    if name is None:
        return None
    wrong = not REPO_ID.fullmatch(name) or len(name) > MAX_ID or "--" in name or ".." in name
    if wrong or name.endswith((".git", "-", ".")):
        raise ValueError("not a repository; write USER/NAME with letters, digits, '-', '_' and '.'")
    return name


def _tag(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("not a tag; use letters, digits, '.', '_' and '-'")
    return name


Repository = Annotated[str | None, AfterValidator(_repository)]


class HubOptions(Config):
    """What is published on a hub, and where."""

    repo: Repository = None
    """USER/NAME, the dataset repository; made if it is not there."""
    models_repo: Repository = None
    """USER/NAME, the model repository that the trained models go to; without it no model is sent."""
    private: bool | None = None
    """Whether a repository is made for its owners alone; true unless set. A public repository needs private=false."""
    arms: list[str] = []
    """Some of the run's arms, by name; all unless set."""
    seeds: list[int] = []
    """Some of the trained models, by seed: 0,1,2 or 0-9; all unless set."""
    models: FolderName = "models"
    """The folder in the run that the models are in."""
    merged: bool = False
    """Send adapters merged into their base, in the base's precision."""
    licence: str | None = None
    """The licence in the card's header, as the Hub names it; that of the problems unless set."""
    tag: Annotated[str | None, AfterValidator(_tag)] = None
    """A name for the revision, such as v1, set once all is checked."""
    create: bool = True
    """Make a repository that is not there."""
    check: bool = True
    """Read everything back with `datasets` and compare it with the run."""
    overwrite: bool = False
    """Publish into a repository that holds data of somebody else's making."""
    dry_run: bool = False
    """List what would be sent, with sizes; no server is asked."""

    @model_validator(mode="after")
    def _names_a_repository(self) -> Self:
        if self.repo is None and self.models_repo is None:
            raise ValueError("repo: missing; write repo=USER/NAME, or models_repo=USER/NAME for the trained models")
        return self


def hub_options(given: Mapping[str, str]) -> HubOptions:
    """The options from texts by key.

    Raises:
        RecipeError: an option is unknown or has a wrong value.
    """
    return model_of(HubOptions, {key: value.strip() for key, value in given.items()})
