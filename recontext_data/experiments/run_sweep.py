"""Runs or prints the points of a sweep, one after another, and reports what was found."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recontext_data.config.loading import find_recipe
from recontext_data.core.errors import PolicyError
from recontext_data.core.records import content_hash
from recontext_data.evaluation.tasks import require_measurable
from recontext_data.experiments import sweep_report as report
from recontext_data.experiments.sweep_points import Point, points_of, read_over
from recontext_data.reports.screen import Screen


def sweep_points(
    recipe: str,
    overrides: Sequence[str],
    over: str,
    *,
    output: Path = Path(),
    seeds: Sequence[int] = (),
    models: str = "models",
    workers: int = 1,
    prints: bool = False,
    dry_run: bool = False,
    command: str = "",
) -> dict[str, Any] | None:
    """Runs all points, or prints their commands; returns the facts of the report where they were run.

    `over`: a YAML mapping of recipe keys to lists of values. `command`: as typed, for the report.

    Raises:
        RecontextError: of any kind; finished points stay, and the same call continues.
    """
    points = points_of(recipe, overrides, read_over(over), seeds=seeds)
    for point in points:
        require_measurable(point.loaded.recipe)
    name = find_recipe(recipe).stem
    folder = output / "runs" / name / "sweeps" / content_hash([point.name for point in points])[:16]
    if dry_run:
        print(f"would run {len(points)} points (nothing is written):")
        print("\n".join(f"  {point.label:40} {point.name}" for point in points))
        return None
    paths = {point.name: point.write(folder) for point in points}
    if prints:
        _print(points, paths, output, models=models, again=command)
        return None
    for point in points:
        _run(point, paths[point.name], output, workers=workers, models=models)
    return _report(points, folder, output, command=command, recipe=name)


def _output_word(output: Path) -> list[str]:
    return [] if output == Path() else [f"output={output}"]


def _print(points: Sequence[Point], paths: dict[str, Path], output: Path, *, models: str, again: str) -> None:
    """One command a line; each group may run side by side once the group before it is done."""
    folder = [] if models == "models" else [f"models={models}"]
    print("# datasets")
    for point in points:
        print(shlex.join(["recontext", "build", f"recipe={paths[point.name]}", *_output_word(output)]))
    print("# models, each by its arm and seed")
    for point in points:
        for arm in point.loaded.recipe.arms:
            for seed in point.loaded.recipe.training.seeds:
                chosen = [f"arms={arm.name or arm.pair}", f"seeds={seed}"]
                print(
                    shlex.join(["recontext", "train", f"recipe={paths[point.name]}", *chosen, *folder, *_output_word(output)])
                )
    print("# measurements")
    for point in points:
        print(shlex.join(["recontext", "evaluate", f"recipe={paths[point.name]}", *folder, *_output_word(output)]))
    print("# the report")
    print(shlex.join([*shlex.split(again), *_output_word(output)]))


def _run(point: Point, path: Path, output: Path, *, workers: int, models: str) -> None:
    """One point, in processes of its own: each verb reads the point's file and nothing of the other points."""
    print(f"== {point.label}  ({point.name})", file=sys.stderr, flush=True)
    for verb, own in (("train", [f"workers={workers}", f"models={models}"]), ("evaluate", [f"models={models}"])):
        command = [sys.executable, "-m", "recontext_data", verb, f"recipe={path}", f"output={output}", *own]
        # A point's own tables are progress here; standard output is for what the sweep found.
        code = subprocess.run(command, stdout=2, stdin=subprocess.DEVNULL, check=False).returncode
        if code:
            raise PolicyError(f"{point.label}: {verb} ended with exit code {code}, as said above; the same command continues")


def _report(points: Sequence[Point], folder: Path, output: Path, *, command: str, recipe: str) -> dict[str, Any]:
    facts = report.collect(points, output=output, command=command, recipe=recipe)
    report.write(folder, facts)
    Screen().table(*report.rows(facts, intervals=False))
    print(f"\nsweep     {folder / 'sweep.json'}\nreport    {folder / 'report.html'}")
    return facts
