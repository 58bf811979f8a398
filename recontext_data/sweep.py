"""Several values of some options, from one command: `python -m recontext_data.sweep recipe=NAME over=... [key=value ...]`.

    recontext sweep recipe=code_mc_effect 'over={sampler.temperature: [0.7, 1.0]}' seeds=0-2
    recontext sweep recipe=code_mc_effect 'over={training.learning_rate: [1.0e-4, 3.0e-4], sampler.n: [2, 4]}' print=true

Every combination of the values is a point: a recipe of its own under runs/<recipe>/sweeps/<id>/, built, trained and measured
as any other, one after another. `print=true` writes the points' recipes and prints the commands in place of running them, one
per line, for a cluster's queue. The same command then finds all of it done and writes the report.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.cli import RUN_OPTIONS, Arguments, guarded, parse, seed_list
from recontext_data.core.errors import PolicyError, RecipeError

if TYPE_CHECKING:
    from recontext_data.experiments.sweep_points import Point

OPTIONS = {
    "over": (
        "mapping of key to list",
        "the values: over='{sampler.temperature: [0.7, 1.0]}'; of several keys, all combinations",
    ),
    "seeds": ("numbers", "0,1,2 or 0-9; in place of training.seeds, at every point"),
    "workers": ("number", "processes that share the models of a point; 1"),
    "print": ("true | false", "write the points' recipes and print the commands, instead of running them"),
}


@dataclass(frozen=True)
class SweepOptions:
    """What the verb's own options say."""

    over: str | None = None
    seeds: Sequence[int] = ()
    workers: str = "1"
    is_printed: bool = False


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    wanted = _take_out(arguments)
    if arguments.help:
        return _help()
    if arguments.recipe is None or wanted.over is None:
        missing = "recipe" if arguments.recipe is None else "over"
        raise RecipeError(f"{missing}: missing; write recipe=NAME over='{{sampler.temperature: [0.7, 1.0]}}'")
    return sweep(arguments, wanted, words=words)


def _help() -> int:
    print("usage: recontext sweep recipe=NAME over='{key: [value, ...]}' [key=value ...]\n")
    for option, (type_, meaning) in {**RUN_OPTIONS, **OPTIONS}.items():
        print(f"{option}: {type_}\n    {meaning}")
    print("\nEvery option of the recipe can be swept or set: recontext build recipe=NAME --help")
    return 0


def _take_out(arguments: Arguments) -> SweepOptions:
    """The verb's own options, taken out of the overrides."""
    found: dict[str, str] = {}
    rest = []
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key in OPTIONS:
            found[key] = value
        else:
            rest.append(word)
    arguments.overrides = rest
    if found.get("print", "false") not in ("true", "false"):
        raise RecipeError(f"print={found['print']}: will not do; write print=true or print=false")
    workers = found.get("workers", "1")
    if not workers.isdigit() or int(workers) < 1:
        raise RecipeError(f"workers={workers}: will not do; write a number from 1")
    seeds = seed_list(found["seeds"]) if "seeds" in found else []
    return SweepOptions(found.get("over"), seeds, workers, found.get("print") == "true")


def sweep(arguments: Arguments, wanted: SweepOptions, *, words: Sequence[str]) -> int:
    """Runs or prints all points, and reports what was found. `words`: the command line, for the report.

    Raises:
        RecontextError: of any kind; finished points stay, and the same command continues.
    """
    from recontext_data.config.loading import find_recipe
    from recontext_data.core.records import content_hash
    from recontext_data.experiments.sweep_points import points_of, read_over

    assert arguments.recipe is not None and wanted.over is not None
    over = read_over(wanted.over)
    points = points_of(arguments.recipe, arguments.overrides, over, seeds=wanted.seeds)
    for point in points:
        _require_measurable(point)
    recipe = find_recipe(arguments.recipe).stem
    folder = arguments.output / "runs" / recipe / "sweeps" / content_hash([point.name for point in points])[:16]
    if arguments.dry_run:
        print(f"would run {len(points)} points (nothing is written):")
        print("\n".join(f"  {point.label:40} {point.name}" for point in points))
        return 0
    paths = {point.name: point.write(folder) for point in points}
    told = [word for word in words if not word.startswith(("output=", "workers=", "print="))]
    command = shlex.join(["recontext", "sweep", *told])
    if wanted.is_printed:
        _print(points, paths, arguments.output, again=command)
        return 0
    for point in points:
        _run(point, paths[point.name], arguments.output, workers=wanted.workers)
    return _report(points, folder, arguments.output, command=command, recipe=recipe)


def _require_measurable(point: "Point") -> None:
    from recontext_data.evaluation.tasks import require_measurable

    require_measurable(point.loaded.recipe)


def _output(output: Path) -> list[str]:
    return [] if output == Path() else [f"output={output}"]


def _print(points: "Sequence[Point]", paths: "dict[str, Path]", output: Path, *, again: str) -> None:
    """One command a line; each group may run side by side once the group before it is done."""
    print("# datasets")
    for point in points:
        print(shlex.join(["recontext", "build", f"recipe={paths[point.name]}", *_output(output)]))
    print("# models, each by its arm and seed")
    for point in points:
        for arm in point.loaded.recipe.arms:
            for seed in point.loaded.recipe.training.seeds:
                chosen = [f"arms={arm.name or arm.pair}", f"seeds={seed}"]
                print(shlex.join(["recontext", "train", f"recipe={paths[point.name]}", *chosen, *_output(output)]))
    print("# measurements")
    for point in points:
        print(shlex.join(["recontext", "evaluate", f"recipe={paths[point.name]}", *_output(output)]))
    print("# the report")
    print(shlex.join([*shlex.split(again), *_output(output)]))


def _run(point: "Point", path: Path, output: Path, *, workers: str) -> None:
    """One point, in processes of its own: each verb reads the point's file and nothing of the other points."""
    print(f"== {point.label}  ({point.name})", file=sys.stderr, flush=True)
    for verb, own in (("train", [f"workers={workers}"]), ("evaluate", [])):
        command = [sys.executable, "-m", "recontext_data", verb, f"recipe={path}", f"output={output}", *own]
        # A point's own tables are progress here; standard output is for what the sweep found.
        code = subprocess.run(command, stdout=2, stdin=subprocess.DEVNULL, check=False).returncode
        if code:
            raise PolicyError(f"{point.label}: {verb} ended with exit code {code}, as said above; the same command continues")


def _report(points: "Sequence[Point]", folder: Path, output: Path, *, command: str, recipe: str) -> int:
    from recontext_data.experiments import sweep_report as report
    from recontext_data.reports.screen import Screen

    facts = report.collect(points, output=output, command=command, recipe=recipe)
    report.write(folder, facts)
    Screen().table(*report.rows(facts, intervals=False))
    print(f"\nsweep     {folder / 'sweep.json'}\nreport    {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
