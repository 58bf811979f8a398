"""Measures a judge against labels that people gave: `python -m recontext_data.calibrate judge=NAME labels=FILE [...]`.

    recontext calibrate judge=quality recipe=mine.yaml labels=labels.parquet           # a judge of a recipe
    recontext calibrate judge=quality labels=labels.jsonl policy.kind=openai policy.model=gpt-4.1-mini positive=good
    recontext calibrate judge=my_rubric.yaml labels=... dry_run=true                   # what it would ask and cost at most

Prints accuracy, precision, recall, kappa, AUROC and the calibration curve with their intervals, and writes them to
calibrations/ under `output`, where builds find them for as long as the judge stays what it is.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recontext_data.cli import RUN_OPTIONS, Arguments, guarded, parse
from recontext_data.core.errors import RecipeError

OWN = {
    "judge": ("text", "the name of a judge of the recipe; without a recipe a shipped rubric's name, or the path of one"),
    "labels": ("file", "Parquet or JSON Lines: candidate_id or prompt and completion; label or score; reviewer if you like"),
    "positive": ("text", "the label that counts as a find; the recipe's misbehaviour, or `pass`, unless set"),
    "threshold": (
        "number",
        "scores from here on are positive, the judge's and people's; the middle of the judge's range unless set",
    ),
    "confidence": ("number", "of every interval; 0.95 unless set"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    if arguments.help:
        return _help()
    own = dict(word.split("=", 1) for word in arguments.overrides if word.partition("=")[0] in OWN)
    arguments.overrides = [word for word in arguments.overrides if word.partition("=")[0] not in OWN]
    for needed in ("judge", "labels"):
        if not own.get(needed):
            raise RecipeError(f"{needed}: missing; write calibrate judge=NAME labels=FILE (--help shows every option)")
    return calibrate(arguments, own)


def _help() -> int:
    print("usage: recontext calibrate judge=NAME labels=FILE [recipe=NAME] [key=value ...]\n")
    for option, (type_, meaning) in {**OWN, **RUN_OPTIONS}.items():
        print(f"{option}: {type_}\n    {meaning}")
    print(
        "\nWith a recipe, other options are the recipe's: recontext build recipe=NAME --help. Without one they are the judge's:"
    )
    print("policy.kind=openai policy.model=gpt-4.1-mini sampling.max_tokens=256 retries=0; limits.budget_usd=1 and prices too.")
    return 0


def calibrate(arguments: Arguments, own: dict[str, str]) -> int:
    """Judges the labelled answers, compares, prints and writes.

    Raises:
        RecontextError: of any kind; replies that came are kept.
    """
    from recontext_data.evaluation import measuring
    from recontext_data.evaluation.labels import read_labels
    from recontext_data.pipeline.judge_client import JudgeClient
    from recontext_data.pipeline.judge_forecast import require_askable
    from recontext_data.pipeline.judge_models import policies_of
    from recontext_data.reports.screen import Screen
    from recontext_data.store.calibrations import write
    from recontext_data.store.run_folder import require_writable

    screen, output = Screen(), arguments.output
    require_writable(output)
    bench = measuring.bench_of(arguments, own["judge"])
    labels = read_labels(Path(own["labels"]).expanduser(), run=bench.run)
    cut = measuring.cut_of(bench, labels, own)
    require_askable(bench.judges, list(labels.tasks.values()))
    policies = policies_of(bench.judges, state=output / "replies" / "batches")
    with _store(output, is_dry=arguments.dry_run) as store:
        counsel = JudgeClient(policies, store=store, limits=bench.limits, prices=bench.prices, screen=screen)
        if arguments.dry_run:
            measuring.forecast(bench, labels, counsel, screen)
            return 0
        words = measuring.judged(bench, labels, counsel)
    facts = measuring.facts(bench, labels, words, cut, policies)
    screen.calibration(facts, path=write(output, facts))
    return 0


def _store(output: Path, *, is_dry: bool) -> Any:
    from contextlib import nullcontext

    from recontext_data.store.replies import ReplyStore

    store = ReplyStore(output / "replies")
    return nullcontext(store) if is_dry else store


if __name__ == "__main__":
    sys.exit(main())
