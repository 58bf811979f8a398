"""The geometry of the training report's figures: one plot per arm, a line per seed, all plots on one scale of loss. Pure.

As in `figures`, letters are never scaled: positions across are percentages of the figure's width and positions down are pixels.
A line of many points cannot be written in percentages, so the lines stand in an inner drawing of 1,000 x 1,000 that is
stretched to the plot; the strokes do not stretch with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEFT, RIGHT = 10.0, 98.0
"""Where the plot begins and ends, in percent: a telephone needs a tenth for the numbers of the axis."""
TOP, HEIGHT = 12, 150
AXIS_PIXELS = 40
UNITS = 1000
TICKS = 5
NUM_DASHES = 4
"""Ways of drawing a line; further seeds begin again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedLine:
    """One seed."""

    seed: int
    dash: int
    points: str
    """`x,y x,y ...` of the inner drawing; empty where no loss was logged."""
    dots: Sequence[tuple[float, float]]
    """Validation loss before and after: percent across, pixels down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One arm."""

    lines: Sequence[SeedLine]
    steps: int
    ticks: Sequence[tuple[str, float]]
    """Each loss with its place down."""
    top: int = TOP
    height: int = HEIGHT
    total: int = TOP + HEIGHT + AXIS_PIXELS
    left: float = LEFT
    width: float = RIGHT - LEFT
    units: int = UNITS

    @property
    def right(self) -> float:
        """Where the plot ends."""
        return self.left + self.width

    @property
    def axis_y(self) -> int:
        """Where the axis of steps stands."""
        return self.top + self.height


def plots(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[Plot]:
    """A plot for each group of records, all with the same two scales, so that they can be compared by eye."""
    records = [record for group in groups for record in group]
    steps = max([1, *(record["steps"] for record in records)])
    low, high, ticks = scale([value for record in records for value in _values(record)])
    return [
        Plot(
            lines=[_line(record, place=i, steps=steps, low=low, high=high) for i, record in enumerate(group)],
            steps=steps,
            ticks=[(text, _down(value, low, high)) for value, text in ticks],
        )
        for group in groups
    ]


def curve(record: Mapping[str, Any]) -> list[tuple[int, float]]:
    """What was logged, (step, loss); what is not a number is left out."""
    return [(step, loss) for step, loss in record["losses"] if math.isfinite(loss)]


def scale(values: Sequence[float]) -> tuple[float, float, list[tuple[float, str]]]:
    """Lowest and highest of the axis, and its ticks with their texts. It begins at 0 unless all values are far from it."""
    highest, lowest = max([0.0, *values]), min([*values] or [0.0])
    if highest <= 0:
        return 0.0, 1.0, [(0.0, "0"), (1.0, "1")]
    start = 0.0 if lowest < 0.6 * highest else lowest
    step = _round_step((highest - start) / TICKS or highest / TICKS)
    first, last = math.floor(start / step + 1e-9), math.ceil(highest / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    texts = [f"{number * step:.{digits}f}" for number in range(first, max(last, first + 1) + 1)]
    ticks = [(float(text), text) for text in texts]  # 38 * 0.05 is more than 1.9, and 1.9 must lie within
    return ticks[0][0], ticks[-1][0], ticks


def _round_step(wanted: float) -> float:
    """The next of 1, 2, 5, 10 ... in its power of ten."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * (1 - 1e-9))


def _values(record: Mapping[str, Any]) -> list[float]:
    validation = record["validation_loss"] or {}
    return [loss for _, loss in curve(record)] + [loss for loss in validation.values() if math.isfinite(loss)]


def _line(record: Mapping[str, Any], *, place: int, steps: int, low: float, high: float) -> SeedLine:
    found = curve(record)
    # One point is not a line; drawn twice it is a dash that can be seen.
    found = [(max(found[0][0] - 1, 0), found[0][1]), *found] if len(found) == 1 else found
    points = [f"{round(UNITS * step / steps, 1):g},{_inner(loss, low, high):g}" for step, loss in found]
    validation = record["validation_loss"]
    ends = [(0, validation["before"]), (record["steps"], validation["after"])] if validation else []
    return SeedLine(
        seed=record["seed"],
        dash=place % NUM_DASHES,
        points=" ".join(points),
        dots=[(_across(step, steps), _down(loss, low, high)) for step, loss in ends if math.isfinite(loss)],
    )


def _inner(loss: float, low: float, high: float) -> float:
    return round(UNITS * (high - loss) / (high - low), 1)


def _across(step: int, steps: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * step / steps, 2)


def _down(loss: float, low: float, high: float) -> float:
    return round(TOP + HEIGHT * (high - loss) / (high - low), 1)
