"""What can an evaluation see? `python -m recontext_data.power base=.4 effect=.1 tasks=200 seeds=3 [answers=1] [seed_sd=.03]`.

Prints how likely the paired test is to see an effect, the smallest effect that it sees with 80 %, and both for other numbers of
seeds and tasks. Nothing is run and no recipe is needed. `--help` shows every option.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import print_help, read_options, wants_help
from recontext_data.config.verb_options import PowerOptions
from recontext_data.core.errors import RecipeError

OPTIONS = PowerOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if not words or wants_help(words):
        return print_help(OPTIONS)
    options, _ = read_options(OPTIONS, words)
    from recontext_data.reports.power import show_power
    from recontext_data.stats.power import Design, Noise

    try:
        noise = Noise(seed_sd=options.seed_sd, shared=options.shared, arm=options.arm, model=options.model)
        design = Design(tasks=options.tasks, seeds=options.seeds, answers=options.answers, alpha=options.alpha, noise=noise)
        show_power(options.base, options.effect, design)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
