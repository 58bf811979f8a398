"""The geometry of the report's one figure: a rate per context as a tick on its 95 % interval. Pure; the template draws it.

Horizontal positions are percentages of the figure's width and vertical ones are pixels, so that the SVG fits a telephone
and a wide window without scaling its letters. No drawing library: six kinds of shapes do not need one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recontext_data.reports.numbers import Rate

ROW_PIXELS = 50
_TOP_PIXELS = 6
_AXIS_PIXELS = 26
TICKS = (0, 25, 50, 75, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One context's tick and interval."""

    name: str
    stance: str
    value: str
    interval: str
    label_y: int
    y: int
    x: float
    low: float
    high: float
    known: bool
    """False where nothing was judged: a line without a tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """All that the template needs; x in percent, y in pixels."""

    marks: Sequence[Mark]
    top: int
    axis_y: int
    height: int
    ticks: Sequence[int] = TICKS


def rate_figure(rates: Sequence[Rate]) -> Figure:
    """One row per rate, in order; `name (judge)` where several judges read the same context."""
    judges = {rate.judge for rate in rates}
    axis = _TOP_PIXELS + ROW_PIXELS * len(rates) + 4
    return Figure(
        marks=[_mark(rate, index=i, several_judges=len(judges) > 1) for i, rate in enumerate(rates)],
        top=_TOP_PIXELS,
        axis_y=axis,
        height=axis + _AXIS_PIXELS,
    )


def _mark(rate: Rate, *, index: int, several_judges: bool) -> Mark:
    share = rate.misbehaviour
    top = _TOP_PIXELS + ROW_PIXELS * index
    return Mark(
        name=f"{rate.context} ({rate.judge})" if several_judges else rate.context,
        stance=rate.stance,
        value=share.percent,
        interval=share.interval,
        label_y=top + 16,
        y=top + 33,
        x=round(100 * (share.value or 0.0), 3),
        low=round(100 * share.low, 3),
        high=round(100 * share.high, 3),
        known=share.value is not None,
    )
