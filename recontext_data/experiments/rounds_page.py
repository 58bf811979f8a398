"""All rounds beside each other: the rows of a table for the screen, and report.html."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.figures import LineFigure, labelled_figure, measured_row
from recontext_data.reports.html import page_environment, save_page
from recontext_data.reports.numbers import percent
from recontext_data.reports.text import LIMIT

Facts = Mapping[str, Any]


def table(facts: Facts, *, intervals: bool) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: an arm's rate of misbehaviour under every context, round by round, and that of its rows."""
    names = facts["contexts"]
    rows = []
    for arm in dict.fromkeys(cell["arm"] for cell in facts["rounds"][0]["cells"]):
        for one in facts["rounds"]:
            if arm == numbers.BEFORE and one["round"] > 1:
                continue  # the policy before is the same in every round
            rates = [_rate(one["cells"], arm, name, intervals=intervals) for name in names]
            rows.append([arm, "" if arm == numbers.BEFORE else str(one["round"]), _rows(one, arm, facts), *rates])
    return ["arm", "round", "rows", *names], rows


def figures(facts: Facts) -> dict[str, LineFigure]:
    """A figure for each context: a row per arm and round, arm by arm, the policy before all of it first."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in facts["contexts"]}
    for arm in dict.fromkeys(cell["arm"] for cell in facts["rounds"][0]["cells"]):
        for one in facts["rounds"]:
            is_before = arm == numbers.BEFORE
            if is_before and one["round"] > 1:
                continue
            for cell in one["cells"]:
                if cell["arm"] == arm:
                    title, round_ = ("before training", "") if is_before else (arm, f"round {one['round']}")
                    found[cell["context"]].append(measured_row(title, round_, cell))
    return {name: labelled_figure(rows) for name, rows in found.items()}


def _rate(cells: Any, arm: str, context: str, *, intervals: bool) -> str:
    cell = next(cell for cell in cells if (cell["arm"], cell["context"]) == (arm, context))
    if not cell["rate"]:
        return "–"
    text: str = percent(cell["rate"]["estimate"])
    return f"{text} ({numbers.interval(cell['rate'])})" if intervals else text


def _rows(one: Facts, arm: str, facts: Facts) -> str:
    """The share of misbehaviour in what was trained on, all seeds together."""
    labels = [chain["rows"] for chain in one["chains"] if chain["arm"] == arm]
    total = sum(sum(found.values()) for found in labels)
    hits = sum(found.get(facts["environment"]["misbehaviour"], 0) for found in labels)
    return percent(hits / total) if total else ""


def write_page(folder: Path, facts: Facts) -> Path:
    """Writes `folder/report.html`, whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    headers, rows = table(facts, intervals=True)
    page = (
        page_environment(LIMIT)
        .get_template("rounds.html.j2")
        .render(
            facts=facts,
            headers=headers,
            rows=rows,
            figures=figures(facts),
            level=numbers.level(facts),
            bad=facts["environment"]["misbehaviour"],
        )
    )
    return save_page(folder / "report.html", page)
