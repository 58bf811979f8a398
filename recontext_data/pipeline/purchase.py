"""Buys completions: every reply is on disk before it counts, and the money is counted as it goes.

`buy` pulls requests through the purse, which stops giving them out when the budget is spent; what is in flight by then is
waited for and kept. A policy that replies in groups (`policies.base.InGroups`) is asked for the next group when the last
one is on disk and paid: so nothing is sent in the place of a reply that a kill could still take.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

from recontext_data.core.budget import Budget
from recontext_data.core.errors import BuildStopped
from recontext_data.core.records import Reply, Request, SamplingParams, content_hash
from recontext_data.policies.base import InGroups, Policy
from recontext_data.store.replies import ReplyStore

GROUP = 1024
"""Replies that may wait for one sync; a sync takes whatever is there."""

PAUSE = 0.02
"""Seconds in which the replies of a policy that gives them one by one gather for one sync: long against a sync, short
against a model. Such a policy computes here; what a kill takes from it costs time and no money."""


class ProgressSink(Protocol):
    """Somebody who is told how it goes."""

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        """`n` more are done, of which `failed` failed, for `usd`."""
        ...


class InFlight:
    """The requests that have been pulled and are not wholly on disk; all that is held of them."""

    def __init__(self, identity: Any) -> None:
        self._identity = identity
        self._by_key: dict[str, Request] = {}
        self._last: tuple[Request | None, str] = (None, "")

    def __len__(self) -> int:
        """Completions that are asked for and have not come."""
        return len(self._by_key)

    def watched(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests, noted as they are pulled."""
        for request in requests:
            self._by_key.update(dict.fromkeys(request.keys, request))
            yield request

    def together(self, group: Sequence[Reply]) -> Iterator[list[Reply]]:
        """The completions among the replies, those of one request in one list."""
        # An empty completion is a completion; only a reply without one has failed.
        completions = (reply for reply in group if reply.completion is not None)
        for _, replies in groupby(completions, key=lambda reply: id(self._by_key[reply.key])):
            yield [_clean(reply) for reply in replies]

    def asked(self, key: str) -> dict[str, Any]:
        """What goes into a reply's key, in the open: `recontext replies find` says with it why a reply was not found."""
        request = self._by_key[key]
        place = request.keys.index(key)
        if self._last[0] is not request:  # the completions of one prompt come together
            self._last = (request, content_hash(request.messages))
        return asked_for(self._last[1], self._identity, request.sampling, seed=request.seeds[place], k=request.ks[place])

    def done(self, group: Sequence[Reply]) -> None:
        """These have come, and are on disk if they are completions."""
        for reply in group:
            del self._by_key[reply.key]


async def buy(
    requests: Iterable[Request],
    *,
    policy: Policy,
    store: ReplyStore,
    tracker: ProgressSink,
    max_failures: int,
    purse: Budget | None = None,
) -> dict[str, str]:
    """Samples the requests; each reply is on disk, synced, before it is counted. Returns key -> error of those that failed.

    Raises:
        StoreError: the store cannot be written: found out before anything is sent, or when a disk is full.
        BuildStopped: more than `max_failures` failed for good, or the budget is spent. Everything that came is kept.
    """
    purse = purse or Budget()
    failures: dict[str, str] = {}
    store.begin()
    source, under_way = iter(requests), InFlight(dict(policy.identity))
    async with aclosing(_groups(policy, under_way.watched(purse.affordable(source)), purse)) as groups:
        async for group in groups:
            store.append_together(under_way.together(group), asked=under_way.asked)
            under_way.done(group)
            failed = {reply.key: reply.error or "no completion" for reply in group if reply.completion is None}
            failures.update(failed)
            tracker.advance(len(group), failed=len(failed), usd=purse.pay(group))
            if len(failures) > max_failures:
                purse.is_closed = True  # what is in flight is paid for: wait for it
                if purse.is_drained and not isinstance(policy, InGroups):
                    break
    if not purse.may_spend():
        purse.unsent_count = len(under_way) + sum(len(request.ks) for request in source)
    if len(failures) > max_failures:
        raise BuildStopped(_too_many(failures, max_failures))
    purse.require_all_sent()
    return failures


def asked_for(prompt: str, identity: Any, sampling: SamplingParams, *, seed: int, k: int) -> dict[str, Any]:
    """The parts of a key as they are stored beside the reply; `prompt` is the hash of the rendered messages."""
    how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    return {"prompt": prompt, "policy": identity, **how, "seed": seed, "k": k}


def _groups(policy: Policy, requests: Iterator[Request], purse: Budget) -> AsyncGenerator[list[Reply], None]:
    if isinstance(policy, InGroups):
        return policy.sample_groups(requests, may_send=purse.may_spend)
    return _gathered(policy.sample(requests))


async def _gathered(replies: AsyncIterator[Reply]) -> AsyncGenerator[list[Reply], None]:
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
