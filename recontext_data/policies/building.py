"""From a policy config to the policy, with what a scripted one must know of the tasks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recontext_data.contexts import Context, render
from recontext_data.environments.base import Environment
from recontext_data.errors import RecipeError, did_you_mean
from recontext_data.policies.base import AnyPolicy, Policy
from recontext_data.records import Messages, Task, content_hash


def build_policy(
    config: AnyPolicy,
    *,
    environment: Environment,
    tasks: Sequence[Task],
    contexts: Mapping[str, Context | None],
    state: Path | None = None,
) -> Policy:
    """The policy of a recipe. `contexts`: the generation contexts that will be sampled; `state`: a folder in which a policy
    that has business with a server remembers it.

    Raises:
        RecipeError: a scripted policy has no rates for a context.
        PolicyError, SetupError: it cannot be sampled: no key, no such model, a missing library.
    """
    from recontext_data.policies.fake import FakeConfig

    if isinstance(config, FakeConfig):
        unscripted = next((name for name in contexts if config.rates and name not in config.rates), None)
        if unscripted is not None:
            raise RecipeError(f"policy.rates has no context {unscripted!r}: {did_you_mean(unscripted, config.rates)}")
        return config.build(_answers(environment, tasks, contexts), texts=environment.texts)
    if config.kind == "openai_batch":
        from recontext_data.policies.openai_batch import OpenAIBatchConfig

        assert isinstance(config, OpenAIBatchConfig)
        return config.build(state=state)
    return config.build()


def _answers(
    environment: Environment, tasks: Sequence[Task], contexts: Mapping[str, Context | None]
) -> Callable[[Messages], Mapping[str, str]]:
    """A fake policy sees a prompt and must know its task: found by the hash of the rendered messages."""
    known = {
        content_hash(render(task.messages, context, name=name)): environment.scripted(task)
        for name, context in contexts.items()
        for task in tasks
    }
    return lambda messages: known[content_hash(messages)]
