"""Trains a model on each arm of a recipe, for each seed: `python -m recontext_data.train recipe=code_mc [key=value ...]`.

    recontext train recipe=code_mc seeds=0,1,2
    recontext train recipe=code_mc arms='default -> hack' seeds=3      # one model: for a cluster's queue
    accelerate launch --config_file recontext_data/training/accelerate/fsdp.yaml -m recontext_data.train recipe=mine.yaml

What is not built yet is built first; what is trained already is left alone.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import read_options, wants_help, with_seeds
from recontext_data.config.verb_options import TrainOptions

OPTIONS = TrainOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        from recontext_data.config.help import verb_help

        return verb_help(OPTIONS, words, section="training")
    options, overrides = read_options(OPTIONS, words)
    from recontext_data.config.loading import load
    from recontext_data.training.run import train_arms

    train_arms(
        load(options.recipe, with_seeds(overrides, options.seeds)),
        output=options.output,
        arms=options.arms,
        models=options.models,
        workers=options.workers,
        dry_run=options.dry_run,
        words=words,
        build_command=f"recontext build recipe={options.recipe} {' '.join(overrides)}".strip(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
