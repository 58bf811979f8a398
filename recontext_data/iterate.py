"""Expert iteration: `python -m recontext_data.iterate recipe=code_mc_effect rounds=3 [key=value ...]`.

    recontext iterate recipe=code_mc_effect rounds=3                       # every round is trained from the base model
    recontext iterate recipe=code_mc_effect rounds=3 rounds.start=continue # from the model of the round before

A round is a build, a training of every arm and seed, and a measurement. From the second on, each arm and seed samples from
its own model of the round before: a chain. Judges, selection, gates and training are the recipe's in every round. `rounds=k`
is short for `rounds.count=k`; a recipe can say both, as `rounds: {count: 3, start: base}`. The same command continues what
was stopped, and with a larger k it adds rounds to those that are there.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import read_options, wants_help, with_seeds
from recontext_data.config.verb_options import IterateOptions
from recontext_data.core.errors import RecipeError

OPTIONS = IterateOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        from recontext_data.config.help import verb_help

        return verb_help(OPTIONS, words, section="rounds")
    options, overrides = read_options(OPTIONS, words)
    if options.rounds is not None:
        if any(word.startswith("rounds.count=") for word in overrides):
            raise RecipeError("rounds.count: given twice, the other time as rounds=; write it once")
        overrides.append(f"rounds.count={options.rounds}")
    from recontext_data.config.loading import load
    from recontext_data.experiments.run_rounds import iterate_rounds

    loaded = load(options.recipe, with_seeds(overrides, options.seeds))
    iterate_rounds(
        loaded,
        output=options.output,
        models=options.models,
        workers=options.workers,
        dry_run=options.dry_run,
        words=words,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
