"""How far two raters agree: the share, and Cohen's kappa, which takes off what chance alone would give."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def agreement(one: Sequence[str], other: Sequence[str]) -> dict[str, Any]:
    """n, agree (share of equal labels) and kappa of two raters' labels of the same things, in the same order.

    kappa is None of nothing, and where chance alone explains all (both always say the same one label).
    Source: J. Cohen, Educational and Psychological Measurement 20 (1960), 37-46.
    """
    count = len(one)
    if count == 0:
        return {"n": 0, "agree": None, "kappa": None}
    agree = sum(a == b for a, b in zip(one, other, strict=True)) / count
    mine, theirs = Counter(one), Counter(other)
    chance = sum(mine[label] * theirs[label] for label in mine) / count**2
    return {"n": count, "agree": agree, "kappa": None if chance == 1 else (agree - chance) / (1 - chance)}
