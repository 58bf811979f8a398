"""What a calibration found, as tables for the screen. Builds them; prints nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recontext_data.reports.tables import Fitted, Safe, table


def tables(facts: Mapping[str, Any], *, safe: Safe) -> list[Fitted]:
    """The statistics, and the curve: the share of positives by what the judge said."""
    unscored = f"{facts['unscored']:,}"
    statistics = [
        [row["name"], number(row["estimate"]), interval(row), f"{row['n']:,}", unscored] for row in facts["statistics"]
    ]
    level = f"{100 * facts['confidence']:g} % interval"
    curve = [
        [where(row), f"{row['n']:,}", f"{row['positive']:,}", number(row["share"]), interval(row)] for row in facts["curve"]
    ]
    return [
        table(["statistic", "estimate", level, "n", "unscored"], statistics, safe=safe),
        table(["judge says", "n", "positive", "share", level], curve, safe=safe),
    ]


def lines(facts: Mapping[str, Any], *, path: Path) -> list[str]:
    """What the tables cannot say."""
    labels = facts["labels"]
    left = ", ".join(f"{count} {reason}" for reason, count in labels["left_out"].items() if count)
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["unscored_reasons"].items())
    by = f" by {len(labels['reviewers'])} reviewers" if labels["reviewers"] else ""
    cut = "" if facts["threshold"] is None else f"; scores from {facts['threshold']:g} on count as it"
    return [
        f"judge {facts['judge']} on {facts['items']:,} answers to {facts['tasks']:,} tasks{by}; positive is "
        f"{facts['positive']}{cut}",
        *([f"reviewers disagree on {labels['disagreements']}; left out: {left or 'none'}"] if by or left else []),
        *([f"unscored: {reasons}"] if reasons else []),
        f"written to {path}",
    ]


def where(row: Mapping[str, Any]) -> str:
    """`7`, `6 to 7` or a label."""
    if "label" in row:
        return str(row["label"])
    return f"{row['from']:g}" if row["from"] == row["to"] else f"{row['from']:g} to {row['to']:g}"


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def interval(row: Mapping[str, Any]) -> str:
    """`0.712-0.854`; a dash where there is none."""
    return "-" if row["low"] is None else f"{row['low']:.3f}-{row['high']:.3f}"
