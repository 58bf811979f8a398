"""Progress of long work: a live line on a terminal, a plain line every few seconds in a pipe.

Counting and drawing are apart: `StageTracker.advance` adds to a few numbers, and whoever draws reads them. So a stage may
count every row without its pace being set by the screen.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.reports.numbers import duration, money

if TYPE_CHECKING:
    from rich.text import Text

PLAIN_SECONDS = 5.0
"""Between two plain lines of one stage."""
_BAR_CELLS = 24
_LEAST_BAR_CELLS = 5
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """What a tracker has counted, at one moment."""

    done: int
    failed: int
    usd: float
    seconds: float
    """Since the stage began."""
    rate: float | None
    """Per second, lately; None before anything is done."""

    def eta(self, total: int | None) -> str:
        """`eta 16 s`, or nothing while it is not known."""
        if total is None or not self.rate or self.done >= total:
            return ""
        return f"eta {duration((total - self.done) / self.rate)}"

    def extras(self) -> list[str]:
        """Failures and spend, each only when there is some."""
        return [f"{self.failed:,} failed"] * bool(self.failed) + [f"{money(self.usd)} spent"] * bool(self.usd)


class StageTracker:
    """Counts the work of one stage. Safe to advance from several threads."""

    def __init__(
        self, name: str, total: int | None, *, unit: str, on_tick: Callable[["StageTracker"], None] | None = None
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._done = self._failed = 0
        self._usd = 0.0
        self._began = self._sampled_at = time.monotonic()
        self._next_tick = self._began + PLAIN_SECONDS
        self._sampled_done = 0
        self._rate: float | None = None

    def advance(self, n: int = 1, *, failed: int = 0, usd: float = 0.0) -> None:
        """`n` more are done, `failed` of them without success, for `usd` dollars."""
        now = time.monotonic()
        with self._lock:
            self._done += n
            self._failed += failed
            self._usd += usd
            due = self._on_tick is not None and now >= self._next_tick
            if due:
                self._next_tick = now + PLAIN_SECONDS
        if due and self._on_tick is not None:
            self._on_tick(self)

    def pace(self) -> Pace:
        """The numbers now. The rate follows the last seconds more than the first ones, so that an ETA recovers from a stall."""
        with self._lock:
            now = time.monotonic()
            elapsed = now - self._sampled_at
            if elapsed >= _SAMPLE_SECONDS and self._done:
                latest = (self._done - self._sampled_done) / elapsed
                weight = min(1.0, elapsed / 10)
                self._rate = latest if self._rate is None else weight * latest + (1 - weight) * self._rate
                self._sampled_at, self._sampled_done = now, self._done
            return Pace(self._done, self._failed, self._usd, now - self._began, self._rate)

    def facts(self) -> dict[str, Any]:
        """The numbers now, for a program; null where not known."""
        pace = self.pace()
        counts = {"stage": self.name, "unit": self.unit, "done": pace.done, "total": self.total, "failed": pace.failed}
        return counts | {"usd": pace.usd, "seconds": pace.seconds, "per_second": pace.rate}

    def plain(self) -> str:
        """`sample default: 512/1,024 answers, 63.2/s, eta 8.1 s, 4 failed`"""
        pace = self.pace()
        rate = f"{pace.rate:,.1f}/s" if pace.rate is not None else ""
        parts = [f"{self._fraction(pace.done)} {self.unit}", rate, pace.eta(self.total), *pace.extras()]
        return f"{self.name}: {', '.join(part for part in parts if part)}"

    def final(self, *, finished: bool) -> str:
        """`sample default: 1,024 answers in 16 s, 63.2/s, 4 failed`; says so when the stage was cut short."""
        pace = self.pace()
        complete = finished and pace.done == (pace.done if self.total is None else self.total)
        counted = f"{pace.done:,}" if complete else self._fraction(pace.done)
        rate = f"{pace.done / pace.seconds:,.1f}/s" if pace.done and pace.seconds > 0.05 else ""
        said = f"{'' if finished else 'stopped at '}{counted} {self.unit} in {duration(pace.seconds)}"
        return f"{self.name}: {', '.join(part for part in (said, rate, *pace.extras()) if part)}"

    def live(self, width: int) -> "Text":
        """The line on a terminal, at most `width` cells."""
        from rich.text import Text

        pace = self.pace()
        rate = f"{pace.rate:,.1f}/s" if pace.rate is not None else ""
        counted = "".join(
            f"  {part}" for part in (f"{self._fraction(pace.done)} {self.unit}", rate, pace.eta(self.total)) if part
        )
        extras = "".join(f"  {extra}" for extra in pace.extras())
        text = Text(self.name, no_wrap=True, end="")
        # The bar takes what the words leave: a number that is cut off says less than a short bar.
        room = min(_BAR_CELLS, width - text.cell_len - len(counted) - len(extras) - 2)
        if self.total and room >= _LEAST_BAR_CELLS:
            filled = min(room, room * pace.done // self.total)
            text.append("  " + "━" * filled, style="cyan").append("━" * (room - filled), style="dim")
        text.append(counted).append(extras, style="yellow")
        text.truncate(width, overflow="ellipsis")
        return text

    def _fraction(self, done: int) -> str:
        return f"{done:,}" if self.total is None else f"{done:,}/{self.total:,}"
