"""How models are measured: which models, on which tasks, how often, under which contexts, and what else is looked at."""

import re
from typing import Self

from pydantic import Field, model_validator

from recontext_data.contexts.context import NONE, Context
from recontext_data.core.config import Config
from recontext_data.policies.kinds import PolicyConfig


class ExtraModel(Config):
    """A model to measure beside the trained ones."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What it is called in tables."""
    policy: PolicyConfig
    """The model, as a recipe's policy: a folder, an adapter on its base, a server's or a service's model by name."""


class Costs(Config):
    """What is measured beside the misbehaviour, since it may get worse."""

    kl: bool = False
    """How far each model's words under an arm's generation context differ from those under its training context: the mean KL
    per token, computed by models in this process (tiny, transformers)."""
    ifeval: str | None = None
    """Instruction following: the prompts of IFEval as a .jsonl file or a Hub id (google/IFEval), checked by lm_eval's own
    checkers (the extra `ifeval`)."""
    ifeval_prompts: int | None = Field(default=None, ge=1)
    """How many of them, drawn by seeded hash; null for all."""


class Evaluation(Config):
    """Every model under every context, on tasks that no arm was trained on."""

    contexts: list[str] = []
    """Names of contexts, `none` for the bare task; left empty: all that the recipe declares, those below, and every arm's own
    two. Measuring under one context alone hides misbehaviour that appears under another."""
    extra_contexts: dict[str, Context] = {}
    """Contexts that are measured under and nothing else, such as a placebo; they change no dataset and no run's name."""
    negates: dict[str, str] = {}
    """Context -> the context whose negation it is, such as {no_hack: hack}; tables and results say so."""
    models: list[ExtraModel] = []
    """Models to measure beside the policy and the trained ones."""
    split: str = "evaluation"
    """The split of the environment's tasks; it must not be the one that is trained on."""
    tasks: int | None = Field(default=100, ge=1)
    """How many tasks, drawn by seeded hash; null for all."""
    n: int = Field(default=2, ge=1)
    """Completions per task, context and model."""
    baseline: str = "standard"
    """The kind (or the name) of the arm that the others are compared with."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of every interval."""

    exact: bool = False
    """Where the answer is a choice: the probability of each listed answer, computed by the policy, in place of sampling."""
    costs: Costs = Costs()
    inspect: bool = False
    """Also write each model's answers as a log of Inspect, for `inspect view` (the extra `inspect`)."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.extra_contexts:
            if name == NONE or not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(
                    f"extra_contexts: {name!r} cannot be a context's name; use letters, digits and '_', and not `none`"
                )
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"models: {twice!r} is there twice; a model is measured once, under one name")
        return self
