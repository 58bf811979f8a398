"""What is looked at in prompts before anything is paid for: chat templates, and what the environment shows otherwise."""

from collections.abc import Sequence
from typing import Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import context_or_none, pools
from recontext_data.contexts.context import render
from recontext_data.core.errors import InputError, RecipeError
from recontext_data.core.records import Message, Messages, Task, hash_of_list
from recontext_data.policies.base import Policy

_SYSTEM, _USER = "recontext-system-probe", "recontext-user-probe"


def shown_otherwise(recipe: Recipe, tasks: Sequence[Task]) -> list[Any]:
    """For the fingerprint: a hash of the prompts of each context whose text is the environment's doing, not the recipe's."""
    found = {}
    for name, context in recipe.contexts.items():
        if context.environment is not None or context.field is not None:
            found[name] = hash_of_list(render(task, context, name=name, how=recipe.how) for task in tasks)
    return [found] if found else []


def check_template(policy: Policy, recipe: Recipe, task: Task) -> None:
    """What the recipe says about system turns, against the policy's chat template where that is at hand.

    Raises:
        RecipeError: prompts have a system turn and the template takes none; or it adds one of its own, and the recipe says
            that this is an error; or that cannot be known of this policy.
    """
    contexts = dict.fromkeys([*pools(recipe.arms), *recipe.measure.contexts, *(arm.training for arm in recipe.arms)])
    prompts = [render(task, context_or_none(recipe.contexts, name), name=name, how=recipe.how) for name in contexts]
    has_system = any(turn["role"] == "system" for prompt in prompts for turn in prompt)
    lacks_system = any(turn["role"] != "system" for prompt in prompts for turn in prompt[:1])
    if not hasattr(policy, "prompt_text"):
        if lacks_system and recipe.rendering.default_system == "error":
            raise RecipeError(
                "rendering.default_system=error: the chat template of this policy is not here to be looked at; "
                "say keep or remove, or sample with transformers or vllm in this process"
            )
        return
    if has_system and not takes_system(policy):
        raise RecipeError(
            "rendering.no_system_role=error: the policy's chat template takes no system turn; set "
            "rendering.no_system_role=merge_into_user, or place the contexts as user_prefix"
        )
    if lacks_system and recipe.rendering.default_system == "error" and (own := default_system(policy)):
        raise RecipeError(
            f"rendering.default_system=error: the chat template adds {own.strip()[:80]!r} to prompts without a system turn; "
            "say keep or remove"
        )


def takes_system(policy: Any) -> bool:
    """Whether a system turn reaches the model. Some templates refuse it, others leave it out without a word."""
    try:
        return _SYSTEM in policy.prompt_text(_probe(with_system=True))
    except InputError:
        return False


def default_system(policy: Any) -> str:
    """The text that the chat template puts in where there is no system turn; empty where it puts in none."""
    if not takes_system(policy):
        return ""
    before, _, rest = policy.prompt_text(_probe(with_system=True)).partition(_SYSTEM)
    between = rest.partition(_USER)[0]
    bare = policy.prompt_text(_probe(with_system=False)).partition(_USER)[0]
    # A default stands where the system turn would, between what surrounds that turn.
    if bare.startswith(before) and bare.endswith(between) and len(bare) > len(before) + len(between):
        return str(bare[len(before) : len(bare) - len(between)])
    return ""


def _probe(*, with_system: bool) -> Messages:
    turns: list[Message] = [{"role": "user", "content": _USER}]
    return [{"role": "system", "content": _SYSTEM}, *turns] if with_system else turns
