"""Stage sample: tasks and pools in, candidates out. Buys only what the store does not hold.

A pool is one generation context with n completions per task, shared by all arms that generate under it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from recontext_data.contexts import Context, render
from recontext_data.errors import BuildStopped
from recontext_data.ledger import Entry, entry
from recontext_data.policies.base import Policy
from recontext_data.records import Messages, Reply, Request, Sampling, Task, content_hash, derive_seed
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl

Role = Literal["arms", "measured"]

GROUP = 1024
"""Replies that may wait for one sync; a sync takes whatever is there."""

PAUSE = 0.02
"""Seconds in which replies gather for one sync: long against a sync, short against a model."""


class Tracker(Protocol):
    """Somebody who is told how it goes."""

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What is sampled under one generation context."""

    name: str
    context: Context | None
    n: int
    role: Role


@dataclass(frozen=True)
class Plan:
    """Every completion wanted, and which of them the store lacks."""

    wanted: "pl.DataFrame"
    """candidate_id, task_id, generation_context, role, k, seed, reply_key; sorted by context, task and k."""
    requests: list[Request]
    """What must be bought: one request per prompt, with the ranks that are missing."""


@dataclass
class Outcome:
    """What came of sampling."""

    candidates: "pl.DataFrame"
    entries: list[Entry]
    bought: int
    """Completions that the policy gave in this build."""
    failed: int
    errors: Counter[str] = field(default_factory=Counter)


def plan(tasks: Sequence[Task], pools: Sequence[Pool], *, sampling: Sampling, seed: int, identity: Any, store: ReplyStore) -> Plan:
    """Lists every completion wanted under its content key and looks all of them up.

    A key is the hash of the rendered messages, the policy's identity, the sampling parameters, the seed and k; nothing
    in it depends on names, order or place.
    """
    import polars as pl

    how = content_hash([identity, sampling.temperature, sampling.top_p, sampling.max_tokens])
    rows: list[tuple[Any, ...]] = []
    prompts: dict[str, tuple[Messages, str]] = {}
    for pool in pools:
        for task in tasks:
            messages = render(task.messages, pool.context, name=pool.name)
            prompt = content_hash(messages)
            prompts.setdefault(prompt, (messages, pool.name))
            for k in range(pool.n):
                draw = derive_seed(seed, prompt, k)
                key = content_hash([prompt, how, draw, k])
                rows.append((_candidate_id(task, pool, k, key), task.task_id, pool.name, pool.role, k, draw, key, prompt))
    names = ["candidate_id", "task_id", "generation_context", "role", "k", "seed", "reply_key", "prompt"]
    wanted = pl.DataFrame(rows, schema=names, orient="row")
    missing = wanted.filter(~pl.col("reply_key").is_in(store.find_keys(wanted["reply_key"]).implode()))
    return Plan(wanted.drop("prompt"), _requests(missing, prompts, sampling))


def _candidate_id(task: Task, pool: Pool, k: int, key: str) -> str:
    return content_hash([task.task_id, pool.name, k, key])[:24]


def _requests(missing: "pl.DataFrame", prompts: dict[str, tuple[Messages, str]], sampling: Sampling) -> list[Request]:
    """One request per prompt. Tasks with the same prompt share its replies, as the same content."""
    grouped: dict[str, dict[str, tuple[int, int]]] = {}
    for prompt, key, k, seed in missing.select("prompt", "reply_key", "k", "seed").iter_rows():
        grouped.setdefault(prompt, {})[key] = (k, seed)
    return [
        Request(
            messages=prompts[prompt][0],
            sampling=sampling,
            ks=tuple(k for k, _ in draws.values()),
            seeds=tuple(seed for _, seed in draws.values()),
            keys=tuple(draws),
            tag=prompts[prompt][1],
        )
        for prompt, draws in grouped.items()
    ]


async def buy(requests: Sequence[Request], *, policy: Policy, store: ReplyStore, tracker: Tracker, max_failures: int) -> dict[str, str]:
    """Samples the requests; each reply is on disk, synced, before it is counted. Returns key -> error of those that failed.

    Raises:
        BuildStopped: more than `max_failures` failed for good. Everything that came is kept.
    """
    failures: dict[str, str] = {}
    asked = asked_by_key(requests, dict(policy.identity))
    async for group in _groups(policy.sample(requests)):
        # An empty completion is a completion; only a reply without one has failed.
        store.append((_clean(reply) for reply in group if reply.completion is not None), asked=asked)
        failed = {reply.key: reply.error or "no completion" for reply in group if reply.completion is None}
        failures.update(failed)
        tracker.advance(len(group), failed=len(failed))
        if len(failures) > max_failures:
            raise BuildStopped(_too_many(failures, max_failures))
    return failures


def asked_by_key(requests: Sequence[Request], identity: Any) -> Callable[[str], dict[str, Any]]:
    """What goes into a reply's key, in the open: `recontext replies find` says with it why a reply was not found."""
    by_key = {key: request for request in requests for key in request.keys}

    def asked(key: str) -> dict[str, Any]:
        request = by_key[key]
        seed, k = next((seed, k) for own, seed, k in zip(request.keys, request.seeds, request.ks, strict=True) if own == key)
        return asked_for(content_hash(request.messages), identity, request.sampling, seed=seed, k=k)

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
    from dataclasses import replace

    names = ("completion", "reasoning", "finish_reason", "model")
    texts = {name: text for name in names if (text := getattr(reply, name)) is not None and not text.isascii()}
    return replace(reply, **{name: _whole_characters(text) for name, text in texts.items()}) if texts else reply


def _whole_characters(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _too_many(failures: dict[str, str], limit: int) -> str:
    words, count = Counter(failures.values()).most_common(1)[0]
    return (
        f"limits.max_failure_rate: {len(failures)} completions failed and {limit} may; most often ({count}): {words}; "
        "what came is kept, the same command asks for the rest"
    )


def collect(plan: Plan, *, store: ReplyStore, failures: dict[str, str], bought: int) -> Outcome:
    """The candidates: every wanted completion that the store holds now; the others are in the ledger by reason."""
    import polars as pl

    replies = store.find(plan.wanted["reply_key"]).drop("written", "details").rename({"key": "reply_key"})
    candidates = plan.wanted.join(replies, on="reply_key", how="inner", maintain_order="left")
    lost = plan.wanted.join(replies, on="reply_key", how="anti", maintain_order="left")
    entries = []
    for name in plan.wanted["generation_context"].unique(maintain_order=True):
        here = pl.col("generation_context") == name
        reasons = [failures.get(key, "no reply") for key in lost.filter(here)["reply_key"]]
        rows_in = len(plan.wanted.filter(here))
        entries.append(entry("sample", name, rows_in=rows_in, kept=len(candidates.filter(here)), drops=reasons))
    return Outcome(candidates, entries, bought, len(failures), Counter(failures.values()))


def token_counts(requests: Iterable[Request], policy: Policy) -> int | None:
    """Prompt tokens of the requests; None where the policy cannot count before sending."""
    total = 0
    for request in requests:
        count = policy.count_tokens(request.messages)
        if count is None:
            return None
        total += count
    return total
