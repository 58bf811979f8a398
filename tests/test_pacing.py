"""The pacer against servers that are simulated in virtual time: a run of ten seconds takes a few milliseconds."""

import heapq
import itertools
import math
import random
import statistics
from dataclasses import dataclass, field

import pytest

from recontext_data.policies.pacing import START, Bucket, Pacer, Tally


@dataclass
class Limiter:
    """A server's rate limit: a bucket that fills steadily, or a count per whole second."""

    rate: float
    burst: float
    window: bool = False
    phase: float = 0.0
    """Of a second that has passed when the first request comes."""
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.rate if self.window else self.burst

    def wait(self, now: float) -> float:
        now += self.phase
        if self.window:
            if int(now) > int(self.at):
                self.level = self.rate
            missing = 1 - now % 1
        else:
            self.level = min(self.burst, self.level + self.rate * (now - self.at))
            missing = (1 - self.level) / self.rate
        self.at = now
        if self.level < 1:
            return missing
        self.level -= 1
        return 0.0


@dataclass
class Outcome:
    seconds: float
    refused: int
    most_at_once: int


def run(pacer: Pacer, limiter: Limiter | None, *, num: int, latency: float, max_concurrency: int = 256) -> Outcome:
    """Sends `num` requests as the policy does: who is refused waits for as long as is wished, in whole seconds."""
    order = itertools.count()
    events: list[tuple[float, int, str, float]] = []  # (when, tie, what, sent at)
    now, fresh, flying, parked, done, refused, most = 0.0, num, 0, 0, 0, 0, 0
    ready, ring = 0, math.inf
    while done < num:
        while (fresh or ready) and flying < pacer.limit and (ready or flying + parked < max_concurrency):
            wait = pacer.wait(now)
            if wait > 0:
                if now + wait < ring:
                    ring = now + wait
                    heapq.heappush(events, (ring, next(order), "ring", 0.0))
                break
            ready, fresh = (ready - 1, fresh) if ready else (0, fresh - 1)
            pacer.sent(now)
            flying += 1
            most = max(most, flying)
            missing = 0.0 if limiter is None else limiter.wait(now)
            if missing > 0:
                heapq.heappush(events, (now + 0.002, next(order), f"429 {math.ceil(missing)}", now))
            else:
                heapq.heappush(events, (now + latency * random.uniform(0.8, 1.2), next(order), "200", now))
        now, _, what, sent_at = heapq.heappop(events)
        if what == "200":
            flying, done = flying - 1, done + 1
            pacer.admitted(now, sent_at=sent_at)
        elif what == "wake":
            parked, ready = parked - 1, ready + 1
        elif what == "ring":
            ring = math.inf if now >= ring else ring
        else:
            flying, parked, refused = flying - 1, parked + 1, refused + 1
            wish = float(what.split()[1])
            pacer.limited(now, sent_at=sent_at, wait=wish)
            heapq.heappush(events, (now + wish, next(order), "wake", 0.0))
    return Outcome(now, refused, most)


@pytest.mark.parametrize("latency", [0.02, 0.1, 0.5])
@pytest.mark.parametrize(("burst", "window"), [(5, False), (10, False), (60, False), (60, True)])
def test_600_requests_at_60_per_second_take_ten_seconds(burst: int, window: bool, latency: float) -> None:
    outcomes = []
    for seed in range(5):  # of the latency, which alone is random
        random.seed(seed)
        outcomes.append(run(Pacer(max_concurrency=256), Limiter(60, burst, window), num=600, latency=latency))
    seconds = [outcome.seconds for outcome in outcomes]
    # Fewer than ten seconds where the server lets a burst pass; a late refusal costs up to the whole second that is wished.
    assert 600 / 60 - burst / 60 <= statistics.median(seconds) <= 1.1 * 600 / 60 + (latency if latency > 0.1 else 0.0)
    assert max(seconds) < 1.2 * 600 / 60
    assert max(outcome.refused for outcome in outcomes) < 300


def test_a_server_that_counts_by_whole_seconds_costs_a_tenth_at_most_whenever_in_a_second_it_is_asked_first() -> None:
    seconds = []
    for phase in range(40):
        random.seed(phase)
        limiter = Limiter(60, 60, window=True, phase=phase / 40)
        seconds.append(run(Pacer(max_concurrency=256), limiter, num=600, latency=0.05).seconds)
    assert min(seconds) >= 8.0, "the limiter is one: sixty at once, and eight whole seconds at least until the tenth sixty"
    assert max(seconds) <= 1.1 * 600 / 60


