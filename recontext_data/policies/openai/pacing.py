"""How fast a server is asked: a limit on requests under way, and on requests and tokens per time, both learned from it.

Nobody says beforehand what a server bears, so `Pacer` finds out. Requests under way: up by one per answer until the first
complaint, halved by a complaint, then up by one per round of answers. Requests per second: unlimited until the first
status 429; from then on a rate, measured by what the server let in (`OutcomeWindow.rate`, else the share of a round's requests)
and raised while it complains about none. Pure: time is an argument (seconds of any steady clock), nothing sleeps, nothing is
sent.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

START = 64
"""Requests under way at first."""
PROBES = 20
"""Requests per wished wait, when the server's first complaint came too soon to measure a rate: few enough not to annoy."""
PROBE_LIMIT = 10
"""Requests at most, per wished wait, that see whether a shut door is open again."""
LEAST_SENT = 6
"""Requests that a rate is judged by, at least."""
FIRST_ROUNDS, LATER_ROUNDS = 0.25, 0.8
"""Seconds of sending by which a rate is judged, before and after it is settled."""
BAD_ROUNDS = 3
"""Rounds with refusals after which a rate is settled, even if none before went well."""
BINS = 200
"""Of a second, in which requests are counted."""
SECONDS = 4
"""For which their counts are kept."""
LEAST_SPAN, MOST_SPAN = 0.75, 1.5
"""Seconds between two moments at which a server began to let in again, by which its rate is judged: a window of one second
and no more than that, since what a server offers and nobody asks for makes the rate look lower than it is."""
LEAST_SHARE = 0.3
"""Of a rate that is kept whatever one round says: one in which an allowance ended at once would say that nothing is let in."""
MARGIN = 0.96
"""Of a measured rate: each request above the true one waits for as long as the server wishes."""
FIRST_GROWTH = 1.0
"""Growth of a rate that is not settled after a round without complaints."""
LEAST_GROWTH, MOST_GROWTH = 0.01, 1.0
"""The same for a settled rate: the least after a complaint, and doubled from one round without to the next."""


