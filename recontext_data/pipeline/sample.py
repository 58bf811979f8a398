"""Stage sample: tasks and pools in, candidates out. Buys only what the store does not hold.

A pool is one generation context with n completions per task, shared by all arms that generate under it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recontext_data.contexts.context import Context
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.prices import Price, approximate_tokens
from recontext_data.core.records import Request, SamplingParams, Task, content_hash
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.pipeline.sample_plan import MissingRequests, SamplePlan
from recontext_data.policies.base import Policy
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl


IN_ONE = 8192
"""Replies that are looked up at once where there are no more; several parts cost the machinery for them."""

Role = Literal["arms", "measured"]


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

    wanted: SamplePlan
    requests: MissingRequests
    """What must be bought: one request per prompt, with the ranks that are missing; made as they are pulled."""


class Collected:
    """The candidates of a plan, some at a time in its order, and the ledger of what was gone through."""

    def __init__(self, plan: Plan, *, store: ReplyStore, failures: Mapping[str, str]) -> None:
        self._plan, self._store, self._failures = plan, store, failures
        self._kept: Counter[str] = Counter()
        self._lost: dict[str, list[str]] = {}

    def __iter__(self) -> "Iterator[pl.DataFrame]":
        """Every wanted completion that the store holds now, without a row for the others."""
        self._kept, self._lost = Counter(), {}
        for part, found in self._found():
            replies = found.drop("written").rename({"key": "reply_key"})
            candidates = part.join(replies, on="reply_key", how="left", maintain_order="left")
            there = candidates["completion"].is_not_null()
            if not there.all():  # a stored reply has a completion, so what has none was not found
                for name, key in candidates.filter(~there).select("generation_context", "reply_key").iter_rows():
                    self._lost.setdefault(name, []).append(self._failures.get(key, "no reply"))
                candidates = candidates.filter(there)
            self._kept.update(candidates["generation_context"])
            yield candidates

    def _found(self) -> "Iterator[tuple[pl.DataFrame, pl.DataFrame]]":
        """What is wanted, in parts, and the replies for each."""
        wanted = self._plan.wanted
        if len(wanted) <= IN_ONE:
            whole = wanted.table()
            yield whole, self._store.find(whole["reply_key"])
        else:
            yield from zip(wanted, self._store.find_parts(wanted.index), strict=True)

    def __len__(self) -> int:
        """Candidates gone through."""
        return self._kept.total()

    @property
    def entries(self) -> list[LedgerEntry]:
        """The ledger, by context; the rows that had no reply by reason."""
        return [
            entry("sample", name, rows_in=rows_in, kept=self._kept[name], drops=self._lost.get(name, []))
            for name, rows_in in self._plan.wanted.counts.items()
        ]


@dataclass
class SampleOutcome:
    """What came of sampling."""

    candidates: "pl.DataFrame"
    """All of them; in a build without their texts, see `without_texts`."""
    entries: list[LedgerEntry]
    bought: int
    """Completions that the policy gave in this build."""
    failed: int


def plan(
    tasks: Sequence[Task],
    pools: Sequence[Pool],
    *,
    sampling: SamplingParams,
    seed: int,
    identity: Any,
    store: ReplyStore,
    how: RenderOptions = PLAIN,
) -> Plan:
    """Lists every completion wanted under its content key (see `pipeline.sample_plan`) and looks all of them up."""
    import polars as pl

    drawn = content_hash([identity, sampling.temperature, sampling.top_p, sampling.max_tokens])
    wanted = SamplePlan(tasks, pools, drawn=drawn, seed=seed, how=how)
    # Where nothing was ever stored nothing is asked: a first question to Polars takes memory.
    there = pl.repeat(False, len(wanted), eager=True) if store.is_empty else store.which(wanted.index)
    return Plan(wanted, MissingRequests(wanted, there, tasks=tasks, pools=pools, sampling=sampling, how=how))


def collect(plan: Plan, *, store: ReplyStore, failures: Mapping[str, str], bought: int) -> SampleOutcome:
    """The candidates: every wanted completion that the store holds now; the others are in the ledger by reason."""
    import polars as pl

    collected = Collected(plan, store=store, failures=failures)
    candidates = pl.concat(collected)
    return SampleOutcome(candidates, collected.entries, bought, len(failures))


def cost_usd(replies: "pl.DataFrame", price: Price, *, factor: float = 1.0) -> float:
    """What stored replies cost at a price, from their token counts. A reply that candidates share counts once."""
    import polars as pl

    key = "reply_key" if "reply_key" in replies.columns else "key"
    cached = pl.col("cached_tokens") if "cached_tokens" in replies.columns else _cached_tokens()
    sums = replies.unique(key).select(pl.col("prompt_tokens").sum(), pl.col("completion_tokens").sum(), cached=cached.sum())
    prompt, completion, cached_tokens = sums.row(0)
    return factor * price.usd(prompt=prompt, completion=completion, cached=cached_tokens)


def stored_cost_usd(plan: Plan, store: ReplyStore, price: Price, *, factor: float = 1.0) -> float:
    """As `cost_usd`, of the replies of a plan that are stored by now; no text is read."""
    found = store.look_up(plan.wanted.index, columns=["key", "prompt_tokens", "completion_tokens", "details"])
    return cost_usd(found.with_columns(cached_tokens=_cached_tokens()), price, factor=factor)


def without_texts(path: Path, count: int) -> "pl.DataFrame":
    """The first rows of a table of candidates, with `place`, their number in it, and `cached_tokens` out of their details."""
    import polars as pl

    rows = pl.scan_parquet(path).with_row_index("place").with_columns(cached_tokens=_cached_tokens()).head(count)
    return rows.drop("completion", "reasoning", "details").collect()


def _cached_tokens() -> "pl.Expr":
    import polars as pl

    return pl.col("details").str.json_path_match("$.cached_tokens").cast(pl.Int64, strict=False)


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
