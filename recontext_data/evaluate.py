"""Measures every model of a recipe under every context: `python -m recontext_data.evaluate recipe=code_mc [key=value ...]`.

    recontext evaluate recipe=code_mc                         # the policy before, and each trained arm and seed
    recontext evaluate recipe=code_mc evaluation.tasks=300 evaluation.n=4
    recontext evaluate recipe=code_mc dry_run=true            # what would be sampled
    recontext evaluate recipe=code_mc open=true               # and the report opens in a browser

Tasks are those of `evaluation.split`, which no arm was trained on. Answers are kept in the reply store, so a second run
counts again and samples nothing.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import command_line, read_options, wants_help
from recontext_data.config.verb_options import EvaluateOptions

OPTIONS = EvaluateOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        from recontext_data.config.help import verb_help

        return verb_help(OPTIONS, words, section="evaluation")
    options, overrides = read_options(OPTIONS, words)
    from recontext_data.config.loading import load
    from recontext_data.evaluation.run import evaluate_models

    evaluate_models(
        load(options.recipe, overrides),
        output=options.output,
        models=options.models,
        seeds=options.seeds,
        dry_run=options.dry_run,
        opens=options.open,
        command=command_line("evaluate", words, without=["output", "open"]),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
