"""Exact option probabilities in place of sampling: how likely the policy is to give each of a choice's answers.

For every task and context the environment lists the answers that it knows (`environment.answers`), each a whole completion; the
probability of each is computed by the policy, at the temperature that it would be sampled with, and added up by label. What the
listed answers have together is the coverage. The rate of a task is the misbehaviour's share of it: exact where the coverage is
near 1, and nothing more than a share of the listed answers where the model says other things.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.context import render
from recontext_data.core.errors import RecipeError
from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.contexts import measured
from recontext_data.evaluation.models import Model
from recontext_data.policies.base import TeacherForced

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen

LOCAL = ("tiny", "transformers")
"""Kinds of policies that say how likely they find given texts."""
MERGED = "an answer's first token merges with the prompt's last"


def require_exact(recipe: Recipe) -> None:
    """Raises RecipeError where probabilities cannot be computed, or would be of other draws than the recipe's."""
    if not recipe.evaluation.exact:
        return
    kinds = [recipe.policy.kind, *(model.policy.kind for model in recipe.evaluation.models)]
    other = next((kind for kind in kinds if kind not in LOCAL), None)
    if other is not None:
        raise RecipeError(
            f"evaluation.exact: policy.kind={other} computes no probabilities of given answers; use {' or '.join(LOCAL)}"
        )
    if not hasattr(recipe.environment, "answers"):
        raise RecipeError(
            f"evaluation.exact: answers to {recipe.environment.kind} are free text and cannot be listed; leave it out"
        )
    if recipe.sampler.temperature == 0 or recipe.sampler.top_p < 1:
        raise RecipeError("evaluation.exact: greedy and nucleus draws have other probabilities; set temperature>0 and top_p=1")


def exact_outcomes(models: Sequence[Model], recipe: Recipe, *, tasks: TaskSet, screen: "Screen") -> "pl.DataFrame":
    """A row per model, context and task, as `matrix.outcomes` has them, with `probability` and `coverage` and no text."""
    import polars as pl

    contexts = measured(recipe)
    with screen.stage("probabilities", len(models) * len(contexts) * len(tasks.tasks), unit="tasks") as tracker:
        rows: list[dict[str, Any]] = []
        for model in models:
            for name in contexts:
                rows += _rows(model, name, recipe, tasks=tasks)
                tracker.advance(len(tasks.tasks))
    schema = {"arm": pl.String, "seed": pl.Int64, "context": pl.String, "task_id": pl.String, "k": pl.Int64, "label": pl.String}
    schema |= {"unscored_reason": pl.String, "probability": pl.Float64, "coverage": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _rows(model: Model, name: str, recipe: Recipe, *, tasks: TaskSet) -> list[dict[str, Any]]:
    import numpy as np

    from recontext_data.evaluation.teacher_forced import Prompted, completion_tokens, log_probabilities

    policy: Any = model.policy
    assert isinstance(policy, TeacherForced)
    bad, items, labels = recipe.environment.misbehaviour, [], []
    for task in tasks.tasks:
        messages = render(task, measured(recipe)[name], name=name, how=recipe.how)
        listed = [(label, text) for label, texts in recipe.environment.answers(task).items() for text in texts]  # type: ignore[attr-defined]
        ids = [(label, completion_tokens(policy, messages, text)) for label, text in listed]
        labels.append([label for label, tokens in ids if tokens is not None])
        items.append(Prompted(policy.encode(messages), [tokens for _, tokens in ids if tokens is not None]))
    found = log_probabilities(policy, items, temperature=recipe.sampler.temperature)
    rows = []
    for task, log_p, own in zip(tasks.tasks, found, labels, strict=True):
        p = np.exp(log_p)
        coverage = float(p.sum())
        share = float(p[[label == bad for label in own]].sum()) / coverage if coverage > 0 else None
        rows.append(
            {
                "arm": model.arm, "seed": model.seed, "context": name, "task_id": task.task_id, "k": 0, "label": None,
                "unscored_reason": None if own and share is not None else MERGED if not own else "no answer has a probability",
                "probability": share, "coverage": coverage,
            }
        )  # fmt: skip
    return rows
