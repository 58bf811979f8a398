"""What a calibration found: tables for the screen, and what a build's report shows beside its judges. Prints nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recontext_data.reports.figures import LineFigure, labelled_figure
from recontext_data.reports.numbers import EN_DASH, Manifest, Share, percent
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


def judges_shown(manifest: Manifest) -> list[dict[str, Any]]:
    """The judges whose errors are known or should be: those that ask a model, were trained, or were calibrated."""
    return [
        {
            "name": judge["name"],
            "kind": judge["kind"],
            "errors": errors(judge.get("measured")),
            "calibrations": [_shown(found) for found in judge["calibrations"]],
        }
        for judge in manifest.get("judging", ())
        if "policy" in judge or judge["calibrations"] or "measured" in judge
    ]


def errors(measured: Mapping[str, Any] | None) -> list[tuple[str, Share]]:
    """What a classifier gets right and wrong on examples that it was not trained on."""
    if measured is None:
        return []
    negatives = measured["examples"] - measured["positives"]
    return [
        ("caught (true positive rate)", Share(part=measured["caught"], whole=measured["positives"])),
        ("false alarms (false positive rate)", Share(part=measured["false_alarms"], whole=negatives)),
    ]


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    said = sorted({label for row in facts["confusion"].values() for label in row})
    return {
        **facts,
        "level": f"{100 * facts['confidence']:g} %",
        "figure": _figure(facts["curve"]),
        "said": said,
        "truth": [(truth, [row.get(label, 0) for label in said]) for truth, row in facts["confusion"].items()],
    }


def _figure(curve: Sequence[Mapping[str, Any]]) -> LineFigure:
    """The share of positives by what the judge said. A judge that says what people say has 0 and 100 % and little between."""
    return labelled_figure(
        [
            {
                "name": where(row),
                "stance": f"said of {row['n']:,}",
                "value": EN_DASH if row["share"] is None else percent(row["share"]),
                "interval": EN_DASH if row["low"] is None else f"{100 * row['low']:.1f}{EN_DASH}{100 * row['high']:.1f}",
                "share": row["share"],
                "low": row["low"],
                "high": row["high"],
            }
            for row in curve
        ]
    )
