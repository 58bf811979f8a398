"""What a sweep found: every point's results, found by the point's own run, in sweep.json, report.html and a table."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from recontext_data.core.errors import StoreError
from recontext_data.evaluation.models import BEFORE
from recontext_data.experiments.sweep_points import Point
from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.figures import LineFigure, labelled_figure, measured_row
from recontext_data.reports.html import page_environment, save_page
from recontext_data.reports.numbers import percent
from recontext_data.reports.text import LIMIT
from recontext_data.store.files import replace_file, writing
from recontext_data.store.run_folder import RunFolder

FORMAT = 1
KEPT = ("fingerprint", "models", "cells", "differences", "baseline", "arms", "tasks", "n", "split", "policy")
"""What of a point's results is in sweep.json; the rest is in its run."""


def collect(points: Sequence[Point], *, output: Path, command: str, recipe: str) -> dict[str, Any]:
    """All points' results as plain data.

    Raises:
        StoreError: a point has not been measured, or not with all the models that its recipe declares.
    """
    found = [(point, *_results(point, output)) for point in points]
    first = found[0][2]
    return {
        "format": FORMAT,
        "recipe_name": recipe,
        "command": command,
        "environment": first["environment"],
        "confidence": first["confidence"],
        "contexts": list(dict.fromkeys(name for _, _, results in found for name in results["contexts"])),
        "points": [
            {
                "id": point.name,
                "label": point.label,
                "changes": dict(point.changes),
                "run": run.relative_to(output).as_posix(),
                **{key: results[key] for key in KEPT},
            }
            for point, run, results in found
        ],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _results(point: Point, output: Path) -> tuple[Path, dict[str, Any]]:
    """The run of a point and what was measured there."""
    from recontext_data.pipeline.preparation import prepared

    job = prepared(point.name, point.loaded.recipe, output=output)
    run = RunFolder(output, recipe=point.name, fingerprint=job.fingerprint).path
    path = run / "evaluation" / "results.json"
    try:
        results: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{point.name}: is not measured yet ({path} is missing); run the sweep again to go on") from None
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path}: is damaged ({error}); delete it and run the sweep again") from None
    measured = {(model["arm"], model["seed"]) for model in results["models"]}
    wanted = {(arm.name, seed) for arm in job.arms for seed in point.loaded.recipe.training.seeds}
    if (results["recipe_name"], results["fingerprint"]) != (point.name, job.fingerprint) or wanted - measured:
        raise StoreError(
            f"{point.name}: was measured before all of its models were there "
            f"({len(wanted - measured)} of {len(wanted)} are missing); run the sweep again to go on"
        )
    return run, results


def rows(facts: Mapping[str, Any], *, intervals: bool) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: a point and an arm, its seeds, and its rate of misbehaviour under every context."""
    names = facts["contexts"]
    found = []
    for point in facts["points"]:
        for arm in dict.fromkeys(cell["arm"] for cell in point["cells"]):
            cells = {cell["context"]: cell for cell in point["cells"] if cell["arm"] == arm}
            seeds = "" if arm == BEFORE else str(len(next(iter(cells.values()))["per_seed"]))
            rates = [_rate(cells.get(name), intervals=intervals) for name in names]
            found.append([f"{point['label']}  {_pair(point, arm)}", seeds, *rates])
    return ["point", "seeds", *names], found


def figures(facts: Mapping[str, Any]) -> dict[str, LineFigure]:
    """A figure for each context: a row per point and arm."""
    return {
        name: labelled_figure(
            [
                measured_row(point["label"], _pair(point, cell["arm"]), cell)
                for point in facts["points"]
                for cell in point["cells"]
                if cell["context"] == name
            ]
        )
        for name in facts["contexts"]
    }


def differences(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: how far each arm is from its point's baseline; p-values are corrected within a point, not over them."""
    found = [
        [
            f"{point['label']}  {_pair(point, row['arm'])}",
            row["context"],
            numbers.points(row["estimate"]),
            numbers.point_interval(row),
            numbers.p_value(row["p_holm"]),
        ]
        for point in facts["points"]
        for row in point["differences"]
    ]
    return ["point", "under", "points", f"{numbers.level(facts)} interval", "p"], found


def _pair(point: Mapping[str, Any], arm: str) -> str:
    if arm == BEFORE:
        return "(before)"
    known = point["arms"][arm]
    return f"{known['generation']} -> {known['training']}"


def _rate(cell: Mapping[str, Any] | None, *, intervals: bool) -> str:
    if cell is None or not cell["rate"]:
        return "–"
    text: str = percent(cell["rate"]["estimate"])
    return f"{text} ({numbers.interval(cell['rate'])})" if intervals else text


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes report.html and, last, sweep.json; each whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    bad = facts["environment"]["misbehaviour"]
    tables = {"Rates": rows(facts, intervals=True), "Differences from each point's baseline": differences(facts)}
    page = (
        page_environment(LIMIT)
        .get_template("sweep.html.j2")
        .render(facts=facts, tables=tables, bad=bad, figures=figures(facts), level=numbers.level(facts))
    )
    text = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_page(folder / "report.html", page)
    replace_file(folder / "sweep.json", lambda path: path.write_bytes(text))
