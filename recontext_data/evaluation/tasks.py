"""What models are measured on: tasks that no arm was trained on. Checked before anything is spent."""

from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.config.recipe import Recipe
from recontext_data.core.errors import RecipeError
from recontext_data.evaluation.contexts import require_known_contexts
from recontext_data.evaluation.costs import require_local
from recontext_data.evaluation.exact import require_exact
from recontext_data.evaluation.inspect_logs import require_inspect
from recontext_data.evaluation.matrix import baseline_of
from recontext_data.evaluation.models import require_own_names

if TYPE_CHECKING:
    from recontext_data.environments.base import TaskSet


def require_measurable(recipe: Recipe) -> None:
    """Models must not be measured on the tasks that they were trained on, nor in a way that this policy does not have.

    Raises:
        RecipeError: the evaluation section cannot be carried out, and why.
    """
    trained, measured = recipe.environment.split, recipe.evaluation.split
    if "all" in (trained, measured) or trained == measured:
        raise RecipeError(
            f"evaluation.split={measured}: the arms are trained on tasks of the split {trained}; "
            "give one that shares none with it"
        )
    baseline_of(recipe)
    require_known_contexts(recipe)
    require_own_names(recipe)
    require_exact(recipe)
    require_local(recipe)
    require_inspect(recipe)


def measured_tasks(recipe: Recipe, *, output: Path) -> "TaskSet":
    """The tasks that models are measured on."""
    wanted = {"split": recipe.evaluation.split, "tasks": recipe.evaluation.tasks}
    return recipe.environment.model_copy(update=wanted).load(cache=output / "cache")
