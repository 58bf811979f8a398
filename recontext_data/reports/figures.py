"""The geometry of the report's one figure: a rate per context as a tick on its 95 % interval. Pure; the template draws it.

Horizontal positions are percentages of the figure's width and vertical ones are pixels, so that the SVG fits a telephone
and a wide window without scaling its letters. No drawing library: six kinds of shapes do not need one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recontext_data.reports.numbers import EN_DASH, Rate, percent

ROW_PIXELS = 50
TALL_PIXELS = 68
"""Of a row whose name stands on a line of its own."""
_TOP_PIXELS = 6
_AXIS_PIXELS = 26
TICKS = (0, 25, 50, 75, 100)
_LINE_CHARACTERS = 38
"""Name, stance and numbers that stand beside each other on a telephone, spaces between them aside."""
_NAME_CHARACTERS = 40
"""Of a name on a line of its own; the tables have every name whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One tick and its interval."""

    name: str
    stance: str
    value: str
    interval: str
    label_y: int
    value_y: int
    """Of the numbers; also of the stance where the name stands alone."""
    y: int
    x: float
    low: float
    high: float
    known: bool
    """False where nothing was judged: a line without a tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFigure:
    """All that the template needs; x in percent, y in pixels."""

    marks: Sequence[Mark]
    top: int
    axis_y: int
    height: int
    is_tall: bool
    """Whether names stand on lines of their own."""
    ticks: Sequence[int] = TICKS


def rate_figure(rates: Sequence[Rate]) -> LineFigure:
    """One row per rate, in order; `name (judge)` where several judges read the same context."""
    several_judges = len({rate.judge for rate in rates}) > 1
    return labelled_figure(
        [
            {
                "name": f"{rate.context} ({rate.judge})" if several_judges else rate.context,
                "stance": rate.stance,
                "value": rate.misbehaviour.percent,
                "interval": rate.misbehaviour.interval,
                "share": rate.misbehaviour.value,
                "low": rate.misbehaviour.low,
                "high": rate.misbehaviour.high,
            }
            for rate in rates
        ]
    )


def labelled_figure(rows: Sequence[Mapping[str, Any]]) -> LineFigure:
    """One row per share: `name`, `stance`, `value` and `interval` as text, `share`, `low` and `high` as numbers or None."""
    texts = ("name", "stance", "value", "interval")
    is_tall = any(sum(len(row[key]) for key in texts) > _LINE_CHARACTERS for row in rows)
    pixels = TALL_PIXELS if is_tall else ROW_PIXELS
    axis = _TOP_PIXELS + pixels * len(rows) + 4
    return LineFigure(
        marks=[_mark(row, top=_TOP_PIXELS + pixels * i, is_tall=is_tall) for i, row in enumerate(rows)],
        top=_TOP_PIXELS,
        axis_y=axis,
        height=axis + _AXIS_PIXELS,
        is_tall=is_tall,
    )


def _mark(row: Mapping[str, Any], *, top: int, is_tall: bool) -> Mark:
    name = row["name"]
    return Mark(
        name=name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…",
        **{key: row[key] for key in ("stance", "value", "interval")},
        label_y=top + 16,
        value_y=top + (34 if is_tall else 16),
        y=top + (51 if is_tall else 33),
        x=round(100 * (row["share"] or 0.0), 3),
        low=round(100 * (row["low"] or 0.0), 3),
        high=round(100 * (row["high"] or 0.0), 3),
        known=row["share"] is not None,
    )


def measured_row(name: str, stance: str, cell: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row of `labelled_figure` from a cell of an evaluation; None, or a cell without a rate, is a line without a tick."""
    rate = cell["rate"] if cell else None
    if rate is None:
        return {"name": name, "stance": stance, "value": EN_DASH, "interval": "", "share": None, "low": None, "high": None}
    return {
        "name": name,
        "stance": stance,
        "value": percent(rate["estimate"]),
        "interval": f"{100 * rate['low']:.1f}{EN_DASH}{100 * rate['high']:.1f}",
        "share": rate["estimate"],
        "low": rate["low"],
        "high": rate["high"],
    }
