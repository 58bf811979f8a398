"""Buys completions: every reply is on disk before it counts, and the money is counted as it goes.

`buy` pulls requests through the purse, which stops giving them out when the budget is spent; what is in flight by then is
waited for and kept.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from recontext_data.errors import BuildStopped
from recontext_data.policies.base import Policy
from recontext_data.prices import Price
from recontext_data.records import Reply, Request, Sampling, content_hash
from recontext_data.store.replies import ReplyStore

GROUP = 1024
"""Replies that may wait for one sync; a sync takes whatever is there."""

PAUSE = 0.02
"""Seconds in which replies gather for one sync: long against a sync, short against a model."""


class Tracker(Protocol):
    """Somebody who is told how it goes."""

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        """`n` more are done, of which `failed` failed, for `usd`."""
        ...


@dataclass
class Purse:
    """What may be spent and what has been. Without a price nothing is counted: a model of one's own costs no tokens."""

    price: Price | None = None
    factor: float = 1.0
    """Of the list price: 0.5 in the Batch API."""
    budget_usd: float | None = None
    spent_usd: float = 0.0
    """So far, by this run: what its stored replies cost is in it from the start."""
    held_back: int = field(default=0, init=False)
    """Completions that were not asked for."""
    is_closed: bool = field(default=False, init=False)
    """Whether nothing more may be asked for, whatever is left."""
    is_drained: bool = field(default=False, init=False)
    """Whether every request has been given out."""

    def pay(self, replies: Sequence[Reply]) -> float:
        """Counts what replies cost and returns it."""
        if self.price is None:
            return 0.0
        usd = self.factor * sum(self.price.of(reply) for reply in replies)
        self.spent_usd += usd
        return usd

    @property
    def is_empty(self) -> bool:
        """Whether the budget is spent."""
        return self.budget_usd is not None and self.spent_usd >= self.budget_usd

    def affordable(self, requests: Sequence[Request]) -> Iterator[Request]:
        """The requests, one by one as they are pulled, until the budget is spent."""
        for index, request in enumerate(requests):
            if self.is_empty or self.is_closed:
                self.held_back = sum(len(other.ks) for other in requests[index:])
                return
            yield request
        self.is_drained = True


async def buy(
    requests: Sequence[Request],
    *,
    policy: Policy,
    store: ReplyStore,
    tracker: Tracker,
    max_failures: int,
    purse: Purse | None = None,
) -> dict[str, str]:
    """Samples the requests; each reply is on disk, synced, before it is counted. Returns key -> error of those that failed.

    Raises:
        BuildStopped: more than `max_failures` failed for good, or the budget is spent. Everything that came is kept.
    """
    purse = purse or Purse()
    failures: dict[str, str] = {}
    asked = asked_by_key(requests, dict(policy.identity))
    async for group in _groups(policy.sample(purse.affordable(requests))):
        # An empty completion is a completion; only a reply without one has failed.
        store.append((_clean(reply) for reply in group if reply.completion is not None), asked=asked)
        failed = {reply.key: reply.error or "no completion" for reply in group if reply.completion is None}
        failures.update(failed)
        tracker.advance(len(group), failed=len(failed), usd=purse.pay(group))
        if len(failures) > max_failures:
            purse.is_closed = True  # what is in flight is paid for: wait for it
            if purse.is_drained:
                break
    if len(failures) > max_failures:
        raise BuildStopped(_too_many(failures, max_failures))
    if purse.held_back:
        raise BuildStopped(
            f"limits.budget_usd: {purse.spent_usd:.4f} of {purse.budget_usd} USD are spent and {purse.held_back} completions "
            "are still to be sampled; raise it and run the same command again, what came is kept"
        )
    return failures


def asked_by_key(requests: Sequence[Request], identity: Any) -> Callable[[str], dict[str, Any]]:
    """What goes into a reply's key, in the open: `recontext replies find` says with it why a reply was not found."""
    by_key = {key: request for request in requests for key in request.keys}
    last: tuple[Request | None, str] = (None, "")

    def asked(key: str) -> dict[str, Any]:
        nonlocal last
        request = by_key[key]
        place = request.keys.index(key)
        if last[0] is not request:  # the completions of one prompt come together
            last = (request, content_hash(request.messages))
        return asked_for(last[1], identity, request.sampling, seed=request.seeds[place], k=request.ks[place])

    return asked


def asked_for(prompt: str, identity: Any, sampling: Sampling, *, seed: int, k: int) -> dict[str, Any]:
    """The parts of a key as they are stored beside the reply; `prompt` is the hash of the rendered messages."""
    how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    return {"prompt": prompt, "policy": identity, **how, "seed": seed, "k": k}


async def _groups(replies: AsyncIterator[Reply]) -> AsyncIterator[list[Reply]]:
    """Replies in groups: whatever has arrived, at most once in `PAUSE` seconds."""
    queue: asyncio.Queue[Reply | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for reply in replies:
                queue.put_nowait(reply)
                if queue.qsize() >= GROUP:
                    await asyncio.sleep(0)  # a policy that never waits must still let its replies be written
        finally:
            queue.put_nowait(None)

    producer = asyncio.create_task(pump())
    try:
        ended = False
        while not ended:
            group = [await queue.get()]
            if group[0] is not None:
                await asyncio.sleep(PAUSE)
            while not queue.empty():
                group.append(queue.get_nowait())
            ended = None in group
            arrived = [reply for reply in group if reply is not None]
            if arrived:
                yield arrived
        await producer
    finally:
        producer.cancel()


def _clean(reply: Reply) -> Reply:
    """Text that can be stored: half of a surrogate pair, which no encoding has, becomes U+FFFD."""
    names = ("completion", "reasoning", "finish_reason", "model")
    texts = {name: text for name in names if (text := getattr(reply, name)) is not None and not text.isascii()}
    fixed: dict[str, Any] = {name: _whole_characters(text) for name, text in texts.items()}
    return replace(reply, **fixed) if fixed else reply


def _whole_characters(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _too_many(failures: dict[str, str], limit: int) -> str:
    words, count = Counter(failures.values()).most_common(1)[0]
    return (
        f"limits.max_failure_rate: {len(failures)} completions failed and {limit} may; most often ({count}): {words}; "
        "what came is kept, the same command asks for the rest"
    )
