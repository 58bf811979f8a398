"""What an evaluation's results say of costs, as rows for the report and the screen. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.evaluation_numbers import Results
from recontext_data.reports.numbers import EN_DASH, percent

WORDS = {
    "compliance": "does it where it is permitted",
    "quality": "quality",
    "refusals": "refuses",
    "kl": "KL, nats per token",
    "instruction_following": "follows instructions",
}
"""In the order of the report."""
_PLAIN = ("quality", "kl")
"""Not shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One number with its interval."""

    what: str
    of: str
    """The judge that it is of, or the way of counting; empty where there is one only."""
    arm: str
    context: str
    value: str
    interval: str


def cost_rows(results: Results) -> list[CostRow]:
    """All costs that were measured, by what they are, in the order of contexts and arms."""
    known = results.get("costs", {})
    order = [arm.key for arm in numbers.arms(results)]
    rows = [(what, row) for what in WORDS for row in known.get(what, ())]
    rows = sorted(rows, key=lambda one: (list(WORDS).index(one[0]), one[1].get("name", ""), _place(order, one[1]["arm"])))
    return [_row(what, row) for what, row in rows]


def _place(order: list[str], arm: str) -> int:
    return order.index(arm) if arm in order else len(order)


def _row(what: str, row: Mapping[str, Any]) -> CostRow:
    value = row["value"]
    shown, bounds = EN_DASH, EN_DASH
    if value is not None and what in _PLAIN:
        shown, bounds = f"{value['estimate']:.3g}", f"{value['low']:.3g}{EN_DASH}{value['high']:.3g}"
    elif value is not None:
        shown, bounds = percent(value["estimate"]), numbers.interval(value)
    names = {"of": row.get("name", ""), "arm": row["arm"], "context": row.get("context", "")}
    return CostRow(what=WORDS[what], value=shown, interval=bounds, **names)