def test_the_tally_counts_a_second_back_and_forgets() -> None:
    tally = Tally()
    for i in range(100):
        tally.sent(10.0 + i / 100)
    assert (tally.within(10.999), tally.within(11.499), tally.within(12.5)) == (100, 50, 0)
    for i in range(10):
        tally.refused(10.9 + i / 100)
    assert (tally.within(10.999), tally.within(11.499)) == (90, 40)
    tally.sent(60.0)
    tally.refused(10.5)  # too long ago to be counted
    assert tally.within(60.0) == 1


@pytest.mark.parametrize("rate", [20, 300])
def test_the_rate_is_found_wherever_it_is(rate: int) -> None:
    pacer = Pacer(max_concurrency=256)
    outcome = run(pacer, Limiter(rate, max(1, rate / 10)), num=30 * rate, latency=0.1)
    assert outcome.seconds < 1.15 * 30
    assert pacer.rate == pytest.approx(rate, rel=0.15)


def test_without_complaints_all_slots_are_used() -> None:
    outcome = run(Pacer(max_concurrency=256), None, num=5000, latency=0.05)
    assert outcome.most_at_once == 256
    assert outcome.seconds < 1.25 * 5000 / 256 * 0.05


def test_a_declared_rate_is_kept_without_a_refusal() -> None:
    outcome = run(Pacer(max_concurrency=64, rpm=600), Limiter(10, 11), num=100, latency=0.05)
    assert outcome.refused == 0
    assert 9.0 <= outcome.seconds < 10.5


def test_tokens_per_minute_are_kept_and_put_right() -> None:
    pacer = Pacer(max_concurrency=64, tpm=6000)  # 100 per second, of which one second may be used at once
    pacer.sent(0.0, tokens=300.0)
    assert pacer.wait(0.0) == pytest.approx(2.01)
    pacer.refund(250.0)  # it cost 50
    assert pacer.wait(0.0) == 0.0
    pacer.sent(0.0, tokens=50.0)
    assert pacer.wait(0.5) == 0.0


def test_a_strained_server_gets_half_once_per_round_trip() -> None:
    pacer = Pacer(max_concurrency=256)
    assert pacer.limit == START
    for _ in range(10):
        pacer.strained(1.0, sent_at=0.0)  # ten failures of one moment
    assert pacer.limit == START / 2
    pacer.strained(2.0, sent_at=1.5)
    assert pacer.limit == START / 4
    before = pacer.limit
    for _ in range(int(before)):
        pacer.admitted(3.0, sent_at=2.5)
    assert before + 0.9 < pacer.limit <= before + 1.0  # one more per round of answers
    for moment in range(4, 40):
        pacer.strained(moment, sent_at=moment - 0.5)
    assert pacer.limit == 1.0


def test_a_shut_door_is_looked_at_and_not_run_into() -> None:
    pacer = Pacer(max_concurrency=64)
    for _ in range(40):
        pacer.sent(0.0)
    for _ in range(40):
        pacer.limited(0.01, sent_at=0.0, wait=20.0)
    now, looks = 0.01, 0
    while (now := now + pacer.wait(now)) < 20.0:
        pacer.sent(now)
        pacer.limited(now, sent_at=now, wait=20.0)
        looks += 1
    assert 5 <= looks < 20  # a few before it is held to be shut, and ten after


def test_an_open_door_is_noticed_before_the_wish_is_over() -> None:
    pacer = Pacer(max_concurrency=64)
    for _ in range(40):
        pacer.sent(0.0)
    for _ in range(30):
        pacer.limited(0.01, sent_at=0.0, wait=20.0)
    look = 0.01 + pacer.wait(0.01)
    assert look < 2.5
    pacer.sent(look)
    pacer.admitted(look + 0.1, sent_at=look)
    assert pacer.wait(look + 0.1) < 1.5


def test_a_bucket_may_be_overdrawn_and_never_saves_more_than_its_room() -> None:
    bucket = Bucket(rate=2.0, room=4.0, level=4.0)
    bucket.level -= 10.0
    assert bucket.wait(1.0, 1.0) == pytest.approx(2.5)
    assert bucket.wait(100.0, 4.0) == 0.0
    assert bucket.level == 4.0
