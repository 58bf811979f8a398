"""How well a judge agrees with people: accuracy, precision, recall, kappa, AUROC and a calibration curve. Pure, numpy.

Answers to one task are alike, so intervals count tasks: shares are `intervals.rate` over tasks (Wilson where each task has one
answer), kappa and AUROC are percentile bootstraps that resample tasks, seeded. What the judge did not score is in no statistic
and is counted beside each.

    facts = calibrated([Item(task="t1", truth="hack", said="hack", score=None), ...], positive="hack")

Sources: kappa, J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960),
37-46. AUROC as the probability that a positive is scored above a negative, ties counting half: J. A. Hanley and B. J. McNeil,
"The meaning and use of the area under a ROC curve", Radiology 143 (1982), 29-36. The cluster bootstrap: A. C. Davison and
D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recontext_data.stats.intervals import rate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 2000
SEED = 0
BINS = 10
"""Of the curve, where a judge gives more different scores than `MOST_VALUES`."""
MOST_VALUES = 21
FEWEST_TASKS = 10
"""Tasks below which a bootstrap says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """One answer that people labelled and a judge judged."""

    task: str
    """What it answers; answers to the same task are not independent."""
    truth: str
    """The people's label."""
    said: str | None
    """The judge's label, from its score where it gives none; None where it is unscored."""
    score: float | None
    """The judge's score; None where it gives none."""


def calibrated(items: Sequence[LabelledAnswer], *, positive: str, confidence: float = 0.95) -> dict[str, Any]:
    """Statistics, curve and confusion counts, as plain data for JSON. A statistic that cannot be had is None, never 0."""
    scored = [item for item in items if item.said is not None]
    ranked = [item for item in items if item.score is not None]
    named = [item for item in scored if item.said == positive]
    true = [item for item in scored if item.truth == positive]
    unscored = len(items) - len(scored)
    statistics = [
        _share("accuracy", scored, lambda item: item.said == item.truth, confidence=confidence),
        _share("precision", named, lambda item: item.truth == positive, confidence=confidence),
        _share("recall", true, lambda item: item.said == positive, confidence=confidence),
        _kappa(scored, confidence=confidence),
    ]
    if ranked:
        statistics.append(_auroc(ranked, positive, confidence=confidence))
    return {
        "positive": positive,
        "confidence": confidence,
        "items": len(items),
        "tasks": len({item.task for item in items}),
        "unscored": unscored,
        "statistics": [{**row, "unscored": unscored} for row in statistics],
        "curve": _curve(ranked, positive, confidence=confidence)
        if ranked
        else _by_label(scored, positive, confidence=confidence),
        "confusion": _confusion(scored),
    }


def _row(name: str, estimate: float | None, bounds: tuple[float, float] | None, method: str, n: int) -> dict[str, Any]:
    low, high = bounds if bounds is not None else (None, None)
    return {"name": name, "estimate": estimate, "low": low, "high": high, "method": method, "n": n}


def _share(
    name: str, items: Sequence[LabelledAnswer], holds: Callable[[LabelledAnswer], bool], *, confidence: float
) -> dict[str, Any]:
    """The share of items for which something holds, with its interval over tasks."""
    answers = Counter(item.task for item in items)
    hits = Counter(item.task for item in items if holds(item))
    found = rate([hits[task] for task in answers], list(answers.values()), confidence=confidence) if answers else None
    if found is None:
        return _row(name, None, None, "", 0)
    return _row(name, found.estimate, (found.low, found.high), found.method, len(items))


def _kappa(items: Sequence[LabelledAnswer], *, confidence: float) -> dict[str, Any]:
    labels = sorted({label for item in items for label in (item.truth, str(item.said))})
    place = {label: index for index, label in enumerate(labels)}
    cells = np.array([place[item.truth] * len(labels) + place[str(item.said)] for item in items], dtype=np.int64)

    def statistic(weights: Floats) -> float:
        counts: Floats = np.bincount(cells, weights, len(labels) ** 2).astype(np.float64)
        return kappa(counts.reshape(len(labels), len(labels)))

    return _bootstrapped("kappa", items, statistic, confidence=confidence)


def kappa(counts_L_L: Floats) -> float:
    """Cohen's kappa of a table of counts, people by judge; NaN where chance alone explains everything."""
    total = counts_L_L.sum()
    if total == 0:
        return float("nan")
    agree = float(np.trace(counts_L_L) / total)
    chance = float(counts_L_L.sum(axis=1) @ counts_L_L.sum(axis=0) / total**2)
    return float("nan") if chance >= 1 else (agree - chance) / (1 - chance)


