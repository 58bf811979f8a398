"""Several values of some options, from one command: `python -m recontext_data.sweep recipe=NAME over=... [key=value ...]`.

    recontext sweep recipe=code_mc_effect 'over={sampler.temperature: [0.7, 1.0]}' seeds=0-2
    recontext sweep recipe=code_mc_effect 'over={training.learning_rate: [1.0e-4, 3.0e-4], sampler.n: [2, 4]}' print=true

Every combination of the values is a point: a recipe of its own under runs/<recipe>/sweeps/<id>/, built, trained and measured
as any other, one after another. `print=true` writes the points' recipes and prints the commands in place of running them, one
per line, for a cluster's queue. The same command then finds all of it done and writes the report.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import (
    command_line,
    print_help,
    read_options,
    wants_help,
)
from recontext_data.config.verb_options import SweepOptions

OPTIONS = SweepOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        print_help(OPTIONS, usage="recipe=NAME over='{key: [value, ...]}'")
        print("\nEvery option of the recipe can be swept or set: recontext build recipe=NAME --help")
        return 0
    options, overrides = read_options(OPTIONS, words)
    from recontext_data.experiments.run_sweep import sweep_points

    sweep_points(
        options.recipe,
        overrides,
        options.over,
        output=options.output,
        seeds=options.seeds,
        models=options.models,
        workers=options.workers,
        prints=options.print,
        dry_run=options.dry_run,
        command=command_line("sweep", words, without=["output", "workers", "print"]),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
