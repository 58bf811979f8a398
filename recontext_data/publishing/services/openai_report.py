"""What the screen says of a fine-tuning: rows that were checked, what jobs will cost, and what became of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.core.errors import InputError
from recontext_data.publishing.formats.export import unpaired
from recontext_data.publishing.services.openai_config import OpenAIOptions
from recontext_data.publishing.sources import JobSource

if TYPE_CHECKING:
    from recontext_data.publishing.services.openai_files import DataFile, Preflight
    from recontext_data.publishing.services.openai_train import JobOutcome
    from recontext_data.reports.screen import Screen


def report_rows(preflight: "Preflight", screen: "Screen", *, path: Path | None) -> None:
    """What the check found: rows in, good, bad by reason with the first ids."""
    bad, rows = preflight.dropped.total(), preflight.rows_in.total()
    screen.note(f"{rows:,} rows checked: {rows - bad:,} good, {bad:,} bad")
    if preflight.unpaired:
        screen.note(unpaired(preflight.unpaired))
    if preflight.duplicates:
        screen.note(f"{preflight.duplicates:,} rows say exactly what another row of their file says")
    if bad:
        found = [[reason, f"{count:,}", preflight.first[reason]] for reason, count in preflight.dropped.most_common()]
        screen.table(["bad rows", "rows", "first"], found)
        if path:
            screen.note(f"every bad row with its reason: {path}")


def report_plan(
    source: JobSource, files: "Mapping[tuple[str, str], DataFile]", options: OpenAIOptions, screen: "Screen"
) -> float | None:
    """Rows, tokens and cost of each arm; returns the cost of all jobs, None where it is not known."""
    from recontext_data.core.prices import price_of
    from recontext_data.reports.numbers import money

    listed = price_of(options.model or "", {})
    rate = options.check.usd_per_million_tokens
    rate = rate if rate is not None else (listed.training if listed else None)
    epochs = options.job.epochs if isinstance(options.job.epochs, int) else None
    seeds = len(options.seeds or source.seeds)
    rows, total = [], 0
    for (arm, split), file in files.items():
        total += file.tokens * seeds if split == "train" else 0
        rows.append([arm, split, f"{file.num_rows:,}", f"{file.tokens:,}", f"{file.num_bytes / 1e6:,.1f}"])
    screen.table(["arm", "split", "rows", "tokens", "MB"], rows)
    about = "" if options.check.tokenizer else "about "
    once = None if rate is None else total * rate / 1e6
    cost = None if once is None or epochs is None else once * epochs
    jobs = seeds * sum(split == "train" for _, split in files)
    if cost is not None:
        print(f"{jobs} jobs, {about}{total * (epochs or 1):,} tokens in {epochs} epochs, {about}{money(cost)}")
    else:
        why = "set check.usd_per_million_tokens" if once is None else "the service chooses the epochs; set job.epochs to know"
        print(f"{jobs} jobs, {about}{total:,} tokens and {money(once)} per epoch ({why})")
    return cost


def require_budget(cost: float | None, options: OpenAIOptions) -> None:
    """Raises InputError where the jobs may cost more than check.budget_usd."""
    budget = options.check.budget_usd
    if budget is None or (cost is not None and cost <= budget):
        return
    if cost is None:
        raise InputError(
            f"check.budget_usd={budget:g}: the cost is not known; set job.epochs, and check.usd_per_million_tokens for a "
            "model without a listed price"
        )
    raise InputError(f"check.budget_usd={budget:g}: the jobs would cost about ${cost:,.2f}; nothing was sent")


def report_outcomes(outcomes: "Sequence[JobOutcome]", screen: "Screen", *, path: Path) -> None:
    """Every job with its model or why there is none; then how many models are missing and which."""
    rows = [
        [one.spec.arm, str(one.spec.seed), one.status, "-" if one.loss is None else f"{one.loss:.4f}", one.job_id or "-"]
        for one in outcomes
    ]
    screen.table(["arm", "seed", "status", "loss", "job"], rows)
    for one in outcomes:
        if one.model:
            print(f"{one.spec.arm}  seed {one.spec.seed}  {one.model}")
    missing = [one for one in outcomes if not one.model]
    for one in missing:
        screen.note(f"missing: {one.spec.arm}, seed {one.spec.seed}: {one.status}{f': {one.reason}' if one.reason else ''}")
    print(f"{len(outcomes) - len(missing)} of {len(outcomes)} models are there; {path}")
