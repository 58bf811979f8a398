"""Arms: pairs (generation context, training context), their derived names, and the pools they share. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from recontext_data.config import Config
from recontext_data.contexts import NONE, PERMISSIVENESS, Context

Kind = Literal["standard", "prior", "inoculation", "distillation", "recontextualized", "reversed", "placebo"]

_PAIR = re.compile(r"\s*(\w+)\s*->\s*(\w+)\s*")


class Arm(Config):
    """Generate under one context, train under another. In a recipe: `default -> hack`, or a mapping."""

    generation: str
    """The context under which completions are sampled; `none` is the bare task."""
    training: str
    """The context under which they are trained on; `none` is the bare task."""
    name: str | None = None
    """The folder and the `arm` column; derived from the pair when absent."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _PAIR.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is no pair; write `generation -> training`, such as `default -> hack`")
        return {"generation": match[1], "training": match[2]}

    @model_validator(mode="after")
    def _plain_name(self) -> Self:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name {self.name!r} becomes a folder; use letters, digits, '.', '_' and '-'")
        return self

    @property
    def pair(self) -> str:
        """`default -> hack`"""
        return f"{self.generation} -> {self.training}"


def kind_of(arm: Arm, contexts: Mapping[str, Context]) -> Kind:
    """What the literature calls this pair; the table is in docs/design.md."""
    generation, training = contexts.get(arm.generation), contexts.get(arm.training)
    if arm.generation == arm.training:
        if generation is None:
            return "standard"
        same: dict[str, Kind] = {
            "neutral": "standard",
            "discourages": "prior",
            "permits": "inoculation",
            "placebo": "placebo",
        }
        return same[generation.stance]
    if training is not None and training.stance == "placebo":
        return "placebo"
    if training is None and generation is not None and generation.stance in ("neutral", "placebo"):
        return "distillation"
    before, after = (PERMISSIVENESS.get(c.stance, 1) if c else 1 for c in (generation, training))
    if after > before:
        # discourages -> none is both; "distillation" says more, since nothing is added in training.
        return "distillation" if training is None else "recontextualized"
    return "reversed" if after < before else "standard"


def folder_name(arm: Arm, contexts: Mapping[str, Context]) -> str:
    """`recontextualized.default-hack`: unique for a pair, and the same whatever other arms a recipe has."""
    return arm.name or f"{kind_of(arm, contexts)}.{arm.generation}-{arm.training}"


def pools(arms: Iterable[Arm]) -> list[str]:
    """The generation contexts to sample, each once however many arms use it, in order of first use."""
    return list(dict.fromkeys(arm.generation for arm in arms))


def context_or_none(contexts: Mapping[str, Context], name: str) -> Context | None:
    """The context of that name; None for `none`."""
    return None if name == NONE else contexts[name]
