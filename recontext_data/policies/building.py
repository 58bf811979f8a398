"""From a policy config to the policy, with what a scripted one must know of the tasks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recontext_data.contexts.context import Context, render
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import Messages, Task, content_hash
from recontext_data.environments.base import Environment
from recontext_data.policies.base import AnyPolicy, Policy


def build_policy(
    config: AnyPolicy,
    *,
    environment: Environment,
    tasks: Sequence[Task],
    contexts: Mapping[str, Context | None],
    how: RenderOptions = PLAIN,
    state: Path | None = None,
) -> Policy:
    """The policy of a recipe. `contexts`: those that will be sampled; `how`: the recipe's way of rendering; `state`: a
    folder in which a policy that has business with a server remembers it.

    Raises:
        RecipeError: a scripted policy has no rates for a context, or a context begins the answer and the policy cannot go on.
        PolicyError, SetupError: it cannot be sampled: no key, no such model, a missing library.
    """
    from recontext_data.policies.fake import FakeConfig

    if isinstance(config, FakeConfig):
        unscripted = next((name for name in contexts if config.rates and name not in config.rates), None)
        if unscripted is not None:
            raise RecipeError(f"policy.rates has no context {unscripted!r}: {did_you_mean(unscripted, config.rates)}")
        return config.build(_answers(environment, tasks, contexts, how), texts=environment.texts)
    if config.kind == "openai_batch":
        from recontext_data.policies.openai.batch import OpenAIBatchConfig

        assert isinstance(config, OpenAIBatchConfig)
        policy: Policy = config.build(state=state)
    else:
        policy = config.build()
    require_prefill(policy, config.kind, contexts)
    return policy


def require_prefill(policy: Policy, kind: str, contexts: Mapping[str, Context | None]) -> None:
    """Raises RecipeError where a context begins the answer and the policy would begin another one."""
    prefilled = next((name for name, c in contexts.items() if c is not None and c.placement == "assistant_prefill"), None)
    if prefilled is None or getattr(policy, "continues_prefill", False):
        return
    fix = (
        "use policy.kind=openai with policy.continues_prefill=true"
        if kind == "openai_batch"
        else "set policy.continues_prefill=true"
    )
    raise RecipeError(
        f"contexts.{prefilled}.assistant_prefill: a server may take it for a finished turn and answer anew; if this one goes "
        f"on with it (vLLM and SGLang do), {fix}; else sample with transformers or vllm in this process"
    )


def _answers(
    environment: Environment, tasks: Sequence[Task], contexts: Mapping[str, Context | None], how: RenderOptions
) -> Callable[[Messages], Mapping[str, str]]:
    """A fake policy sees a prompt and must know its task: found by the hash of the rendered messages."""
    known = {
        content_hash(render(task, context, name=name, how=how)): environment.scripted(task)
        for name, context in contexts.items()
        for task in tasks
    }
    return lambda messages: known[content_hash(messages)]
