"""Buys the replies of judges that ask a model, and has them read. Paid once, as completions are, and counted apart.

A question's key is the hash of the judge's prompt, its model's identity, the sampling, the seed and the rank k, as that of a
completion: nothing of the judge's name, the row's place or the context is in it. Rank 0 is asked first; a reply that cannot
be read is asked for again with the next rank, up to the judge's `retries`, and every rank is kept and found again.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from recontext_data.core.budget import Budget, Charge, PaidByToken, charge_of
from recontext_data.core.errors import BuildStopped
from recontext_data.core.prices import Price
from recontext_data.core.records import Candidate, Judgement, Messages, Reply, Request, content_hash, derive_seed
from recontext_data.judges.base import Asker, Comparer, Paid
from recontext_data.pipeline import sample
from recontext_data.pipeline.judge_models import Account, asks
from recontext_data.pipeline.judge_questions import JudgeQuestion, heard, put, question, stored
from recontext_data.pipeline.purchase import ProgressSink, buy
from recontext_data.policies.base import Policy
from recontext_data.policies.openai.batch import OpenAIBatchConfig
from recontext_data.policies.openai.http import read_key
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.config.recipe import Limits

RETRY_TEMPERATURE = 0.7
"""Least temperature of a question that is asked again: a greedy model would say the same once more."""


class JudgeReplies(Protocol):
    """Somebody who asks on a judge's behalf."""

    def judge(self, one: Asker, batches: Iterator[list[Candidate]], *, total: int) -> Iterator[list[Judgement]]:
        """The judgements of each batch, one per candidate, in order; `total` candidates in all."""
        ...

    def compare(self, one: Comparer, batches: Iterator[list[list[Candidate]]], *, total: int) -> Iterator[list[Judgement]]:
        """The same for judges that compare; a batch is a list of groups of answers to one task under one context."""
        ...


class Screens(Protocol):
    """What of the screen is used here."""

    def stage(self, name: str, total: int | None, *, unit: str) -> AbstractContextManager[ProgressSink]:
        """A tracker for one piece of work."""
        ...

    def note(self, text: str) -> None:
        """Something to know."""
        ...

    def warn(self, text: str) -> None:
        """Something to look at."""
        ...


