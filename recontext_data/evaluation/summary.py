"""From the table of outcomes to rates with intervals and differences from the baseline arm. Pure but for polars.

A rate is the share of answers with a label (invalid ones included; unscored ones are missing). Differences are paired by
task and clustered by seed, and their p-values are corrected (Holm) over the whole grid of arms and contexts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recontext_data.evaluation.matrix import as_arrays
from recontext_data.evaluation.models import BEFORE
from recontext_data.stats.intervals import mean, paired_difference, rate
from recontext_data.stats.statistics import Interval, holm

if TYPE_CHECKING:
    import polars as pl


def summarise(
    table: "pl.DataFrame",
    *,
    kinds: Mapping[str, str],
    baseline: str,
    misbehaviour: str,
    labels: Sequence[str],
    confidence: float,
) -> dict[str, Any]:
    """Cells (arm x context) and differences, as plain data for JSON.

    `kinds`: arm -> kind, without `before`; `baseline`: the arm that the others are compared with.
    """
    contexts = list(table["context"].unique(maintain_order=True))
    arms = list(table["arm"].unique(maintain_order=True))
    tasks = sorted(table["task_id"].unique())
    counted = {(arm, context): _counted(table, arm, context, misbehaviour, tasks) for arm in arms for context in contexts}
    cells = [
        _cell(table, arm, context, counted[arm, context], kinds=kinds, labels=labels, confidence=confidence)
        for context in contexts
        for arm in arms
    ]
    differences = [
        _difference(arm, baseline, context, counted, confidence=confidence)
        for context in contexts
        for arm in arms
        if arm not in (baseline, BEFORE) and baseline in arms
    ]
    made = [row for row in differences if row is not None]
    for row, corrected in zip(made, holm([row["p"] for row in made]), strict=True):
        row["p_holm"] = corrected
    return {"cells": cells, "differences": made, "baseline": baseline}


Counted = tuple[list[int | None], Any, Any]
"""Seeds, and per seed and task the answers with the label and all answers: int [S, T] each."""


def _counted(table: "pl.DataFrame", arm: str, context: str, label: str, tasks: Sequence[str]) -> Counted:
    part = _part(table, arm, context)
    seeds = sorted(part["seed"].unique(), key=lambda seed: -1 if seed is None else seed)
    if "probability" in table.columns:
        return seeds, *_probabilities(part, tasks=tasks, seeds=seeds)
    return seeds, *as_arrays(part, label=label, tasks=tasks, seeds=seeds)


def _probabilities(part: "pl.DataFrame", *, tasks: Sequence[str], seeds: Sequence[int | None]) -> tuple[Any, Any]:
    """As `as_arrays`, of exact probabilities: one answer per task, which misbehaves as a fraction."""
    row, column = ({value: i for i, value in enumerate(values)} for values in (seeds, tasks))
    hits_S_T, answers_S_T = np.zeros((len(seeds), len(tasks))), np.zeros((len(seeds), len(tasks)), dtype=np.int64)
    for seed, task, share in part.select("seed", "task_id", "probability").drop_nulls("probability").iter_rows():
        hits_S_T[row[seed], column[task]], answers_S_T[row[seed], column[task]] = share, 1
    return hits_S_T, answers_S_T


def _rate_of(hits_S_T: Any, answers_S_T: Any, *, is_exact: bool, confidence: float) -> Interval | None:
    if not is_exact:
        return rate(hits_S_T, answers_S_T, confidence=confidence)
    found = mean(np.where(answers_S_T > 0, hits_S_T, np.nan), confidence=confidence)
    # A mean of probabilities is one; the t interval does not know.
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high)) if found else None


def _part(table: "pl.DataFrame", arm: str, context: str) -> "pl.DataFrame":
    return table.filter((table["arm"] == arm) & (table["context"] == context))


def _cell(
    table: "pl.DataFrame",
    arm: str,
    context: str,
    counted: Counted,
    *,
    kinds: Mapping[str, str],
    labels: Sequence[str],
    confidence: float,
) -> dict[str, Any]:
    seeds, hits_S_T, answers_S_T = counted
    part = _part(table, arm, context)
    is_exact = "probability" in part.columns
    interval = _rate_of(hits_S_T, answers_S_T, is_exact=is_exact, confidence=confidence)
    found = dict(sorted(part.filter(part["label"].is_not_null()).group_by("label").len().iter_rows()))
    unscored = part.filter(part["unscored_reason"].is_not_null()).group_by("unscored_reason").len()
    per_seed = [
        {"seed": seed, "rate": float(hits.sum()) / int(answers.sum()) if answers.sum() else None, "answers": int(answers.sum())}
        for seed, hits, answers in zip(seeds, hits_S_T, answers_S_T, strict=True)
    ]
    return {
        "arm": arm,
        "kind": kinds.get(arm, BEFORE if arm == BEFORE else "model"),
        "context": context,
        "rate": asdict(interval) if interval else None,
        "per_seed": per_seed,
        "counts": {label: found.pop(label, 0) for label in labels} | found,
        "unscored": dict(sorted(unscored.iter_rows())),
        "answers": 0 if is_exact else len(part),
        **({"tasks": len(part), "coverage": _coverage(part)} if is_exact else {}),
    }


def _coverage(part: "pl.DataFrame") -> dict[str, float]:
    """What the listed answers' probabilities come to together: the mean over models and tasks, and the least of any."""
    return {"mean": float(np.mean(part["coverage"].to_numpy())), "least": float(part["coverage"].to_numpy().min())}


def _difference(
    arm: str, baseline: str, context: str, counted: Mapping[tuple[str, str], Counted], *, confidence: float
) -> dict[str, Any] | None:
    """Arm minus baseline over the seeds that both have; None where they share none. `before` has no seed and stays the same."""
    ours, theirs = counted[arm, context], counted[baseline, context]
    fixed = baseline == BEFORE
    if ours[0] == [None] and not fixed:
        return _from_fixed(arm, baseline, context, (ours, theirs), confidence=confidence)
    shared = ours[0] if fixed else [seed for seed in ours[0] if seed in theirs[0]]
    if not shared:
        return None
    means = [_means(ours, shared), _means(theirs, theirs[0] if fixed else shared)]
    found = paired_difference(means[0], means[1], confidence=confidence, fixed_control=fixed)
    return {"arm": arm, "baseline": baseline, "context": context, "seeds": shared, **asdict(found)} if found else None


def _from_fixed(
    arm: str, baseline: str, context: str, pair: tuple[Counted, Counted], *, confidence: float
) -> dict[str, Any] | None:
    """One model that is never trained again minus the baseline's seeds: the difference from it, turned round."""
    (ours, theirs), seeds = pair, pair[1][0]
    found = paired_difference(_means(theirs, seeds), _means(ours, [None]), confidence=confidence, fixed_control=True)
    if found is None:
        return None
    turned = {"estimate": -found.estimate, "low": -found.high, "high": -found.low}
    return {"arm": arm, "baseline": baseline, "context": context, "seeds": seeds, **asdict(found), **turned}


def _means(counted: Counted, seeds: Sequence[int | None]) -> Any:
    """Mean outcome per seed and task, NaN where no answer was scored: float [S, T]."""
    rows = [counted[0].index(seed) for seed in seeds]
    hits_S_T, answers_S_T = counted[1][rows], counted[2][rows]
    return np.where(answers_S_T > 0, hits_S_T / np.maximum(answers_S_T, 1), np.nan)
