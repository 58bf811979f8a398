"""How fast a server is asked: a limit on requests under way, and on requests and tokens per time, both learned from it.

Nobody says beforehand what a server bears, so `Pacer` finds out. Requests under way: up by one per answer until the first
complaint, halved by a complaint, then up by one per round of answers. Requests per second: unlimited until the first
status 429; from then on a rate, measured as the share of recent requests that the server let in and raised a little
while it complains about none. Pure: time is an argument (seconds of any steady clock), nothing sleeps, nothing is sent.
"""

from dataclasses import dataclass

START = 64
"""Requests under way at first."""
PROBES = 20
"""Requests per wished wait, when the server's first complaint came too soon to measure a rate: few enough not to annoy."""
CLOSED_AFTER = 6
"""Refusals in a row after which the door counts as shut until the wished wait is over."""
LOOKS = 10
"""Requests at most, per wished wait, that see whether a shut door is open again."""
LEAST_OUTCOMES = 5
"""Outcomes that a rate is judged by, at least."""
SHORTEST_ROUND = 0.25
"""Seconds after which a rate is judged, at least; a round trip and a half where that is longer."""
MARGIN = 0.97
"""Of a measured rate: each request above the true one waits for as long as the server wishes."""
CALM_GROWTH = 0.01
"""Growth of a settled rate per second without complaints; five times that after a long calm."""
LONG_CALM = 20.0


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


@dataclass(slots=True)
class Round:
    """Outcomes since `began`, by which the rate is judged next."""

    began: float = 0.0
    admitted: int = 0
    limited: int = 0


@dataclass(slots=True)
class Door:
    """Whether the server lets anything in at all."""

    refused: int = 0
    """In a row."""
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
        """Whether the learned rate has been measured, and not only guessed from the first refusals."""
        self._round = Round()
        self._door = Door()
        self._cut_at = -1.0
        self._complained_at = -1.0
        self._round_trip = 0.0
        self._first_sent: float | None = None
        self._sent = self._limited = 0

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
            shut = now < self._door.shut_until
            waits.append(max(0.0, self._door.look_at - now) if shut else self._learned.wait(now, 1.0))
        return max(waits)

    def sent(self, now: float, *, tokens: float = 0.0) -> None:
        """A request went, which may cost so many tokens."""
        if self._first_sent is None:
            self._first_sent = self.progress_at = now
        self._sent += 1
        for bucket, amount in ((self._given, 1.0), (self._learned, 1.0), (self._tokens, tokens)):
            if bucket is not None:
                bucket.fill(now)
                bucket.level -= amount
        self._door.look_at = now + self._door.look_every

    def refund(self, tokens: float) -> None:
        """So many of the tokens taken beforehand were not used; below zero: more were."""
        if self._tokens is not None:
            self._tokens.level += tokens

    def admitted(self, now: float, *, sent_at: float) -> None:
        """The request sent then was answered."""
        self.progress_at = now
        took = now - sent_at
        self._round_trip = took if not self._round_trip else 0.8 * self._round_trip + 0.2 * took
        self.limit = min(float(self._most), self.limit + (1.0 if self._cut_at < 0 else 1.0 / self.limit))
        if self._learned is None or sent_at <= self._cut_at:
            return
        self._door.refused = 0
        if now < self._door.shut_until:
            self._door.shut_until = now
            self._begin_round(now)
        self._round.admitted += 1
        self._judge(now)

    def limited(self, now: float, *, sent_at: float, wait: float) -> None:
        """The request sent then was refused with status 429 and the wish that it waits so many seconds."""
        self._limited += 1
        self._complained_at = now
        first = self._learned is None
        if first or (sent_at <= self._cut_at and not self._settled):
            self._guess(now, wait)
        if not first and sent_at > self._cut_at:
            self._round.limited += 1
        self._refused(now, wait)
        self._cut(now, sent_at=sent_at, least=1.0 + 2.0 * (self.rate or 0.0) * self._round_trip, again=first)
        self._judge(now)

    def strained(self, now: float, *, sent_at: float) -> None:
        """The request sent then failed in a way that says the server has too much to do."""
        self._cut(now, sent_at=sent_at, least=1.0, again=False)

    def _cut(self, now: float, *, sent_at: float, least: float, again: bool) -> None:
        # Once per round trip: what was sent before the last cut says nothing about the limit after it.
        if sent_at > self._cut_at or again:
            self._cut_at = now
            self.limit = max(min(least, self.limit), self.limit / 2, 1.0)

    def _guess(self, now: float, wait: float) -> None:
        """The first rate: what was let in so far, for the time so far and the wished wait."""
        assert self._first_sent is not None
        guess = (self._sent - self._limited) / max(now - self._first_sent + wait, 1e-3)
        rate = max(guess, PROBES / max(wait, 1.0))
        if self._learned is None:
            self._learned = Bucket(rate, _room(rate), 0.0, now)
            self._begin_round(now)
        elif rate < self._learned.rate:
            self._set_rate(now, rate)

    def _refused(self, now: float, wait: float) -> None:
        door = self._door
        door.refused += 1
        if door.refused >= CLOSED_AFTER and now >= door.shut_until:
            door.look_every = wait / LOOKS
            door.look_at = now + door.look_every
            door.shut_until = now + wait
            self._begin_round(door.shut_until)

    def _judge(self, now: float) -> None:
        """At the end of a round: a rate at which some were refused becomes the share that was not; else it grows."""
        seen, bucket = self._round, self._learned
        if bucket is None or seen.admitted + seen.limited < LEAST_OUTCOMES or now < self._door.shut_until:
            return
        length = now - seen.began
        if length < max(SHORTEST_ROUND, 1.5 * self._round_trip):
            return
        if seen.limited:
            self._settled = True
            self._set_rate(now, bucket.rate * max(0.25, MARGIN * seen.admitted / (seen.admitted + seen.limited)))
        elif bucket.level < 0.9 * bucket.room:  # a rate that nobody uses up has proved nothing
            calm = now - self._complained_at > LONG_CALM
            growth = CALM_GROWTH * length * (5.0 if calm else 1.0) if self._settled else 1.0
            self._set_rate(now, bucket.rate * (1.0 + min(growth, 1.0)))
        self._begin_round(now)

    def _set_rate(self, now: float, rate: float) -> None:
        if self._learned is not None:
            self._learned.fill(now)
            self._learned.rate, self._learned.room = rate, _room(rate)

    def _begin_round(self, now: float) -> None:
        self._round = Round(now)


def _room(rate: float) -> float:
    """What a learned rate may save up: a twentieth of a second, since a loop is never on time to the millisecond."""
    return 1.0 + 0.05 * rate


def _per_minute(amount: float | None) -> Bucket | None:
    """A bucket for a declared limit: a second of it may be used at once."""
    if amount is None:
        return None
    room = max(1.0, amount / 60)
    return Bucket(amount / 60, room, room)
