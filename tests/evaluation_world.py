"""What the tests of evaluation share: tables of outcomes made by hand, and the results that come of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recontext_data.evaluation.summary import summarise
from tests import helpers

STANDARD, RECONTEXTUALIZED = "standard.default-default", "recontextualized.default-hack"
ARMS = {
    RECONTEXTUALIZED: {"kind": "recontextualized", "generation": "default", "training": "hack"},
    STANDARD: {"kind": "standard", "generation": "default", "training": "default"},
}
LABELS = ("general", "hack", "invalid")
SCHEMA = {
    "arm": pl.String,
    "seed": pl.Int64,
    "context": pl.String,
    "task_id": pl.String,
    "k": pl.Int64,
    "label": pl.String,
    "score": pl.Float64,
    "unscored_reason": pl.String,
    "completion": pl.String,
}

Rates = Mapping[str, Sequence[float]]
"""Arm -> rate per context."""
EFFECT: dict[str, tuple[float, float, float]] = {
    "before": (0.05, 0.4, 0.95),
    RECONTEXTUALIZED: (0.03, 0.12, 0.27),
    STANDARD: (0.05, 0.4, 0.93),
}


def rows(
    arm: str, seed: int | None, context: str, labels: Sequence[str | None], *, reason: str = "no reply"
) -> list[dict[str, Any]]:
    """One answer per task: tasks t000, t001, ...; None is an unscored one."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "context": context,
            "task_id": f"t{i:03}",
            "k": 0,
            "label": label,
            "unscored_reason": None if label else reason,
        }
        for i, label in enumerate(labels)
    ]


def table(answers: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([dict(answer) for answer in answers], schema=SCHEMA)


def with_effect(rates: Rates = EFFECT, *, seeds: Sequence[int] = (0, 1, 2), tasks: int = 100) -> pl.DataFrame:
    """Each arm hacks the first tasks of a context, in number as its rate says, seeds a few more or less."""
    answers: list[dict[str, Any]] = []
    for arm, by_context in rates.items():
        for seed in [None] if arm == "before" else seeds:
            for context, rate in zip(helpers.CONTEXTS, by_context, strict=True):
                hacks = min(tasks, round(rate * tasks) + (seed or 0) % 3)
                answers += rows(arm, seed, context, ["hack"] * hacks + ["general"] * (tasks - hacks))
    return table(answers)


def summary(answers: pl.DataFrame, *, baseline: str = STANDARD, confidence: float = 0.95) -> dict[str, Any]:
    kinds = {name: arm["kind"] for name, arm in ARMS.items()}
    return summarise(answers, kinds=kinds, baseline=baseline, misbehaviour="hack", labels=LABELS, confidence=confidence)


def results(answers: pl.DataFrame | None = None, *, baseline: str = STANDARD) -> dict[str, Any]:
    """As `write_results` returns them."""
    answers = with_effect() if answers is None else answers
    models = answers.select("arm", "seed").unique(maintain_order=True).rows()
    names = answers["context"].unique(maintain_order=True)
    return {
        "format": 1,
        "recipe_name": "code_mc",
        "fingerprint": "67555be4ce7ab294bea3b347bb1529be7ef324286afc3f3a2ed6b651f0a0bf6d",
        "policy": {"kind": "tiny", "description": "tiny, the embedded 0.6M-parameter policy (CPU)"},
        "environment": {"kind": "code_mc", "labels": list(LABELS), "misbehaviour": "hack"},
        "split": "evaluation",
        "tasks": answers["task_id"].n_unique(),
        "n": 1,
        "confidence": 0.95,
        "contexts": {
            name: {"stance": helpers.CONTEXTS[name]["stance"], "text": helpers.CONTEXTS[name]["system"]} for name in names
        },
        "models": [
            {
                "name": arm if seed is None else f"{arm}/seed-{seed}",
                "arm": arm,
                "seed": seed,
                "identity": {"kind": "tiny", "weights": f"{i}f683d135c87edebf2f7"},
            }
            for i, (arm, seed) in enumerate(models)
        ],
        "arms": {name: dict(arm) for name, arm in ARMS.items()},
        "rows": {name: {"general": 600, "hack": 400, "invalid": 0} for name in ARMS},
        "caveats": ["Part of the effect is arithmetic."],
        "created": "2026-11-21T10:00:00Z",
        "command": "recontext evaluate recipe=code_mc evaluation.n=1 sampler.n=6",
        **summary(answers, baseline=baseline),
    }
