"""The options of `to=hub`, read from key=value words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recontext_data.core.errors import RecipeError, did_you_mean

OPTIONS = {
    "repo": ("USER/NAME", "the dataset repository; made if it is not there"),
    "models_repo": ("USER/NAME", "the model repository that the trained models go to; without it none goes up"),
    "private": ("true | false", "whether a repository is made for its owners alone; a public one needs private=false; true"),
    "arms": ("names", "some of the run's arms, by name; all"),
    "seeds": ("numbers", "some of the trained models, by seed: 0,1,2; all"),
    "models": ("text", "the folder in the run that the models lie in; `models`"),
    "merged": ("true | false", "send adapters merged into their base, in the base's precision; false"),
    "licence": ("id", "the licence in the card's header, as the Hub names it; the problems' own"),
    "tag": ("text", "a name for the revision, such as v1, set once all is checked"),
    "create": ("true | false", "make a repository that is not there; true"),
    "check": ("true | false", "read everything back with `datasets` and compare it with the run; true"),
    "overwrite": ("true | false", "publish into a repository that holds data of somebody else's making; false"),
    "dry_run": ("true | false", "list what would go up, with sizes; nothing is asked or sent; false"),
}
REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
MAX_ID = 96
"""Characters of a repository's id; the Hub's limit."""


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """What is to be published, and where."""

    repo: str | None = None
    models_repo: str | None = None
    private: bool | None = None
    """None: not said, so private where it is made and refused where the repository is public."""
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    models: str = "models"
    merged: bool = False
    licence: str | None = None
    tag: str | None = None
    create: bool = True
    check: bool = True
    overwrite: bool = False
    dry_run: bool = False


def hub_options(given: Mapping[str, str]) -> HubOptions:
    """The options as they were typed; `to` and `run` are the verb's own and are passed over.

    Raises:
        RecipeError: an option is unknown or has a value that will not do.
    """
    words = {key: value.strip() for key, value in given.items() if key not in ("to", "run")}
    for key in words:
        if key not in OPTIONS:
            raise RecipeError(f"{key}: to=hub has no such option; {did_you_mean(key, OPTIONS)}")
    if not words.get("repo") and not words.get("models_repo"):
        raise RecipeError("repo: missing; write repo=USER/NAME, or models_repo=USER/NAME for the trained models")
    flags = ("private", "merged", "create", "check", "overwrite", "dry_run")
    texts = {key: words[key] for key in ("repo", "models_repo", "models", "licence", "tag") if words.get(key)}
    for key in ("repo", "models_repo"):
        _check_repo(key, texts.get(key))
    _check_plain("tag", texts.get("tag"))
    _check_plain("models", texts.get("models"))
    found: dict[str, Any] = {**texts, **{key: _flag(key, words[key]) for key in flags if key in words}}
    arms = tuple(name.strip() for name in words.get("arms", "").strip("[]").split(",") if name.strip())
    return HubOptions(**found, arms=arms, seeds=_seeds(words.get("seeds", "")))


def _check_repo(key: str, name: str | None) -> None:
    if name is None:
        return
    wrong = not REPO_ID.fullmatch(name) or len(name) > MAX_ID or "--" in name or ".." in name
    if wrong or name.endswith((".git", "-", ".")):
        raise RecipeError(f"{key}={name}: is no repository; write USER/NAME with letters, digits, '-', '_' and '.'")


def _check_plain(key: str, value: str | None) -> None:
    if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise RecipeError(f"{key}={value}: will not do; use letters, digits, '.', '_' and '-'")


def _flag(key: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise RecipeError(f"{key}: {value!r} will not do; write {key}=true or {key}=false")
    return value.lower() == "true"


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.strip("[] ").split(",") if part.strip()]
    if any(not part.isdigit() for part in parts):
        raise RecipeError(f"seeds={text}: will not do; write numbers such as seeds=0,1,2")
    return tuple(int(part) for part in parts)
