"""The pacer against servers that are simulated in virtual time: a run of ten seconds takes a few milliseconds."""

import heapq
import itertools
import math
import random
import statistics
from dataclasses import dataclass, field, replace

import pytest

from recontext_data.policies.openai.pacing import START, Bucket, OutcomeWindow, Pacer


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


class Changing:
    """A limiter that becomes another one after five seconds."""

    def __init__(self, first: Limiter, then: Limiter) -> None:
        self._first, self._then = first, then
        then.level = 0.0

    def wait(self, now: float) -> float:
        return (self._first if now < 5.0 else self._then).wait(now)


@dataclass
class Outcome:
    seconds: float
    refused: int
    most_at_once: int


@dataclass(kw_only=True)
class Wire:
    """How long things take, in seconds."""

    latency: float
    """Of an answer, give or take a fifth."""
    refusal: float = 0.002
    """Of a refusal, give or take a half."""
    connect: float = 0.0
    """At most, for each of the first requests, by chance."""
    jitter: float = 0.0
    """At most, for each of the others."""


def run(pacer: Pacer, limiter: Limiter | Changing | None, *, num: int, wire: Wire, max_concurrency: int = 256) -> Outcome:
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
            under_way = random.uniform(0.0, wire.connect if now < 0.01 else wire.jitter)
            heapq.heappush(events, (now + under_way, next(order), "arrival", now))
        now, _, what, sent_at = heapq.heappop(events)
        if what == "arrival":
            missing = 0.0 if limiter is None else limiter.wait(now)
            takes = wire.refusal * random.uniform(0.5, 1.5) if missing > 0 else wire.latency * random.uniform(0.8, 1.2)
            heapq.heappush(events, (now + takes, next(order), f"429 {math.ceil(missing)}" if missing > 0 else "200", sent_at))
        elif what == "200":
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
        outcomes.append(run(Pacer(max_concurrency=256), Limiter(60, burst, window), num=600, wire=Wire(latency=latency)))
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
        seconds.append(run(Pacer(max_concurrency=256), limiter, num=600, wire=Wire(latency=0.05)).seconds)
    assert min(seconds) >= 8.0, "the limiter is one: sixty at once, and eight whole seconds at least until the tenth sixty"
    assert max(seconds) <= 1.1 * 600 / 60


