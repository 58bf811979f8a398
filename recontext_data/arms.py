"""Arms: pairs (generation context, training context), their derived names, and the pools they share. Pure.

In a recipe, pairs or a grid; `data` in place of a generation context is an arm whose answers are read and not sampled:

    arms: [default -> hack, {data: chats.jsonl, training: hack}]
    arms: {generation: [control, default], training: [hack, none]}
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recontext_data.config import Config, added
from recontext_data.contexts import NONE, PERMISSIVENESS, Context

Kind = Literal["standard", "prior", "inoculation", "distillation", "recontextualized", "reversed", "placebo"]

Baselines = Literal["none", "standard", "full"]

_PAIR = re.compile(r"\s*(\w+)\s*->\s*(\w+)\s*")


class Arm(Config):
    """Generate under one context, train under another. In a recipe: `default -> hack`, or a mapping."""

    generation: str = NONE
    """The context under which completions are sampled; `none` is the bare task."""
    training: str
    """The context under which they are trained on; `none` is the bare task."""
    name: str | None = None
    """The folder and the `arm` column; derived from the pair when absent."""
    declared: Kind | None = added(None)
    """The kind that the arm is meant to be: an error where the stances say otherwise, needed only where they say nothing."""
    data: str | None = added(None)
    """A file of chats (.jsonl with `messages`, or .parquet) whose last turns are trained on as they are: nothing is sampled."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, dict) and "generation" not in value and value.get("data") is None:
            raise ValueError("generation: missing; name the context to sample under, or a file of given answers as `data`")
        if isinstance(value, dict) and value.get("data") is not None and value.get("generation", NONE) != NONE:
            raise ValueError("generation: nothing is sampled for given `data`; leave it out")
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
        return f"{self.source} -> {self.training}"

    @property
    def source(self) -> str:
        """Where the answers come from: the generation context, or `data.<name of the file>`."""
        if self.data is None:
            return self.generation
        return "data." + re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(self.data).stem)


class Grid(Config):
    """Every generation context with every training context."""

    generation: list[str] = Field(min_length=1)
    """Contexts to sample under, each once however many arms use it."""
    training: list[str] = Field(min_length=1)
    """Contexts to train under."""

    def arms(self) -> list[Arm]:
        """The pairs, by generation context."""
        return [Arm(generation=before, training=after) for before in self.generation for after in self.training]


def kind_of(arm: Arm, contexts: Mapping[str, Context]) -> Kind:
    """What the literature calls this pair; the table is in docs/design.md. Given data is named by its training context."""
    if arm.data is not None:
        arm = Arm(generation=arm.training, training=arm.training)
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
    return arm.name or f"{kind_of(arm, contexts)}.{arm.source}-{arm.training}"


def stance_problem(arm: Arm, contexts: Mapping[str, Context]) -> str | None:
    """What is wrong with an arm's stances: they contradict the kind it declares, or nothing orders its two contexts."""
    kind = kind_of(arm, contexts)
    if arm.declared is not None:
        # Between two contexts that nothing orders, the declaration is all there is.
        if kind == arm.declared or (_is_unordered(arm, contexts) and arm.declared in ("recontextualized", "reversed")):
            return None
        return f"is declared {arm.declared}, and the stances of its contexts make it {kind}; change the pair, a stance or this"
    if _is_unordered(arm, contexts):
        return (
            "has no stance order: the two contexts differ and neither is more permissive; change a stance (placebo for text "
            "that has nothing to do with it), or say what the arm is with `declared`"
        )
    return None


def _is_unordered(arm: Arm, contexts: Mapping[str, Context]) -> bool:
    if arm.data is not None or arm.generation == arm.training or arm.training == NONE:
        return False
    stances = [contexts[name].stance if name in contexts else "neutral" for name in (arm.generation, arm.training)]
    return stances[0] == stances[1] != "placebo"


def with_baselines(arms: list[Arm], contexts: Mapping[str, Context], level: Baselines) -> list[Arm]:
    """The arms and, after them, the baselines that are not there yet; the table is in docs/contexts.md."""
    if level == "none":
        return arms
    sampled = [arm for arm in arms if arm.data is None]
    wanted = [(arm.generation, arm.generation) for arm in sampled]
    if level == "full":
        placebos = [name for name, context in contexts.items() if context.stance == "placebo"]
        for arm in sampled:
            if kind_of(arm, contexts) != "recontextualized":
                continue
            pairs = [(arm.training, arm.training), (arm.training, arm.generation), (arm.generation, NONE)]
            wanted += [*pairs, *((arm.generation, placebo) for placebo in placebos)]
    known = {(arm.generation, arm.training) for arm in sampled}
    made = [Arm(generation=before, training=after) for before, after in dict.fromkeys(wanted) if (before, after) not in known]
    return arms + [arm for arm in made if not _is_unordered(arm, contexts)]


def pools(arms: Iterable[Arm]) -> list[str]:
    """The generation contexts to sample, each once however many arms use it, in order of first use."""
    return list(dict.fromkeys(arm.generation for arm in arms if arm.data is None))


def context_or_none(contexts: Mapping[str, Context], name: str) -> Context | None:
    """The context of that name; None for `none`."""
    return None if name == NONE else contexts[name]
