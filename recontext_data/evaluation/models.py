"""What is measured: the tasks that no arm was trained on, and the policies of models that were trained.

recontext evaluate recipe=...      # and `recontext iterate`, which measures the models of every round
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.errors import InputError, RecipeError, did_you_mean
from recontext_data.evaluation.matrix import BEFORE, Model, baseline_of, contexts_of
from recontext_data.recipe import Recipe

if TYPE_CHECKING:
    from recontext_data.environments.base import TaskSet
    from recontext_data.policies.base import Policy
    from recontext_data.stages.prepared import Prepared

LOCAL = ("tiny", "transformers", "vllm")
"""Kinds of policies that can sample a model from disk."""


def require_other_tasks(recipe: Recipe) -> None:
    """Models must not be measured on the tasks that they were trained on.

    Raises:
        RecipeError: they would be, or a context or the baseline has no such name.
    """
    trained, measured = recipe.environment.split, recipe.evaluation.split
    if "all" in (trained, measured) or trained == measured:
        raise RecipeError(
            f"evaluation.split={measured}: the arms are trained on tasks of the split {trained}; "
            "give one that shares none with it"
        )
    baseline_of(recipe)
    for name in recipe.evaluation.contexts:
        if name != "none" and name not in recipe.contexts:
            raise RecipeError(
                f"evaluation.contexts: no context is named {name!r}; {did_you_mean(name, [*recipe.contexts, 'none'])}"
            )


def measured_tasks(recipe: Recipe, *, output: Path) -> "TaskSet":
    """The tasks that models are measured on."""
    wanted = {"split": recipe.evaluation.split, "tasks": recipe.evaluation.tasks}
    return recipe.environment.model_copy(update=wanted).load(cache=output / "cache")


def before(job: "Prepared", tasks: "TaskSet") -> Model:
    """The policy before any training."""
    return Model(arm=BEFORE, seed=None, policy=policy_of(job, tasks, job.recipe.policy))


def policy_of(job: "Prepared", tasks: "TaskSet", config: Any) -> "Policy":
    """A policy that answers these tasks under every context of the evaluation."""
    from recontext_data.arms import context_or_none
    from recontext_data.policies.building import build_policy

    contexts = {name: context_or_none(job.recipe.contexts, name) for name in contexts_of(job.recipe)}
    return build_policy(config, environment=job.recipe.environment, tasks=tasks.tasks, contexts=contexts, how=job.recipe.how)


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
        from recontext_data.policies.transformers_local import TransformersConfig

        return TransformersConfig(model=str(_embedded(config)), adapter=str(model.path))
    raise InputError(
        f"policy.kind={config.kind}: a trained model on disk cannot be sampled as one; use tiny, transformers or vllm"
    )


def _embedded(config: Any) -> Path:
    from recontext_data.policies.tiny import EMBEDDED
    from recontext_data.resources import shipped

    return Path(config.path) if config.path else shipped(EMBEDDED)
