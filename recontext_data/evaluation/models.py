"""The models of an evaluation: the policy before, every arm and seed that was trained, and those that the recipe names.

A model is its arm and seed, by what its own record says and never by place. Where the policy is a service's model, the trained
ones are those that the service fine-tuned for this run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.contexts.arms import folder_name
from recontext_data.core.errors import InputError, RecipeError
from recontext_data.evaluation.contexts import measured
from recontext_data.policies.base import Policy
from recontext_data.policies.building import build_policy

if TYPE_CHECKING:
    from recontext_data.config.recipe import Recipe
    from recontext_data.environments.base import TaskSet
    from recontext_data.pipeline.preparation import Prepared
    from recontext_data.reports.screen import Screen

BEFORE = "before"
"""The name of the policy before any training."""

LOCAL = ("tiny", "transformers", "vllm")
"""Kinds of policies that can sample a model from disk."""

SERVED = ("openai", "openai_batch")
"""Kinds of policies whose trained models are at a service."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to measure."""

    arm: str
    """The arm that it was trained on; `before` for none; its own name for one that the recipe names."""
    seed: int | None
    """The seed of its training; None where there is none."""
    policy: Policy
    config: Any = None
    """The policy's config: what it may cost and whether it can be asked for probabilities."""
    priced_as: str | None = None
    """The model whose price holds where its own name has none: the base of a fine-tuned one."""

    @property
    def name(self) -> str:
        """`before`, the recipe's name for it, or `<arm>/seed-<seed>`."""
        return self.arm if self.seed is None else f"{self.arm}/seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class ModelsFolder:
    """Where the trained models are."""

    run: Path
    folder: str
    """Their folder in the run, and the name of the list of those at a service."""
    state: Path
    """Where a policy that has business with a server remembers it."""


def models_to_measure(job: "Prepared", tasks: "TaskSet", *, place: ModelsFolder) -> list[Model]:
    """The policy before, then the trained models by arm and seed, then those that the recipe names.

    Raises:
        InputError: a trained model cannot be sampled with this kind of policy, or an arm and seed is there twice.
    """
    recipe, folder = job.recipe, place.folder
    known = {arm.name for arm in job.arms}

    def built(config: Any, arm: str, seed: int | None = None, priced_as: str | None = None) -> Model:
        model = model_of(config, job, tasks, state=place.state)
        return replace(model, arm=arm, seed=seed, priced_as=priced_as)

    found = [
        built(*facts) for facts in (*_on_disk(recipe.policy, place), *_at_service(recipe.policy, place)) if facts[1] in known
    ]
    twice = next((name for name, count in Counter(model.name for model in found).items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"models={folder}: {twice} is there twice, on disk and at the service; keep one of them under models=NAME"
        )
    extra = [built(one.policy, one.name) for one in recipe.evaluation.models]
    return [built(recipe.policy, BEFORE), *sorted(found, key=lambda model: (model.arm, model.seed or 0)), *extra]


def model_of(config: Any, job: "Prepared", tasks: "TaskSet", *, state: Path | None = None) -> Model:
    """A model that answers these tasks under every context of the evaluation; until it is given its own name, `before`."""
    recipe = job.recipe
    how: dict[str, Any] = {"contexts": measured(recipe), "how": recipe.how, "state": state}
    policy = build_policy(config, environment=recipe.environment, tasks=tasks.tasks, **how)
    return Model(arm=BEFORE, seed=None, policy=policy, config=config)


def require_own_names(recipe: "Recipe") -> None:
    """Raises RecipeError for a model of the recipe that is called what a model of the run is called."""
    taken = {BEFORE, *(folder_name(arm, recipe.contexts) for arm in recipe.arms)}
    for one in recipe.evaluation.models:
        if one.name in taken:
            raise RecipeError(f"evaluation.models: {one.name!r} is the name of a model of this run; give it another")


def remarks(models: Sequence[Model], job: "Prepared", *, screen: "Screen", folder: Path) -> None:
    """Says which arms have no model, and which models are the same one under two names."""
    trained = {model.arm for model in models if model.seed is not None}
    if not trained:
        what = "the policy as it is" if len(models) == 1 else "what the recipe names"
        screen.note(f"no trained model is in {folder}: measuring {what} (recontext train makes some)")
        return
    for arm in job.arms:
        if arm.name not in trained:
            screen.warn(f"arms: {arm.name} has no trained model in {folder}; train it with arms={arm.name}")
    seen: dict[str, str] = {}
    for model in models:
        if model.seed is not None:
            first = seen.setdefault(repr(sorted(dict(model.policy.identity).items())), model.name)
            if first != model.name:
                screen.warn(f"models: {model.name} and {first} are the same weights; is one a copy of the other?")


Facts = tuple[Any, str, int, str | None]
"""Config, arm, seed, and whose price holds."""


def _on_disk(policy: Any, place: ModelsFolder) -> Iterator[Facts]:
    from recontext_data.training.models import models_of

    for model in models_of(place.run, models=place.folder):
        yield trained_policy(policy, model), model.arm, model.seed, None


def _at_service(policy: Any, place: ModelsFolder) -> Iterator[Facts]:
    """The fine-tuned models of the run, each by the name that the service gave it for its own job."""
    if policy.kind not in SERVED:
        return
    from recontext_data.publishing.services.openai_models import models_of

    for model in models_of(place.run, models=place.folder):
        config = policy.model_copy(update={"model": model.model, "base_url": model.base_url})
        yield config, model.arm, model.seed, model.base_model


def trained_policy(config: Any, model: Any) -> Any:
    """The policy's config for a model (`training.models.TrainedModel`) that was trained from it.

    Raises:
        InputError: a policy of this kind cannot sample a model from disk.
    """
    if config.kind == "tiny" and not model.is_adapter:
        return config.model_copy(update={"path": str(model.path)})
    if config.kind in ("transformers", "vllm"):
        changed = {"adapter": str(model.path)} if model.is_adapter else {"model": str(model.path), "revision": None}
        return config.model_copy(update={key: value for key, value in changed.items() if key in type(config).model_fields})
    if config.kind == "tiny":
        from recontext_data.policies.local.transformers import TransformersConfig

        return TransformersConfig(model=str(_embedded(config)), adapter=str(model.path))
    raise InputError(
        f"policy.kind={config.kind}: a trained model on disk cannot be sampled as one; use tiny, transformers or vllm"
    )


def _embedded(config: Any) -> Path:
    from recontext_data.core.resources import shipped
    from recontext_data.policies.tiny.policy import EMBEDDED

    return Path(config.path) if config.path else shipped(EMBEDDED)
