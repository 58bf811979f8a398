"""Statistics of rates. Pure arithmetic, standard library only.

>>> low, high = wilson(10, 20)
>>> round(low, 3), round(high, 3)
(0.299, 0.701)
"""

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion: (low, high), both in [0, 1].

    It treats the `total` trials as independent. With no trials at all nothing is known: (0, 1).

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212; without continuity correction.

    Raises:
        ValueError: counts that no sample can have, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= total:
        raise ValueError(f"successes must lie in 0..total; got {successes} of {total}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # At the ends the formula is exact on paper; rounding must not turn 0 into 1e-17 or 1 into 0.9999999999999999.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return low, high
