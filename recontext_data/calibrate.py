"""Measures a judge against labels that people gave: `python -m recontext_data.calibrate judge=NAME labels=FILE [...]`.

    recontext calibrate judge=quality recipe=mine.yaml labels=labels.parquet           # a judge of a recipe
    recontext calibrate judge=quality labels=labels.jsonl policy.kind=openai policy.model=gpt-4.1-mini positive=good
    recontext calibrate judge=my_rubric.yaml labels=... dry_run=true                   # what it would ask and cost at most

Prints accuracy, precision, recall, kappa, AUROC and the calibration curve with their intervals, and writes them to
calibrations/ under `output`, where builds find them for as long as the judge stays what it is.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import print_help, read_options, wants_help
from recontext_data.config.verb_options import CalibrateOptions

OPTIONS = CalibrateOptions
OVERRIDES = """
With a recipe, other options are the recipe's: recontext build recipe=NAME --help. Without one they are the judge's:
policy.kind=openai policy.model=gpt-4.1-mini sampling.max_tokens=256 retries=0; limits.budget_usd=1 and prices too."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        print_help(OPTIONS, usage="judge=NAME labels=FILE [recipe=NAME]")
        print(OVERRIDES)
        return 0
    options, overrides = read_options(OPTIONS, words)
    from recontext_data.evaluation.calibrate_judge import calibrate_judge

    calibrate_judge(overrides=overrides, **{name: getattr(options, name) for name in type(options).model_fields})
    return 0


if __name__ == "__main__":
    sys.exit(main())
