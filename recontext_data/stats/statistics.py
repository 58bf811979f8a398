"""What a comparison says: rates with intervals, differences, and p-values over a grid. Standard library only.

The words and the arithmetic that needs no arrays are here; `intervals` holds what is computed from outcomes per seed and task,
`bootstrap` the resampling beside it, `power` what can be seen before anything is run.

>>> low, high = wilson(10, 20)
>>> round(low, 3), round(high, 3)
(0.299, 0.701)
>>> holm([0.01, 0.04, None, 0.03])
[0.03, 0.06, None, 0.06]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

__all__ = ["ONE_SEED", "Difference", "Interval", "holm", "normal_quantile", "score_interval", "wilson"]

ONE_SEED = "one seed: says nothing about retraining"
"""The caveat of everything that was computed from one trained model: another seed may give another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    method: str
    confidence: float
    num_seeds: int = 1
    num_tasks: int = 0
    caveat: str = ""
    """What the interval does not cover, in words; empty when there is nothing to add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Treatment minus control, with its interval and the two-sided p-value of "no difference"."""

    estimate: float
    low: float
    high: float
    p: float
    method: str
    num_seeds: int
    num_tasks: int
    """Tasks with an outcome on both sides."""
    confidence: float = 0.95
    caveat: str = ""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval, uncorrected for other comparisons, leaves out "no difference"."""
        return self.low > 0 or self.high < 0


def wilson(successes: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion: (low, high), both in [0, 1].

    It treats the `total` trials as independent: for several answers per task, or several seeds, see `intervals.rate`.
    With no trials at all nothing is known: (0, 1). Its coverage oscillates around the nominal one; at shares nearer to
    0 or 1 than about 5 / total it falls to 0.84-0.90 at single values of the true share (Brown, Cai and DasGupta,
    "Interval estimation for a binomial proportion", Statistical Science 16 (2001), 101-133).

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212; without continuity correction.

    Raises:
        ValueError: counts that no sample can have, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= total:
        raise ValueError(f"successes must lie in 0..total; got {successes} of {total}")
    z = normal_quantile(confidence)
    if total == 0:
        return 0.0, 1.0
    low, high = score_interval(successes / total, total, z)
    # At the ends the formula is exact on paper; rounding must not turn 0 into 1e-17 or 1 into 0.9999999999999999.
    return (0.0 if successes == 0 else low), (1.0 if successes == total else high)


def score_interval(share: float, total: float, z: float) -> tuple[float, float]:
    """Wilson's formula for any effective number of trials and any quantile; clipped to [0, 1]."""
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def normal_quantile(confidence: float) -> float:
    """How many standard errors a two-sided interval reaches: 1.96 for 0.95.

    Raises:
        ValueError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for the whole family, in the order given: below alpha, they keep the family-wise error below alpha.

    A comparison that could not be made is None; it stays None and does not count.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979),
    65-70: the k-th smallest of m is multiplied by m - k + 1, and none may fall below the one before it.

    Raises:
        ValueError: a p-value outside 0..1, or NaN.
    """
    made = [(p, place) for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, place) in enumerate(sorted(made)):
        if not 0 <= p <= 1:
            raise ValueError(f"p_values must lie in 0..1, or be None where no comparison was made; got {p} at place {place}")
        running = max(running, min(1.0, (len(made) - rank) * p))
        adjusted[place] = running
    return adjusted
