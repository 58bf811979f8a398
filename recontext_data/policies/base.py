"""The one protocol that every policy follows: `sample(requests)` gives replies as they come.

A policy config (frozen, light) lives in its policy's file beside the class it builds; heavy imports happen in `build`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from recontext_data.core.records import Messages, Reply, Request


def too_long(context: int) -> str:
    """Why a prompt was not sampled. The same words for every such prompt: the ledger counts drops by reason."""
    return f"the prompt does not fit the model's context of {context} tokens"


class Policy(Protocol):
    """A model that can be sampled."""

    @property
    def description(self) -> str:
        """One short phrase for the screen: `tiny, the embedded 0.6M-parameter policy (CPU)`."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes this model this model, for the reply key: JSON; never an API key, a local path or a time.

        A local model is identified by the hash of its files, a served one by its base URL and model name.
        """
        ...

    def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies in any order, each as soon as it is there; every key asked for comes back exactly once.

        Requests are pulled lazily, only as concurrency permits: whoever yields them may stop at any moment, such as
        when the money is spent, and then only those already pulled are still answered.

        A completion that could not be had is a `Reply` with `error`, not an exception. Raises `PolicyError` only for
        what makes all further requests pointless (a refused key, no such model).
        """
        ...

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """Prompt tokens as this model would count them; None where that is not known before sending."""
        ...

    async def close(self) -> None:
        """Frees connections and memory."""
        ...


@runtime_checkable
class InGroups(Protocol):
    """What a policy has besides, whose replies cost money: replies come in groups, and a group is acknowledged."""

    def sample_groups(self, requests: Iterable[Request], *, may_send: Callable[[], bool]) -> AsyncGenerator[list[Reply], None]:
        """As `sample`, but whatever has come since the last group comes at once, all choices of one answer together.

        Whoever asks for the next group says by it that the last one is on disk. Until then its requests keep their places
        among those under way: no more than can be under way are ever lost by a kill, or spent above a budget.

        Args:
            requests: as for `sample`.
            may_send: asked before anything is sent. Once it says no, what is under way is waited for and the rest, parts
                and retries of what was pulled included, is left unanswered.
        """
        ...


@runtime_checkable
class TeacherForced(Protocol):
    """What a policy has besides, whose model is in this process: how likely it finds texts that it is given."""

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a completion."""
        ...

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """What is fed to the model, as tokens; a last assistant turn is gone on with."""
        ...

    def forced(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]]) -> Iterator[Any]:
        """The logits of what follows each prompt, token by token, while the given completions are read.

        Args:
            prompts: P token sequences.
            completions: for each prompt N token sequences, as many for each.

        Yields:
            float64 [P, N, V], once for each position and once after the longest one. What comes after a completion's own
            last token but one step means nothing.
        """
        ...


class AnyPolicy(Protocol):
    """The config of a policy, of whatever kind."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        ...

    def build(self) -> Policy:
        """The policy. Cheap: what is heavy is loaded when it is first sampled.

        Raises:
            InputError, SetupError, PolicyError: it cannot be sampled, and why.
        """
        ...
