"""The work of one `sample` call: requests pulled as there is room, sent, counted, asked again, and handed over.

A few worker tasks share it. Each takes a job, sends it, deals with the answer and takes the next; a job that has to wait
lies in a heap and costs nobody a slot. A request is pulled only when it can be sent, so that whoever supplies requests
can stop at any moment and knows that no more than `max_concurrency` are still to come. An answer keeps its slot until
whoever fetched it asks for more: what has come and is not yet on disk is as easily lost as what is still on the wire.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from recontext_data.core.errors import PolicyError
from recontext_data.core.records import Reply, Request
from recontext_data.policies.openai.http import Answer, Wire
from recontext_data.policies.openai.pacing import Pacer
from recontext_data.policies.openai.reply import read_choices, total_tokens, verdict

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""Seconds; doubled from failure to failure, and drawn from zero up to that, so that retries do not come in waves."""
LIMITED_BACKOFF = 60.0
"""Seconds at most after a 429 that says nothing of when to come again."""
PATIENCE = 900.0
"""Seconds without any progress after which a rate limit is a failure, and longest wait that a server may wish for."""
LIMITED_TIMES = 100
"""Refusals by rate limit after which one request fails, since some are too large for any limit."""
UNREACHED_RETRIES = 2
"""Retries where nobody was ever reached: then the address is more likely wrong than the server restarting."""


@dataclass(slots=True)
class ServerCapabilities:
    """What is known of a server's ways; shared by all that ask it."""

    reached: bool = False
    """Whether it ever answered."""
    honoured: int = 1
    """Most choices that it gave in one answer."""
    most: int | None = None
    """Choices that may be asked for at once; None: no bound is known."""


@dataclass(slots=True, eq=False)
class HttpJob:
    """The places of a request (indices into its ks) that are to be had in one HTTP request."""

    request: Request
    places: Sequence[int]
    body: bytes = b""
    tokens: float = 0.0
    failures: int = 0
    limited: int = 0
    suspects: "HttpJob | None" = None
    """The refused job of which this one is a single place: if it succeeds, n was at fault and not the prompt."""
    accused: str = ""
    """The words of that refusal."""

    @property
    def keys(self) -> list[str]:
        """The reply keys of its places."""
        return [self.request.keys[place] for place in self.places]

    def part(self, places: Sequence[int]) -> "HttpJob":
        """A new job for some of the places."""
        return HttpJob(self.request, places)

    def parts(self, size: int) -> Iterator["HttpJob"]:
        """New jobs of at most `size` places."""
        return (self.part(self.places[start : start + size]) for start in range(0, len(self.places), size))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """How requests are sent."""

    body: Callable[[HttpJob], tuple[bytes, float]]
    """The bytes of a job, and the tokens it may cost."""
    max_concurrency: int
    max_retries: int
    logprobs: bool
    model: str
    name: str
    """Who is asked, for errors that stop everything."""
    may_send: Callable[[], bool] = lambda: True
    """Whether anything more may be sent; once it says no, what is under way is waited for and the rest is dropped."""


