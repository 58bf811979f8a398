"""Calibrates one judge: asks it about labelled answers, compares, prints and writes the result."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from recontext_data.evaluation import measuring
from recontext_data.evaluation.labels import read_labels
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_forecast import require_askable
from recontext_data.pipeline.judge_models import policies_of
from recontext_data.reports.screen import Screen
from recontext_data.store.calibrations import write
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import require_writable


def calibrate_judge(
    judge: str,
    labels: Path,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    output: Path = Path(),
    positive: str | None = None,
    threshold: float | None = None,
    confidence: float = 0.95,
    dry_run: bool = False,
) -> dict[str, Any] | None:
    """Judges the labelled answers and compares; returns what was measured, None after a dry run.

    `judge`: a judge of the recipe; without a recipe, a rubric's name or path. `overrides`: of the recipe, else of the judge.

    Raises:
        RecontextError: of any kind; replies that came are kept.
    """
    screen = Screen()
    require_writable(output)
    bench = measuring.bench_of(judge, recipe=recipe, overrides=overrides, output=output)
    labelled = read_labels(labels, run=bench.run)
    rule = measuring.cut_of(bench, labelled, positive=positive, threshold=threshold, confidence=confidence)
    require_askable(bench.judges, list(labelled.tasks.values()))
    policies = policies_of(bench.judges, state=output / "replies" / "batches")
    store = ReplyStore(output / "replies")
    with nullcontext(store) if dry_run else store:
        client = JudgeClient(policies, store=store, limits=bench.limits, prices=bench.prices, screen=screen)
        if dry_run:
            measuring.forecast(bench, labelled, client, screen)
            return None
        words = measuring.judged(bench, labelled, client)
    facts = measuring.facts(bench, labelled, words, rule, policies)
    screen.calibration(facts, path=write(output, facts))
    return facts
