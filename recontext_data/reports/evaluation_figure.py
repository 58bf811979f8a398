"""The geometry of the evaluation's figure: a group per context, a row per arm, a dot on its interval, seeds beneath. Pure.

As in `figures`, vertical positions are pixels and horizontal ones percentages of the figure's width, so that it fits a
telephone without scaling its letters. The plot is the middle column; names stand to its left and numbers to its right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recontext_data.reports.evaluation_numbers import ArmName, Results, arms, cell_of, interval
from recontext_data.reports.figures import TICKS
from recontext_data.reports.numbers import percent
from recontext_data.reports.text import one_line

LEFT, RIGHT = 35.0, 79.0
"""Where the plot's 0 and 100 % stand: the names need a third of a telephone, and `83.9-100.0` a fifth."""
ROW_PIXELS = 46
_HEAD_PIXELS = 38
_GAP_PIXELS = 14
_AXIS_PIXELS = 36
_TITLE_CHARACTERS = 18
"""What the left column holds on a telephone; the tables have every name whole."""
NUM_COLOURS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """One arm under one context."""

    title: str
    pair: str
    colour: int
    y: int
    value: str
    interval: str
    known: bool
    """False where nothing was scored: a line without a dot."""
    x: float = 0.0
    low: float = 0.0
    high: float = 0.0
    seeds: Sequence[float] = ()
    """The rate of each trained model; empty where there is only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One context."""

    name: str
    stance: str
    y: int
    rows: Sequence[FigureRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFigure:
    """All that the template needs."""

    groups: Sequence[Group]
    axis_y: int
    height: int
    ticks: Sequence[tuple[int, float]]
    """Each with its place."""
    left: float = LEFT
    right: float = RIGHT
    middle: float = (LEFT + RIGHT) / 2


def evaluation_figure(results: Results) -> EvaluationFigure:
    """One group per context in the recipe's order; in each, the arms in the report's order."""
    groups, top = [], 0
    for name, context in results["contexts"].items():
        cells = [(arm, cell) for arm in arms(results) if (cell := cell_of(results, arm.key, name)) is not None]
        first = top + _HEAD_PIXELS
        rows = [_row(arm, cell, y=first + ROW_PIXELS * i + ROW_PIXELS // 2) for i, (arm, cell) in enumerate(cells)]
        groups.append(Group(name=one_line(name, limit=40), stance=context["stance"], y=top, rows=rows))
        top = first + ROW_PIXELS * len(rows) + _GAP_PIXELS
    return EvaluationFigure(
        groups=groups, axis_y=top, height=top + _AXIS_PIXELS, ticks=[(tick, _x(tick / 100)) for tick in TICKS]
    )


def _row(arm: ArmName, cell: Mapping[str, Any], *, y: int) -> FigureRow:
    names: dict[str, Any] = {"title": _short(arm.title), "pair": _short(arm.pair), "colour": arm.place % NUM_COLOURS, "y": y}
    rate = cell["rate"]
    if rate is None:
        return FigureRow(**names, value="no answer", interval="scored", known=False)
    seeds = [_x(seed["rate"]) for seed in cell["per_seed"] if seed["rate"] is not None]
    return FigureRow(
        **names,
        value=percent(rate["estimate"]),
        interval=interval(rate),
        known=True,
        x=_x(rate["estimate"]),
        low=_x(rate["low"]),
        high=_x(rate["high"]),
        seeds=seeds if len(seeds) > 1 else (),
    )


def _short(text: str) -> str:
    return text if len(text) <= _TITLE_CHARACTERS else text[: _TITLE_CHARACTERS - 1] + "…"


def _x(share: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * share, 3)