@dataclass(slots=True)
class Bucket:
    """`rate` units per second, saved up to `room`. It may be overdrawn; then nothing more goes until it is above zero."""

    rate: float
    room: float
    level: float = 0.0
    at: float = 0.0

    def fill(self, now: float) -> None:
        """Adds what has flowed in since the last time."""
        self.level = min(self.room, self.level + self.rate * (now - self.at))
        self.at = now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` is there; 0 when it is now."""
        self.fill(now)
        # A clock's rounding must not make a caller wait twice.
        return max(0.0, (amount - self.level) / self.rate) if self.level < amount - 1e-6 else 0.0


class OutcomeWindow:
    """What became of the requests of the last seconds, by when they were sent. A request is let in until it is refused."""

    def __init__(self) -> None:
        self._let_in = [0] * (SECONDS * BINS)
        self._refused = [0] * (SECONDS * BINS)
        self._last = 0
        """The bin of the latest request, counted from the clock's zero."""

    def sent(self, now: float) -> None:
        """A request went."""
        place = int(now * BINS)
        for old in range(max(self._last, place - len(self._let_in)) + 1, place + 1):
            self._let_in[old % len(self._let_in)] = self._refused[old % len(self._refused)] = 0
        self._last = max(self._last, place)
        self._let_in[place % len(self._let_in)] += 1

    def refused(self, sent_at: float) -> None:
        """The request sent then was refused."""
        place = int(sent_at * BINS)
        if place > self._last - len(self._let_in):
            self._let_in[place % len(self._let_in)] -= 1
            self._refused[place % len(self._refused)] += 1

    def rate(self, end: float) -> float | None:
        """Requests per second that the server bears at least, by those sent before `end`; None when they do not tell.

        Whatever a server counts by, nothing is left of its allowance while it refuses. So what it let in between two
        moments at which it began to let in again, it gave in that time: whether it gives a little all the time or sixty
        at the start of each second, and whatever it let in at first. It may have offered more in a pause in between.
        """
        last = min(int(end * BINS), self._last)
        let_in, was_refused = 0, False
        turns: list[tuple[int, int]] = []  # (bin, how many were let in before it)
        for place in range(last - len(self._let_in) + 1, last + 1):
            came, gone = self._let_in[place % len(self._let_in)], self._refused[place % len(self._refused)]
            if came and was_refused:
                turns.append((place, let_in))
            let_in += came
            was_refused = gone > 0 or (was_refused and not came)
        for place, before in reversed(turns):
            if LEAST_SPAN * BINS <= turns[-1][0] - place <= MOST_SPAN * BINS:
                return (turns[-1][1] - before) * BINS / (turns[-1][0] - place)
        return None


@dataclass(slots=True)
class Round:
    """Requests sent from `began` to `ends`, by which the rate is judged once their refusals must have come."""

    began: float = 0.0
    ends: float = 0.0
    sent: list[float] = field(default_factory=list)
    """When each went."""
    limited: int = 0
    first_limited: float = math.inf
    last_limited: float = 0.0
    """When the first and the last of those were sent that were refused."""

    @property
    def opened(self) -> bool:
        """Whether first all were refused and then all let in: the limit was reached before, and the share says nothing."""
        return 0 < self.limited == bisect_right(self.sent, self.last_limited)

    @property
    def closed(self) -> bool:
        """Whether first all were let in and then, several in turn, all refused: an allowance is used up until the next."""
        return LEAST_SENT <= self.limited == len(self.sent) - bisect_left(self.sent, self.first_limited)


@dataclass(slots=True)
class Circuit:
    """Whether the server lets anything in at all: shut once a whole round was refused, or all of it from some moment on."""

    shut: bool = False
    """Until the first answer to what was sent after `shut_at`."""
    shut_at: float = -1.0
    shut_until: float = 0.0
    look_at: float = 0.0
    """When the next request may see whether it is open."""
    look_every: float = 0.0


class Pacer:
    """Says when the next request may go, and is told what became of each."""

    def __init__(self, *, max_concurrency: int, rpm: float | None = None, tpm: float | None = None) -> None:
        self.limit = float(min(START, max_concurrency))
        """Requests that may be under way."""
        self.progress_at = 0.0
        """When the server last let a request in."""
        self._most = max_concurrency
        self._given = _per_minute(rpm)
        self._tokens = _per_minute(tpm)
        self._learned: Bucket | None = None
        self._settled = False
        """Whether the learned rate is near the true one, so that it grows slowly at first."""
        self._measured = False
        """Whether a round has said what it is: before, it is a guess from the first refusals."""
        self._growth = FIRST_GROWTH
        self._bad_rounds = 0
        self._clean_rate = 0.0
        """The rate of the last round, if none of it was refused."""
        self._round = Round()
        self._door = Circuit()
        self._opens_at = 0.0
        self._cut_at = -1.0
        self._answer_takes = 0.0
        self._refusal_takes = 0.0
        self._first_sent: float | None = None
        self._warned_at = -1.0
        """When the first refusal came."""
        self._sent = self._limited = 0
        self._tally = OutcomeWindow()

    @property
    def rate(self) -> float | None:
        """Requests per second that were learned from refusals; None before the first."""
        return None if self._learned is None else self._learned.rate

    def wait(self, now: float) -> float:
        """Seconds until the next request may go; 0 when it may go now."""
        waits = [0.0]
        if self._given is not None:
            waits.append(self._given.wait(now, 1.0))
        if self._tokens is not None:
            waits.append(self._tokens.wait(now, 1.0))
        if self._learned is not None:
            self._judge(now)
            shut = now < self._door.shut_until
            waits.append(max(0.0, self._door.look_at - now) if shut else self._learned.wait(now, 1.0))
        return max(waits)

    def sent(self, now: float, *, tokens: float = 0.0) -> None:
        """A request went, which may cost so many tokens."""
        if self._first_sent is None:
            self._first_sent = self.progress_at = now
        self._sent += 1
        self._tally.sent(now)
        for bucket, amount in ((self._given, 1.0), (self._learned, 1.0), (self._tokens, tokens)):
            if bucket is not None:
                bucket.fill(now)
                bucket.level -= amount
        self._door.look_at = now + self._door.look_every
        seen = self._round
        if seen.began <= now and (now <= seen.ends or len(seen.sent) < LEAST_SENT):
            seen.sent.append(now)
            seen.ends = max(seen.ends, now)

    def refund(self, tokens: float) -> None:
        """So many of the tokens taken beforehand were not used; below zero: more were."""
        if self._tokens is not None:
            self._tokens.level += tokens

    def admitted(self, now: float, *, sent_at: float) -> None:
        """The request sent then was answered."""
        self.progress_at = now
        self._answer_takes = _mean(self._answer_takes, now - sent_at)
        wanted = self.limit + (1.0 if self._cut_at < 0 else 1.0 / self.limit)
        self.limit = min(float(self._most), max(wanted, self._needed()))
        if self._door.shut and self._door.shut_at <= sent_at:
            self._open(now, sent_at)

    def limited(self, now: float, *, sent_at: float, wait: float) -> None:
        """The request sent then was refused with status 429 and the wish that it waits so many seconds."""
        self._limited += 1
        self._tally.refused(sent_at)
        # Of several wishes the one that ends first: they are about one moment, and most are rounded up.
        self._opens_at = min(self._opens_at, now + wait) if now < self._opens_at else now + wait
        self._refusal_takes = _mean(self._refusal_takes, now - sent_at)
        if self._learned is None or sent_at <= self._warned_at:  # later refusals are about the guessed rate
            self._guess(now)
        if self._round.began <= sent_at <= self._round.ends:
            self._round.limited += 1
            self._round.first_limited = min(self._round.first_limited, sent_at)
            self._round.last_limited = max(self._round.last_limited, sent_at)
        self._cut(now, sent_at=sent_at, least=self._needed())

    def _needed(self) -> float:
        """Requests under way that the learned rate needs, by Little's law: it bounds what is sent, so no fewer are allowed."""
        return 1.0 + 1.5 * (self.rate or 0.0) * self._answer_takes

    def strained(self, now: float, *, sent_at: float) -> None:
        """The request sent then failed in a way that says the server has too much to do."""
        self._cut(now, sent_at=sent_at, least=1.0)

    def _cut(self, now: float, *, sent_at: float, least: float) -> None:
        # Once per round trip: what was sent before the last cut says nothing about the limit after it.
        if self._cut_at < 0 or (sent_at > self._cut_at and now - self._cut_at >= self._answer_takes):
            self._cut_at = now
            self.limit = max(min(least, self.limit), self.limit / 2, 1.0)

    def _guess(self, now: float) -> None:
        """The first rate: what was let in so far, for the time until more is."""
        assert self._first_sent is not None
        guess = (self._sent - self._limited) / max(self._opens_at - self._first_sent, 1e-3)
        rate = max(guess, PROBES / max(self._opens_at - now, 1.0))
        if self._learned is None:
            self._warned_at = now
            self._learned = Bucket(rate, _room(rate), 0.0, now)
        elif rate < self._learned.rate:
            self._set_rate(now, rate)
        # What the first burst left at the door would be taken for refusals of the rate that is on trial now.
        self._begin_round(now)

    def _judge(self, now: float) -> None:
        """At the end of a round, once what was refused of it must be known."""
        seen, bucket = self._round, self._learned
        if bucket is None or now < max(self._door.shut_until, seen.ends + 1.2 * self._refusal_takes):
            return
        if len(seen.sent) < LEAST_SENT:
            return
        if seen.limited >= len(seen.sent) or (not self._settled and seen.closed):
            self._shut(now)
        elif seen.opened and not self._settled:
            self._begin_round(now)
        else:
            self._measure(now, seen, bucket)

    def _measure(self, now: float, seen: Round, bucket: Bucket) -> None:
        """A rate at which some were refused becomes what was let in; else it grows."""
        self._measured = True
        given = self._tally.rate(seen.ends) or 0.0
        if seen.limited:
            # What is refused before anything went well may still be the first burst's doing.
            self._bad_rounds += 1
            # A short round in which all went well may lie within one second's allowance.
            proved = self._clean_rate if self._settled or not given else 0.0
            self._settled = self._settled or self._clean_rate > 0 or self._bad_rounds >= BAD_ROUNDS
            self._growth = LEAST_GROWTH if self._settled else FIRST_GROWTH
            # Half of one refusal is left out: one in a few may be mere chance. Nor below what was right a moment ago:
            # a server that lets nothing gather refuses half of what comes a little too fast.
            share = max(LEAST_SHARE, 1.0 - (seen.limited - 0.5) / len(seen.sent))
            self._set_rate(now, MARGIN * max(given, bucket.rate * share, proved))
            self._clean_rate = 0.0
        elif len(seen.sent) > 0.8 * bucket.rate * (seen.ends - seen.began):  # a rate that nobody uses up has proved nothing
            self._clean_rate = bucket.rate
            self._set_rate(now, max(MARGIN * given, bucket.rate * (1.0 + self._growth)))
            self._growth = min(MOST_GROWTH, 2.0 * self._growth) if self._settled else FIRST_GROWTH
        self._begin_round(now)

    def _shut(self, now: float) -> None:
        """Nothing is let in: looked at now and then, until the wished wait is over."""
        self._settled, self._growth = True, LEAST_GROWTH
        every = max(self._opens_at - now, FIRST_ROUNDS) / PROBE_LIMIT
        self._door = Circuit(True, now, self._opens_at, now + every, every)
        self._begin_round(self._door.shut_until)

    def _open(self, now: float, sent_at: float) -> None:
        """The server lets in again. Where the rate is a guess, it is known now for how long what it let in first was enough."""
        assert self._first_sent is not None and self._learned is not None
        self._door.shut = False
        if not self._measured:
            rate = (self._sent - self._limited - 1) / max(sent_at - self._first_sent, 1.0)
            self._set_rate(now, max(rate, self._learned.rate))
        if now < self._door.shut_until:
            self._door.shut_until = now
            self._begin_round(now)

    def _set_rate(self, now: float, rate: float) -> None:
        if self._learned is not None:
            self._learned.fill(now)
            self._learned.rate, self._learned.room = rate, _room(rate)

    def _begin_round(self, now: float) -> None:
        self._round = Round(now, now + (LATER_ROUNDS if self._settled else FIRST_ROUNDS))


def _mean(before: float, value: float) -> float:
    """A mean in which the last few values count most; the first stands for itself."""
    return 0.8 * before + 0.2 * value if before else value


def _room(rate: float) -> float:
    """What a learned rate may save up: a little, since a loop is never on time to the millisecond."""
    return 1.2 + 0.05 * rate


def _per_minute(amount: float | None) -> Bucket | None:
    """A bucket for a declared limit: a second of it may be used at once."""
    if amount is None:
        return None
    room = max(1.0, amount / 60)
    return Bucket(amount / 60, room, room)