@pytest.mark.parametrize("refusal", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("connect", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("jitter", [0.0, 0.005])
def test_whole_seconds_cost_a_tenth_however_long_refusals_and_connections_take(
    refusal: float, connect: float, jitter: float
) -> None:
    # Found on a real wire: refusals of the first second were taken for the rate, and it fell to a tenth.
    seconds, refused = [], []
    for phase in range(40):
        random.seed(phase)
        limiter = Limiter(60, 60, window=True, phase=phase / 40)
        wire = Wire(latency=0.05, refusal=refusal, connect=connect, jitter=jitter)
        outcome = run(Pacer(max_concurrency=256), limiter, num=600, wire=wire)
        seconds.append(outcome.seconds)
        refused.append(outcome.refused)
    seconds.sort()
    # Asked first when a second has just begun, the tenth sixty come after nine more; who is refused then waits for one.
    assert seconds[35] <= 11.0
    assert seconds[-1] <= 11.2
    assert statistics.median(refused) < 120
    assert max(refused) < 800  # a rate that looked well within one second is tried for one more


def after_a_burst(*, let_in: int, refused: int, at: float, wait: float) -> Pacer:
    """A pacer that has sent so many requests at second 0 and is told of the refusals at `at`."""
    pacer = Pacer(max_concurrency=256)
    for _ in range(let_in + refused):
        pacer.sent(0.0)
    for _ in range(refused):
        pacer.limited(at, sent_at=0.0, wait=wait)
    return pacer


def test_slow_refusals_do_not_lower_a_guess_again_and_again() -> None:
    pacer = after_a_burst(let_in=60, refused=10, at=0.1, wait=1.0)
    first = pacer.rate
    assert first == pytest.approx(60 / 1.1)
    for i in range(20):  # each is sent before the one before it is known to be refused
        pacer.sent(0.15 + i / 50)
        pacer.limited(0.15 + i / 50 + 0.03, sent_at=0.15 + i / 50, wait=1.0)
    assert pacer.rate == first


def tally_of(limiter: Limiter, *, rate: float, begin: float, end: float) -> OutcomeWindow:
    tally = OutcomeWindow()
    for i in range(int((end - begin) * rate)):
        now = begin + i / rate
        tally.sent(now)
        if limiter.wait(now) > 0:
            tally.refused(now)
    return tally


@pytest.mark.parametrize("asked", [75.0, 90.0, 240.0])
@pytest.mark.parametrize("limiter", [Limiter(60, 5), Limiter(60, 20), Limiter(60, 60, window=True, phase=0.3)])
def test_the_tally_tells_the_rate_whatever_a_server_counts_by(limiter: Limiter, asked: float) -> None:
    limiter = replace(limiter)
    tally = tally_of(limiter, rate=asked, begin=10.0, end=14.0)
    assert tally.rate(14.0) == pytest.approx(60.0, rel=0.03)


def test_the_tally_tells_nothing_without_refusals_and_forgets() -> None:
    tally = OutcomeWindow()
    for i in range(400):
        tally.sent(10.0 + i / 100)
    assert tally.rate(14.0) is None
    tally = tally_of(Limiter(60, 5), rate=90.0, begin=10.0, end=14.0)
    assert tally.rate(14.0) is not None
    tally.sent(18.5)
    assert tally.rate(19.0) is None
    tally.refused(11.0)  # too old to be counted: no other bin is touched
    assert tally.rate(19.0) is None


@pytest.mark.parametrize("rate", [20, 300])
def test_the_rate_is_found_wherever_it_is(rate: int) -> None:
    pacer = Pacer(max_concurrency=256)
    outcome = run(pacer, Limiter(rate, max(1, rate / 10)), num=30 * rate, wire=Wire(latency=0.1))
    assert outcome.seconds < 1.15 * 30
    assert pacer.rate == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize(("before", "after", "most"), [(60, 20, 17.0), (200, 20, 20.0), (20, 60, 20.0), (20, 200, 24.0)])
def test_a_rate_that_changes_is_found_again(window: bool, before: int, after: int, most: float) -> None:
    for phase in range(20):
        random.seed(phase)
        limiters = [Limiter(rate, max(5, rate / 6), window, phase / 20) for rate in (before, after)]
        wire = Wire(latency=0.1, refusal=0.01, jitter=0.005)
        outcome = run(Pacer(max_concurrency=256), Changing(*limiters), num=5 * before + 10 * after, wire=wire)
        assert outcome.seconds < most  # of fifteen, if the new rate were known at once
        assert outcome.refused < 5 * before + 10 * after


def test_without_complaints_all_slots_are_used() -> None:
    outcome = run(Pacer(max_concurrency=256), None, num=5000, wire=Wire(latency=0.05))
    assert outcome.most_at_once == 256
    assert outcome.seconds < 1.25 * 5000 / 256 * 0.05


def test_a_declared_rate_is_kept_without_a_refusal() -> None:
    outcome = run(Pacer(max_concurrency=64, rpm=600), Limiter(10, 11), num=100, wire=Wire(latency=0.05))
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
    pacer = after_a_burst(let_in=0, refused=40, at=0.01, wait=20.0)
    now, looks = 0.01, 0
    while (now := now + pacer.wait(now)) < 20.0:
        pacer.sent(now)
        pacer.limited(now, sent_at=now, wait=20.0)
        looks += 1
    assert 5 <= looks < 20  # a few before it is held to be shut, and ten after


def test_an_open_door_is_noticed_before_the_wish_is_over() -> None:
    pacer = after_a_burst(let_in=10, refused=30, at=0.01, wait=20.0)
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