class JudgeClient:
    """Asks through the reply store: what is there is not bought again, and what is bought is there before it counts."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        store: ReplyStore,
        limits: "Limits",
        prices: Mapping[str, Price],
        screen: Screens | None = None,
    ) -> None:
        """Without a `screen` nothing can be bought: for a forecast."""
        self.accounts = {name: Account() for name in policies}
        self.spent_usd = 0.0
        """By this run so far, completions included: the pipeline sets it when they are sampled."""
        self._policies = policies
        self._store = store
        self._screen = screen
        self._limits = limits
        self._prices = prices
        self._counted: set[str] = set()
        """Keys whose cost is in `spent_usd`."""

    def judge(self, one: Asker, batches: Iterator[list[Candidate]], *, total: int) -> Iterator[list[Judgement]]:
        """See `JudgeReplies`.

        Raises:
            BuildStopped: too many questions failed, or the budget is spent; what came is kept.
        """
        with _Session(self, one, total) as session:
            for batch in _whole(one, batches):
                replies = session.replies([question(one, candidate) for candidate in batch])
                yield [heard(one, candidate, reply) for candidate, reply in zip(batch, replies, strict=True)]

    def compare(self, one: Comparer, batches: Iterator[list[list[Candidate]]], *, total: int) -> Iterator[list[Judgement]]:
        """See `JudgeReplies`; raises as `judge`."""
        with _Session(self, one, total, counts=False) as session:
            for groups in _whole(one, batches):
                matches = [one.matches(group) for group in groups]
                replies = iter(session.replies([put(one, match) for each in matches for match in each]))
                yield [
                    word
                    for group, each in zip(groups, matches, strict=True)
                    for word in one.tally(group, [(match, next(replies)) for match in each])
                ]

    def charge(self, one: Paid) -> Charge:
        """What the tokens of a judge's model cost.

        Raises:
            RecipeError: there is a budget and the price is not known.
        """
        cost = charge_of(one.policy, self._prices)
        cost.require_price(self._limits.budget_usd, role=f", which judges {one.name}")
        return cost

    def require_ready(self, judges: Sequence[Any]) -> None:
        """What would stop the asking is said before anything is bought: a missing key, a missing price.

        Raises:
            PolicyError, RecipeError: what is missing.
        """
        for one in judges:
            if asks(one):
                self.charge(one)
                if isinstance(one.policy, PaidByToken):
                    read_key(one.policy.api_key_env)

    def ask(self, one: Paid, questions: Sequence[JudgeQuestion], *, session: "_Session | None" = None) -> list[Reply | None]:
        """The reply to each question: the first rank that settles it, else the last. A failed one has an error.

        Without a session nothing is bought, and a reply that is not there is None.
        """
        heard: list[Reply | None] = [None] * len(questions)
        waiting = list(range(len(questions)))
        for k in range(one.retries + 1):
            requests = [self._request(one, questions[place].messages, k) for place in waiting]
            found = self.found(one, requests)
            if session is not None:
                found |= session.bought(requests, found, rank=k)
            for place, request in zip(waiting, requests, strict=True):
                heard[place] = found.get(request.keys[0])
            waiting = [place for place in waiting if _is_open(questions[place], heard[place])]
            if not waiting:
                break
        return heard

    def _request(self, one: Paid, messages: Messages, k: int) -> Request:
        sampling = one.sampling.plain
        if k:
            sampling = replace(sampling, temperature=max(sampling.temperature, RETRY_TEMPERATURE))
        prompt = content_hash(messages)
        identity = dict(self._policies[one.name].identity)
        how = content_hash([identity, sampling.temperature, sampling.top_p, sampling.max_tokens])
        seed = derive_seed(0, prompt, k)
        key = content_hash([prompt, how, seed, k])
        return Request(messages=messages, sampling=sampling, ks=(k,), seeds=(seed,), keys=(key,), tag=one.name)

    def found(self, one: Paid, requests: Sequence[Request]) -> dict[str, Reply]:
        """What the store holds of these, by key."""
        import polars as pl

        rows = self._store.find(pl.Series([request.keys[0] for request in requests], dtype=pl.String))
        self._count(one, rows)
        return {row["key"]: stored(row) for row in rows.iter_rows(named=True)}

    def _count(self, one: Paid, rows: "pl.DataFrame") -> None:
        """Tokens and cost of stored replies, each counted once."""
        account = self.accounts[one.name]
        new = rows.filter([key not in account.seen for key in rows["key"]])
        account.seen.update(new["key"])
        account.wanted += len(new)
        account.prompt_tokens += int(new["prompt_tokens"].sum())
        account.completion_tokens += int(new["completion_tokens"].sum())
        cost = self.charge(one)
        if cost.price is not None:
            account.usd = (account.usd or 0.0) + sample.cost_usd(new, cost.price, factor=cost.factor)
            fresh = new.filter([key not in self._counted for key in new["key"]])
            self.spent_usd += sample.cost_usd(fresh, cost.price, factor=cost.factor)
            self._counted.update(fresh["key"])

    def spend(self, one: Paid, requests: Sequence[Request], *, how: "_Buying") -> dict[str, str]:
        """Buys; key -> error of those that failed. The purse and the account know of it afterwards."""
        cost = self.charge(one)
        purse = Budget(price=cost.price, factor=cost.factor, budget_usd=self._limits.budget_usd, spent_usd=self.spent_usd)
        account = self.accounts[one.name]
        self._require_affordable(one, requests, purse)
        try:
            failed = how.runner.run(
                buy(
                    requests,
                    policy=self._policies[one.name],
                    store=self._store,
                    tracker=how.tracker,
                    max_failures=how.max_failures - len(account.failures),
                    purse=purse,
                )
            )
        except BuildStopped as error:
            raise BuildStopped(f"judge {one.name}: {error}") from None
        account.failures |= failed
        account.wanted += len(failed)
        account.sampled += len(requests) - len(failed)
        return failed

    def _require_affordable(self, one: Paid, requests: Sequence[Request], purse: Budget) -> None:
        if purse.price is not None and isinstance(one.policy, PaidByToken) and not one.policy.stops_in_time:
            prompt, _ = sample.token_counts(requests, self._policies[one.name])
            fix = "use policy.kind=openai for the judge, which stops in time"
            completion, batch = len(requests) * one.sampling.max_tokens, f"this batch of judge {one.name}"
            purse.require_affordable(prompt=prompt, completion=completion, batch=batch, fix=fix)

    def limit(self, total: int) -> int:
        """Questions that may fail, of so many."""
        return int(self._limits.max_failure_rate * total)

    def policy(self, one: Paid) -> Policy:
        """The model of a judge."""
        return self._policies[one.name]

    def stage(self, one: Paid, total: int | None) -> AbstractContextManager[ProgressSink]:
        """A tracker on the screen."""
        policy = self._policies[one.name]
        assert self._screen is not None, "a counsel without a screen looks up and buys nothing"
        self._screen.note(f"judge {one.name}: {policy.description}")
        if hasattr(policy, "on_progress"):
            policy.on_progress = self._screen.note
        return self._screen.stage(f"judge {one.name}", total, unit="questions")


@dataclass(frozen=True)
class _Buying:
    runner: "asyncio.Runner"
    tracker: ProgressSink
    max_failures: int


class _Again:
    """The tracker of questions that are asked again: they were counted once, and cost once more."""

    def __init__(self, tracker: ProgressSink) -> None:
        self._tracker = tracker

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        self._tracker.advance(0, failed=failed, usd=usd)


class _Session:
    """One judge's asking: one event loop for all its batches, and a tracker from the first question that is bought."""

    def __init__(self, counsel: JudgeClient, one: Paid, total: int, *, counts: bool = True) -> None:
        """`counts`: there are as many questions as candidates, so that the tracker can say how many are left."""
        self._counsel, self._one, self._total, self._counts = counsel, one, total, counts
        self._stack = ExitStack()
        self._buying: _Buying | None = None
        self._done = 0

    def __enter__(self) -> "_Session":
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if self._buying is not None:
                self._buying.runner.run(self._counsel.policy(self._one).close())
        finally:
            self._stack.__exit__(*error)

    def replies(self, questions: Sequence[JudgeQuestion]) -> list[Reply]:
        """A reply per question; one that failed has an error."""
        heard = self._counsel.ask(self._one, questions, session=self)
        return [reply for reply in heard if reply is not None]

    def bought(self, requests: Sequence[Request], found: Mapping[str, Reply], *, rank: int) -> dict[str, Reply]:
        """Buys what is missing and returns it, as it is stored; errors where it failed."""
        missing = {request.keys[0]: request for request in requests if request.keys[0] not in found}
        known = self._counsel.accounts[self._one.name].failures
        failed = {key: known[key] for key in missing if key in known}  # the same question in an earlier batch
        wanted = [request for key, request in missing.items() if key not in failed]
        there: dict[str, Reply] = {}
        if wanted:
            buying = self._open()
            again = replace(buying, tracker=_Again(buying.tracker)) if rank else buying
            failed |= self._counsel.spend(self._one, wanted, how=again)
            there = self._counsel.found(self._one, wanted)
        if rank == 0:
            self._settle(len(requests) - len(wanted))
        lost = {key: failed.get(key, "no reply") for key in missing if key not in there}
        return there | {key: Reply(key=key, completion=None, error=words) for key, words in lost.items()}

    def _settle(self, count: int) -> None:
        """Questions that needed no buying are done too; the tracker hears of them when there is one."""
        self._done += count
        if self._buying is not None:
            self._buying.tracker.advance(self._done)
            self._done = 0

    def _open(self) -> _Buying:
        if self._buying is None:
            total = self._total if self._counts else None
            tracker = self._stack.enter_context(self._counsel.stage(self._one, total))
            runner = self._stack.enter_context(asyncio.Runner())
            self._buying = _Buying(runner, tracker, self._counsel.limit(self._total))
        return self._buying


def _is_open(question: JudgeQuestion, reply: Reply | None) -> bool:
    """Whether to ask again: it was answered, and not readably."""
    return reply is not None and reply.completion is not None and not question.is_settled(reply)


def _whole(one: Paid, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """The batches; all as one for the Batch API, which answers after hours."""
    return iter([list(chain.from_iterable(batches))]) if isinstance(one.policy, OpenAIBatchConfig) else batches