class RequestScheduler:
    """Works through some requests."""

    def __init__(
        self, requests: Iterable[Request], *, wire: Wire, pacer: Pacer, manners: ServerCapabilities, terms: RequestSettings
    ) -> None:
        self._requests = iter(requests)
        self._wire, self._pacer, self._manners, self._terms = wire, pacer, manners, terms
        self._unreached = min(UNREACHED_RETRIES, terms.max_retries)
        self._loop = asyncio.get_running_loop()
        self._exhausted = False
        self._again: deque[HttpJob] = deque()
        self._parked: list[tuple[float, int, HttpJob]] = []
        self._num_parked = 0
        self._in_flight = 0
        self._held = 0
        """Answers whose replies were not fetched yet, or not acknowledged."""
        self._workers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[Reply] = []
        self._news = asyncio.Event()
        self._fatal = ""
        self._crash: BaseException | None = None

    async def groups(self) -> AsyncGenerator[list[Reply], None]:
        """Whatever has come since the last group; to ask for the next one frees the slots of the last one.

        Raises:
            PolicyError: no further request has a chance; raised after what was under way.
        """
        self._hire()
        try:
            while not self._done():
                self._news.clear()
                await self._news.wait()
                if self._out:
                    group, held = self._out, self._held
                    self._out = []
                    yield group
                    self._held -= held
                self._hire()  # slots are free again, or a timer rang
        finally:
            await self._dismiss()
        if self._crash is not None:
            raise self._crash
        if self._fatal:
            raise PolicyError(f"{self._terms.name}: {self._fatal}")

    def _done(self) -> bool:
        if self._out:
            self._news.set()
            return False
        waiting = (self._parked or self._again or not self._exhausted) and self._terms.may_send()
        return not self._workers and (bool(self._fatal) or self._crash is not None or not waiting)

    async def _dismiss(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _hire(self) -> None:
        """As many workers as there is work that may be sent now."""
        while (job := self._take()) is not None:
            worker = asyncio.create_task(self._work(job))
            self._workers.add(worker)
            worker.add_done_callback(self._left)

    def _left(self, worker: "asyncio.Task[None]") -> None:
        self._workers.discard(worker)
        if not worker.cancelled():
            self._crash = self._crash or worker.exception()  # the supplier of requests raised, or there is a bug here
        self._news.set()

    async def _work(self, first: HttpJob) -> None:
        job: HttpJob | None = first
        while job is not None:
            sent_at = self._loop.time()
            answer = await self._wire.post(job.body)
            self._in_flight -= 1
            before = len(self._out)
            self._settle(job, answer, sent_at)
            if len(self._out) > before:
                self._held += 1
                self._news.set()
            job = self._take()
            if job is not None and self._in_flight < self._pacer.limit:
                self._hire()

    def _take(self) -> HttpJob | None:
        """A job to be sent now; else None, and a timer for when there may be one."""
        if self._fatal or self._crash is not None or self._in_flight >= self._pacer.limit:
            return None
        if self._in_flight + self._held >= self._terms.max_concurrency or not self._terms.may_send():
            return None
        if self._exhausted and not self._again and not self._parked:
            return None
        now = self._loop.time()
        wait = self._pacer.wait(now)
        if wait > 0:
            self._ring_at(now + wait)
            return None
        job = self._next(now)
        if job is None:
            return None
        job.body, job.tokens = (job.body, job.tokens) if job.body else self._terms.body(job)
        self._pacer.sent(now, tokens=job.tokens)
        self._in_flight += 1
        return job

    def _next(self, now: float) -> HttpJob | None:
        """The next job: one that waited long enough, a part of one, or a new one if there is room for it."""
        job: HttpJob | None = None
        if self._parked and self._parked[0][0] <= now:
            job = heapq.heappop(self._parked)[2]
        elif self._again:
            job = self._again.popleft()
        elif self._in_flight + self._held + len(self._parked) < self._terms.max_concurrency:
            job = self._pull()
        most = self._manners.most
        if job is not None and most is not None and len(job.places) > most:
            job, *others = job.parts(most)
            self._again.extendleft(reversed(others))
        if job is None and self._parked:
            self._ring_at(self._parked[0][0])
        return job

    def _pull(self) -> HttpJob | None:
        if not self._exhausted:
            for request in self._requests:
                if request.ks:
                    return HttpJob(request, range(len(request.ks)))
            self._exhausted = True
            self._news.set()
        return None

    def _ring_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        # Not hired here: whatever the supplier of requests raises must reach whoever fetches the replies.
        self._timer = None
        self._news.set()

    def _settle(self, job: HttpJob, answer: Answer, sent_at: float) -> None:
        """Deals with an answer: replies, further jobs, or the end of everything."""
        now = self._loop.time()
        if answer.kind == "answered":
            self._manners.reached = True
        if answer.kind == "answered" and not answer.text:
            self._pacer.refund(job.tokens - (total_tokens(answer.body) or job.tokens))
            self._pacer.admitted(now, sent_at=sent_at)
            self._read(job, answer)
            return
        self._pacer.refund(job.tokens)
        if answer.kind == "answered":
            self._refused(job, answer, sent_at)
        elif answer.kind == "unreachable" and not self._manners.reached and job.failures >= self._unreached:
            self._fatal = self._fatal or answer.text
        else:
            if answer.kind != "broken":
                self._pacer.strained(now, sent_at=sent_at)
            self._retry(job, answer)

    def _read(self, job: HttpJob, answer: Answer) -> None:
        replies = read_choices(answer.body, keys=job.keys, logprobs=self._terms.logprobs)
        if not replies:
            self._retry(job, Answer(kind="broken", text="the server sent no choices"))
            return
        asked, came, manners = len(job.places), len(replies), self._manners
        if asked > 1 and came == 1 and manners.honoured == 1:
            manners.most = 1
        manners.honoured = max(manners.honoured, came)
        self._out.extend(replies)
        if came < asked:
            self._again.append(job.part(job.places[came:]))
        if job.suspects is not None:
            manners.most = manners.honoured
            self._again.append(job.suspects.part(job.suspects.places[1:]))

    def _refused(self, job: HttpJob, answer: Answer, sent_at: float) -> None:
        """A status that is not a success."""
        now, meaning = self._loop.time(), verdict(answer.status, answer.body)
        if meaning == "stop":
            self._fatal = self._fatal or answer.text
        elif meaning == "limited":
            self._limit(job, answer, sent_at)
        elif meaning == "retry":
            if answer.status in (503, 529):
                self._pacer.strained(now, sent_at=sent_at)
            self._retry(job, answer)
        elif answer.status in (400, 422) and len(job.places) > self._manners.honoured:
            # Was it the prompt that was refused, or n? One completion alone tells, without reading the server's prose.
            single = job.part(job.places[:1])
            single.suspects, single.accused = job, answer.text
            self._again.append(single)
        else:
            self._give_up(job, answer.text)

    def _limit(self, job: HttpJob, answer: Answer, sent_at: float) -> None:
        """Status 429: no failure, unless it lasts."""
        now = self._loop.time()
        job.limited += 1
        # Without a wish from a second upwards; with one it is a floor, for servers whose wish is too small, or zero.
        least, first = (0.5, 1.0) if answer.retry_after is None else (0.0, 0.05)
        own = random.uniform(least, 1.0) * min(LIMITED_BACKOFF, first * 2.0 ** (job.limited - 1))
        wait = max(answer.retry_after or 0.0, own)
        self._pacer.limited(now, sent_at=sent_at, wait=wait)
        if wait > PATIENCE:
            self._fatal = self._fatal or f"{answer.text} (it wishes a pause of {wait:,.0f} s: run the same command after it)"
        elif job.limited > LIMITED_TIMES or now - self._pacer.progress_at > PATIENCE:
            self._give_up(job, answer.text)
        else:
            self._park(job, now + wait)

    def _retry(self, job: HttpJob, answer: Answer) -> None:
        job.failures += 1
        if job.failures > self._terms.max_retries:
            self._give_up(job, answer.text)
            return
        backoff = random.uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (job.failures - 1)))
        wished = answer.retry_after or 0.0
        self._park(job, self._loop.time() + max(backoff, min(wished, PATIENCE)))

    def _park(self, job: HttpJob, until: float) -> None:
        self._num_parked += 1  # of two that wake at once, the first to lie down goes first
        heapq.heappush(self._parked, (until, self._num_parked, job))
        self._ring_at(until)

    def _give_up(self, job: HttpJob, text: str) -> None:
        text = job.accused or text
        for key in (job.suspects or job).keys:
            self._out.append(Reply(key=key, completion=None, error=text, model=self._terms.model))