def _auroc(items: Sequence[LabelledAnswer], positive: str, *, confidence: float) -> dict[str, Any]:
    _, ranks = np.unique(np.array([item.score for item in items], dtype=np.float64), return_inverse=True)
    is_true = np.array([item.truth == positive for item in items])
    return _bootstrapped("AUROC", items, lambda weights: auroc(ranks, is_true, weights), confidence=confidence)


def auroc(ranks_N: Ints, is_true_N: NDArray[np.bool_], weights_N: Floats) -> float:
    """The probability that a positive ranks above a negative, ties counting half; NaN without both.

    `ranks_N` are integers from 0 in the order of scores, equal for equal scores.
    """
    positives = np.bincount(ranks_N, weights_N * is_true_N)
    negatives = np.bincount(ranks_N, weights_N * ~is_true_N)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2) / pairs)


def _bootstrapped(
    name: str, items: Sequence[LabelledAnswer], statistic: Callable[[Floats], float], *, confidence: float
) -> dict[str, Any]:
    """A statistic of weighted items, with the percentile interval over resampled tasks."""
    if not items:
        return _row(name, None, None, "", 0)
    estimate = statistic(np.ones(len(items)))
    if np.isnan(estimate):
        return _row(name, None, None, "", len(items))
    tasks = sorted({item.task for item in items})
    if len(tasks) < FEWEST_TASKS:
        return _row(name, estimate, None, f"fewer than {FEWEST_TASKS} tasks: no interval", len(items))
    place = {task: index for index, task in enumerate(tasks)}
    task_N = np.array([place[item.task] for item in items])
    generator = np.random.default_rng([SEED, len(tasks), len(items)])
    shares = np.full(len(tasks), 1 / len(tasks))
    draws = np.array([statistic(generator.multinomial(len(tasks), shares)[task_N].astype(np.float64)) for _ in range(DRAWS)])
    low, high = np.quantile(draws[~np.isnan(draws)], [(1 - confidence) / 2, (1 + confidence) / 2])
    return _row(name, estimate, (float(low), float(high)), f"bootstrap over tasks, {DRAWS} draws", len(items))


def _curve(items: Sequence[LabelledAnswer], positive: str, *, confidence: float) -> list[dict[str, Any]]:
    """Share of positives by score: a row per value, or per bin where there are many values."""
    scores = np.array([item.score for item in items], dtype=np.float64)
    values = np.unique(scores)
    cuts = values if len(values) <= MOST_VALUES else np.linspace(values[0], values[-1], BINS + 1)
    bins = np.searchsorted(cuts, scores, side="right") - 1
    if len(values) > MOST_VALUES:
        bins = np.minimum(bins, BINS - 1)  # the greatest score belongs to the last bin
        edges = [(float(low), float(high)) for low, high in pairwise(cuts)]
    else:
        edges = [(float(value), float(value)) for value in values]
    return [
        _curve_row(
            {"from": low, "to": high},
            [item for item, place in zip(items, bins, strict=True) if place == index],
            positive,
            confidence=confidence,
        )
        for index, (low, high) in enumerate(edges)
    ]


def _by_label(items: Sequence[LabelledAnswer], positive: str, *, confidence: float) -> list[dict[str, Any]]:
    """Share of positives by the judge's label, for a judge without scores."""
    labels = sorted({str(item.said) for item in items})
    return [
        _curve_row({"label": label}, [item for item in items if item.said == label], positive, confidence=confidence)
        for label in labels
    ]


def _curve_row(
    where: Mapping[str, Any], items: Sequence[LabelledAnswer], positive: str, *, confidence: float
) -> dict[str, Any]:
    found = _share("", items, lambda item: item.truth == positive, confidence=confidence)
    return {
        **where,
        "n": len(items),
        "positive": sum(item.truth == positive for item in items),
        "share": found["estimate"],
        "low": found["low"],
        "high": found["high"],
    }


def _confusion(items: Sequence[LabelledAnswer]) -> dict[str, dict[str, int]]:
    """People's label -> judge's label -> answers."""
    table: dict[str, dict[str, int]] = {}
    for (truth, said), count in sorted(Counter((item.truth, str(item.said)) for item in items).items()):
        table.setdefault(truth, {})[said] = count
    return table
