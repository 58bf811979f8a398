"""The budget: spending stops there, what is in flight is kept, and a raised budget goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core.budget import Budget
from recontext_data.core.errors import BuildStopped
from recontext_data.core.prices import Price
from recontext_data.core.records import Messages, Reply, Request, SamplingParams
from recontext_data.pipeline.purchase import buy
from recontext_data.pipeline.sample import cost_usd
from recontext_data.policies.base import Policy
from recontext_data.policies.openai.chat import OpenAIConfig
from recontext_data.store.replies import ReplyStore
from tests.fault_server import Faults, FaultServer

PRICE = Price(input=1_000_000, output=0)  # one dollar a prompt token


class Nobody:
    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        pass


class Till(Nobody):
    def __init__(self) -> None:
        self.usd = 0.0

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        self.usd += usd


class InFlight:
    """A policy that keeps so many requests in flight, as a server's client does; one prompt token each."""

    description = "in flight"
    identity: Mapping[str, Any] = {"kind": "test"}

    def __init__(self, width: int, *, error: str | None = None) -> None:
        self.width, self.error, self.asked = width, error, 0

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        source, flying = iter(requests), list[Request]()
        while True:
            while len(flying) < self.width and (request := next(source, None)) is not None:
                self.asked += 1
                flying.append(request)
            if not flying:
                return
            await asyncio.sleep(0.03)  # longer than the pause between syncs: each answer is counted before the next
            request = flying.pop(0)
            for place, key in enumerate(request.keys):
                text = None if self.error else "x"
                yield Reply(key=key, completion=text, error=self.error, prompt_tokens=1 if place == 0 else None)

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        return 1

    async def close(self) -> None:
        pass


def requests(count: int, *, n: int = 1) -> list[Request]:
    return [
        Request(
            messages=[{"role": "user", "content": str(i)}],
            sampling=SamplingParams(),
            ks=tuple(range(n)),
            seeds=tuple(range(n)),
            keys=tuple(f"{i} {k}" for k in range(n)),
        )
        for i in range(count)
    ]


def spend(
    tmp_path: Path,
    policy: Policy,
    purse: Budget,
    asked: list[Request],
    *,
    max_failures: int = 0,
    kind: type[ReplyStore] = ReplyStore,
) -> None:
    async def bought() -> None:
        try:
            await buy(asked, policy=policy, store=store, tracker=Nobody(), max_failures=max_failures, purse=purse)
        finally:
            await policy.close()

    with kind(tmp_path) as store:
        asyncio.run(bought())


def stored(tmp_path: Path, asked: list[Request]) -> pl.DataFrame:
    return ReplyStore(tmp_path).find(pl.Series([key for request in asked for key in request.keys]))


def test_the_budget_is_exceeded_by_no_more_than_what_is_in_flight(tmp_path: Path) -> None:
    asked, purse, policy = requests(40), Budget(price=PRICE, budget_usd=10), InFlight(width=4)
    with pytest.raises(BuildStopped, match=r"limits\.budget_usd: 1[0-4]\.0000 of 10"):
        spend(tmp_path, policy, purse, asked)
    assert 10 <= purse.spent_usd <= 10 + 4
    assert len(stored(tmp_path, asked)) == policy.asked == purse.spent_usd  # nothing that was paid for is lost
    assert purse.unsent_count == 40 - policy.asked


@pytest.mark.parametrize(("n", "manner"), [(1, "honoured"), (4, "honoured"), (16, "ignored"), (4, "refused")])
def test_a_server_is_sent_no_more_than_the_budget_and_what_may_be_under_way(n: int, manner: Any, tmp_path: Path) -> None:
    """Ten prompt tokens a request, a dollar each: a budget of 200 pays for 20, and 8 may be under way."""
    asked, purse = requests(60, n=n), Budget(price=PRICE, budget_usd=200)
    with FaultServer(Faults(latency_seconds=0.02, n=manner)) as server:
        policy = OpenAIConfig(model="m", base_url=server.base_url, api_key_env="", max_concurrency=8).build()
        with pytest.raises(BuildStopped, match=r"limits\.budget_usd: \d+\.0000 of 200"):
            spend(tmp_path, policy, purse, asked)
        assert server.most_at_once <= 8
        refused = server.statuses[400]
        assert 20 <= len(server.seen) - refused < 20 + 8
        assert purse.spent_usd == 10 * (len(server.seen) - refused)
    there = stored(tmp_path, asked)
    assert len(there) == (len(server.seen) - refused) * (n if manner == "honoured" else 1), "nothing paid for is lost"
    assert purse.unsent_count == 60 * n - len(there)


def test_a_slow_disk_holds_up_what_is_sent_and_not_what_is_kept(tmp_path: Path) -> None:
    """Each sync takes ten answers' time. Of what was sent and is not synced there are never more than may be under way."""
    at_stake = []

    class SlowStore(ReplyStore):
        def append_together(self, groups: Any, **how: Any) -> None:
            time.sleep(0.05)
            at_stake.append(len(server.seen) - len(stored(tmp_path, asked)))
            super().append_together(groups, **how)

    asked = requests(60)
    with FaultServer(Faults(latency_seconds=0.005)) as server:
        policy = OpenAIConfig(model="m", base_url=server.base_url, api_key_env="", max_concurrency=8).build()
        spend(tmp_path, policy, Budget(), asked, kind=SlowStore)
        assert len(server.seen) == len(stored(tmp_path, asked)) == 60
    assert max(at_stake) <= 8


def test_a_raised_budget_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked = requests(20)
    with pytest.raises(BuildStopped):
        spend(tmp_path, InFlight(width=2), Budget(price=PRICE, budget_usd=5), asked)
    there = set(stored(tmp_path, asked)["key"])
    rest = [request for request in asked if request.keys[0] not in there]
    already = cost_usd(stored(tmp_path, asked), PRICE)
    assert already == len(there)
    policy = InFlight(width=2)
    spend(tmp_path, policy, Budget(price=PRICE, budget_usd=50, spent_usd=already), rest)
    assert policy.asked == 20 - len(there)
    assert len(stored(tmp_path, asked)) == 20


def test_a_spent_budget_sends_nothing(tmp_path: Path) -> None:
    policy = InFlight(width=2)
    with pytest.raises(BuildStopped, match="3 completions are still to be sampled"):
        spend(tmp_path, policy, Budget(price=PRICE, budget_usd=5, spent_usd=5), requests(3))
    assert policy.asked == 0


def test_without_a_price_nothing_is_counted(tmp_path: Path) -> None:
    purse = Budget()
    spend(tmp_path, InFlight(width=2), purse, requests(3))
    assert purse.spent_usd == 0


def test_the_batch_api_is_half_price_and_a_prompt_is_billed_once(tmp_path: Path) -> None:
    purse, till = Budget(price=PRICE, factor=0.5), Till()
    with ReplyStore(tmp_path) as store:
        asyncio.run(buy(requests(3, n=4), policy=InFlight(width=2), store=store, tracker=till, max_failures=0, purse=purse))
    assert purse.spent_usd == till.usd == 1.5


def test_too_many_failures_stop_the_asking(tmp_path: Path) -> None:
    policy = InFlight(width=3, error="no such luck")
    with pytest.raises(BuildStopped, match="no such luck"):
        spend(tmp_path, policy, Budget(), requests(50), max_failures=2)
    assert policy.asked <= 3 + 3
