"""The contexts that models are measured under, and what each one is to the arms. Pure.

Left to itself an evaluation measures under every context of the recipe, under `evaluation.extra_contexts`, and under the exact
two contexts of every arm: `none` among them where an arm is generated or trained bare.
"""

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import folder_name
from recontext_data.contexts.context import NONE, Context
from recontext_data.core.errors import RecipeError, did_you_mean


def contexts_of(recipe: Recipe) -> list[str]:
    """The names, in the order of reports."""
    if recipe.evaluation.contexts:
        return list(dict.fromkeys(recipe.evaluation.contexts))
    own = [side for arm in recipe.arms for side in _sides(arm.generation, arm.training, given=arm.data is not None)]
    return list(dict.fromkeys([*recipe.contexts, *own, *recipe.evaluation.extra_contexts]))


def measured(recipe: Recipe) -> dict[str, Context | None]:
    """The contexts by name; None is the bare task."""
    known = {**recipe.contexts, **recipe.evaluation.extra_contexts}
    return {name: None if name == NONE else known[name] for name in contexts_of(recipe)}


def roles(recipe: Recipe) -> dict[str, list[str]]:
    """What a context is beside its stance: `generation of ARM`, `training of ARM`, `placebo`, `negates NAME`."""
    found: dict[str, list[str]] = {}
    for name, context in measured(recipe).items():
        found[name] = ["placebo"] if context is not None and context.stance == "placebo" else []
        if name in recipe.evaluation.negates:
            found[name].append(f"negates {recipe.evaluation.negates[name]}")
        for arm in recipe.arms:
            sides = {"generation": arm.generation if arm.data is None else None, "training": arm.training}
            found[name] += [f"{side} of {folder_name(arm, recipe.contexts)}" for side, own in sides.items() if own == name]
    return found


def require_known_contexts(recipe: Recipe) -> None:
    """Raises RecipeError for a context that is named and not declared, or declared twice."""
    for name in recipe.evaluation.extra_contexts:
        if name in recipe.contexts:
            raise RecipeError(f"evaluation.extra_contexts.{name}: the recipe has a context of this name; give it another")
    known = [*recipe.contexts, *recipe.evaluation.extra_contexts, NONE]
    for name in recipe.evaluation.contexts:
        if name not in known:
            raise RecipeError(f"evaluation.contexts: no context is named {name!r}; {did_you_mean(name, known)}")
    for name, negated in recipe.evaluation.negates.items():
        for side in (name, negated):
            if side not in known:
                raise RecipeError(f"evaluation.negates: no context is named {side!r}; {did_you_mean(side, known)}")
        if name == negated:
            raise RecipeError(f"evaluation.negates.{name}: is its own negation; name the context that it negates")


def _sides(generation: str, training: str, *, given: bool) -> list[str]:
    return [training] if given else [generation, training]
