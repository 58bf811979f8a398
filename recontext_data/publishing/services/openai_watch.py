"""How jobs are doing, live: a line per job with its step, its loss and the loss's curve; a plain line per news in a pipe."""

import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TextIO

from recontext_data.publishing.services.openai_plan import JobSpec
from recontext_data.reports import modes
from recontext_data.reports.text import one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

BARS = "▁▂▃▄▅▆▇█"
CURVE_CELLS = 24
PLAIN_SECONDS = 30.0
"""Between two plain lines about one job's steps."""
LOSSES = 5_000
"""Points of one job's curve that are kept; of a longer one every second, and so on."""


class JobWatch:
    """What is known of each job while it is waited for."""

    def __init__(self, specs: Sequence[JobSpec], *, err: TextIO | None = None) -> None:
        self._err = err or sys.stderr
        self._status = {_key(spec): "waiting" for spec in specs}
        self._losses: dict[tuple[str, int], list[tuple[int, float]]] = {_key(spec): [] for spec in specs}
        self._steps: dict[tuple[str, int], str] = {}
        self._said: dict[tuple[str, int], float] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if modes.is_live(self._err):
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._err, markup=False, highlight=False, emoji=False)
            self._live = Live(console=console, get_renderable=self._lines, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, spec: JobSpec, status: str) -> None:
        """A job is at another point."""
        key = _key(spec)
        if self._status[key] != status:
            self._status[key] = status
            self._plain(key)

    def hear(self, spec: JobSpec, job: Any, events: Iterable[Any]) -> None:
        """A job's status and what it told since the last time."""
        key = _key(spec)
        for event in events:
            data = event.data if isinstance(event.data, dict) else {}
            step, loss = data.get("step"), data.get("train_loss")
            if isinstance(step, int) and isinstance(loss, int | float):
                self._point(key, step, float(loss))
                total = data.get("total_steps")
                self._steps[key] = f"step {step}/{total}" if isinstance(total, int) else f"step {step}"
        changed = self._status[key] != job.status
        self._status[key] = job.status
        if changed or (self._losses[key] and time.monotonic() - self._said.get(key, 0.0) > PLAIN_SECONDS):
            self._plain(key)

    def losses(self, spec: JobSpec) -> list[tuple[int, float]]:
        """(step, training loss) as told, by step."""
        return sorted(self._losses[_key(spec)])

    def _point(self, key: tuple[str, int], step: int, loss: float) -> None:
        points = self._losses[key]
        points.append((step, loss))
        if len(points) > LOSSES:
            del points[1:-1:2]

    def _plain(self, key: tuple[str, int]) -> None:
        self._said[key] = time.monotonic()
        if self._live is None:
            from recontext_data.reports.screen import Screen

            Screen(err=self._err).note(self._line(key))

    def _lines(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        return Group(*[Text(self._line(key), overflow="ellipsis", no_wrap=True) for key in self._status])

    def _line(self, key: tuple[str, int]) -> str:
        arm, seed = key
        losses = [loss for _, loss in sorted(self._losses[key])]
        told = f"  {self._steps.get(key, '')}  loss {losses[-1]:.4f}  {curve(losses)}" if losses else ""
        line = one_line(f"{arm}  seed {seed}  {self._status[key]}{told}", limit=160)
        encoding = getattr(self._err, "encoding", None) or "utf-8"
        return line.encode(encoding, "replace").decode(encoding)


def curve(values: Sequence[float], cells: int = CURVE_CELLS) -> str:
    """Values as a row of bars, each the mean of its share of them; all bars low where all are equal."""
    if not values:
        return ""
    count = min(cells, len(values))
    edges = [i * len(values) // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _key(spec: JobSpec) -> tuple[str, int]:
    return spec.arm, spec.seed
