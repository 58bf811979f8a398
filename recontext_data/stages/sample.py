"""Stage sample: tasks and pools in, candidates out. Buys only what the store does not hold.

A pool is one generation context with n completions per task, shared by all arms that generate under it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from recontext_data.contexts import Context, render
from recontext_data.ledger import Entry, entry
from recontext_data.placing import PLAIN, How
from recontext_data.policies.base import Policy
from recontext_data.prices import Price, approximate_tokens
from recontext_data.records import Messages, Request, Sampling, Task, content_hash, derive_seed
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl

Role = Literal["arms", "measured"]

CHUNK = 4096
"""Tasks whose wanted completions are listed at once; a list of Python rows takes several times the memory of a table."""

_WANTED = ["candidate_id", "task_id", "generation_context", "role", "k", "seed", "reply_key", "prompt"]


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


def plan(
    tasks: Sequence[Task],
    pools: Sequence[Pool],
    *,
    sampling: Sampling,
    seed: int,
    identity: Any,
    store: ReplyStore,
    how: How = PLAIN,
) -> Plan:
    """Lists every completion wanted under its content key and looks all of them up.

    A key is the hash of the rendered messages, the policy's identity, the sampling parameters, the seed and k; nothing
    in it depends on names, order or place.
    """
    import polars as pl

    drawn = content_hash([identity, sampling.temperature, sampling.top_p, sampling.max_tokens])
    prompts: dict[str, tuple[Messages, str]] = {}
    parts = [
        _wanted(tasks[start : start + CHUNK], pool, prompts, drawn=drawn, seed=seed, how=how)
        for pool in pools
        for start in range(0, len(tasks), CHUNK)
    ]
    wanted = pl.concat([_nothing(), *parts])
    there = store.find_keys(wanted["reply_key"])
    missing = wanted.filter(~pl.col("reply_key").is_in(there.implode())) if len(there) else wanted
    return Plan(wanted.drop("prompt"), _requests(missing, prompts, sampling))


def _wanted(
    tasks: Sequence[Task], pool: Pool, prompts: dict[str, tuple[Messages, str]], *, drawn: str, seed: int, how: How
) -> "pl.DataFrame":
    """What one pool wants of some tasks; adds their prompts to `prompts`."""
    import polars as pl

    rows: list[tuple[Any, ...]] = []
    for task in tasks:
        messages = render(task, pool.context, name=pool.name, how=how)
        prompt = content_hash(messages)
        prompts.setdefault(prompt, (messages, pool.name))
        for k in range(pool.n):
            draw = derive_seed(seed, prompt, k)
            key = content_hash([prompt, drawn, draw, k])
            rows.append((_candidate_id(task, pool, k, key), task.task_id, pool.name, pool.role, k, draw, key, prompt))
    return pl.DataFrame(rows, schema=_WANTED, orient="row")


def _nothing() -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(schema={name: pl.Int64 if name in ("k", "seed") else pl.String for name in _WANTED})


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


def collect(plan: Plan, *, store: ReplyStore, failures: Mapping[str, str], bought: int) -> Outcome:
    """The candidates: every wanted completion that the store holds now; the others are in the ledger by reason."""
    import polars as pl

    replies = store.find(plan.wanted["reply_key"]).drop("written").rename({"key": "reply_key"})
    candidates = plan.wanted.join(replies, on="reply_key", how="inner", maintain_order="left")
    lost = plan.wanted.join(replies, on="reply_key", how="anti", maintain_order="left")
    entries = []
    for name in plan.wanted["generation_context"].unique(maintain_order=True):
        here = pl.col("generation_context") == name
        reasons = [failures.get(key, "no reply") for key in lost.filter(here)["reply_key"]]
        rows_in = len(plan.wanted.filter(here))
        entries.append(entry("sample", name, rows_in=rows_in, kept=len(candidates.filter(here)), drops=reasons))
    return Outcome(candidates, entries, bought, len(failures))


def cost_usd(replies: "pl.DataFrame", price: Price, *, factor: float = 1.0) -> float:
    """What stored replies cost at a price, from their token counts. A reply that candidates share counts once."""
    import polars as pl

    key = "reply_key" if "reply_key" in replies.columns else "key"
    cached = pl.col("details").str.json_path_match("$.cached_tokens").cast(pl.Int64, strict=False)
    sums = replies.unique(key).select(pl.col("prompt_tokens").sum(), pl.col("completion_tokens").sum(), cached=cached.sum())
    prompt, completion, cached_tokens = sums.row(0)
    return factor * price.usd(prompt=prompt, completion=completion, cached=cached_tokens)


def token_counts(requests: Iterable[Request], policy: Policy) -> tuple[int, bool]:
    """Prompt tokens of the requests, and whether they are exact: counted by the policy's own tokenizer."""
    total, is_exact = 0, True
    for request in requests:
        count = policy.count_tokens(request.messages)
        if count is None:
            is_exact = False
            count = sum(approximate_tokens(turn["content"]) for turn in request.messages)
        total += count
    return total, is_exact
