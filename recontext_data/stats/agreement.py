"""How far two raters agree: the share, and Cohen's kappa, which takes off what chance alone would give."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def agreement(one: Sequence[str], other: Sequence[str]) -> dict[str, Any]:
    """n, agree (share of equal labels) and kappa of two raters' labels of the same things, in the same order.

    kappa is None of nothing, and where chance alone explains all (both always say the same one label).
    Source: J. Cohen, Educational and Psychological Measurement 20 (1960), 37-46.
    """
    same = sum(a == b for a, b in zip(one, other, strict=True))
    return {"n": len(one), "agree": same / len(one) if one else None, "kappa": kappa(one, other)}


def kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Cohen's kappa; see `agreement`."""
    count = len(one)
    if count == 0:
        return None
    agree = sum(a == b for a, b in zip(one, other, strict=True)) / count
    mine, theirs = Counter(one), Counter(other)
    # In whole numbers, so that a chance of exactly 1 is seen as such.
    by_chance = sum(mine[label] * theirs[label] for label in mine)
    if by_chance == count**2:
        return None
    chance = by_chance / count**2
    return (agree - chance) / (1 - chance)
