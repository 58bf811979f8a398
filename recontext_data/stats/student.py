"""Student's t distribution with any positive number of degrees of freedom. Standard library only.

>>> round(quantile(0.95, 2), 3), round(two_sided_p(4.303, 2), 3)
(4.303, 0.05)
"""

from functools import lru_cache
from math import exp, inf, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

__all__ = ["quantile", "two_sided_p", "two_way"]

_NORMAL_FROM = 1e6
"""Degrees of freedom from which t and normal agree to six digits wherever they are used here."""


def two_sided_p(t: float, df: float) -> float:
    """P(|T| >= |t|): 1 at t = 0, 0 at infinity.

    Source: I(df / (df + t^2); df / 2, 1 / 2), the regularized incomplete beta function; Abramowitz and Stegun,
    "Handbook of Mathematical Functions" (1964), 26.7.1 and 26.5.27.
    """
    if t == 0:
        return 1.0
    if abs(t) == inf:
        return 0.0
    if df >= _NORMAL_FROM:
        return 2 * NormalDist().cdf(-abs(t))
    return _beta(t, df)


@lru_cache(maxsize=4096)
def quantile(confidence: float, df: float) -> float:
    """The t with P(|T| <= t) = confidence: 4.303 for 0.95 and 2 degrees of freedom.

    Newton's method from the normal quantile. It lies below the root and P(T <= t) is concave for t > 0, so every step
    stays below the root and the steps cannot overshoot.

    Raises:
        ValueError: a confidence outside (0, 1), or df that is not positive.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
    if not df > 0:
        raise ValueError(f"df must be positive; got {df}")
    t = NormalDist().inv_cdf(0.5 + confidence / 2)
    if df >= _NORMAL_FROM:
        return t
    # The density times two is the slope of P(|T| <= t).
    log_scale = lgamma((df + 1) / 2) - lgamma(df / 2) - 0.5 * log(df * pi) + log(2)
    for _ in range(200):
        step = (two_sided_p(t, df) - (1 - confidence)) / exp(log_scale - (df + 1) / 2 * log1p(t * t / df))
        t += step
        if abs(step) <= 1e-10 * t:
            break
    return t


def two_way(by_seed: float, by_task: float, by_cell: float, *, num_seeds: int, num_tasks: int) -> tuple[float, float]:
    """The squared standard error of a mean over seeds x tasks, and its degrees of freedom; see `intervals` for the sources."""
    variance = max(by_seed + by_task - by_cell, by_seed, by_task)
    least = min(num_seeds, num_tasks) - 1
    if variance == 0:
        return 0.0, least
    return variance, max(variance**2 / (by_seed**2 / (num_seeds - 1) + by_task**2 / (num_tasks - 1)), least)


def _beta(t: float, df: float) -> float:
    """I(x; df/2, 1/2) with x = df / (df + t^2), by the continued fraction on the side where it converges fast."""
    a, b, square = df / 2, 0.5, t * t
    x, rest = df / (df + square), square / (df + square)
    if rest == 0:
        return 1.0
    if x == 0:
        return 0.0
    # log(x) by log1p: for many degrees of freedom x is close to 1.
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) - a * log1p(square / df) + b * log(rest))
    if x < (a + 1) / (a + b + 2):
        return min(1.0, front * _fraction(a, b, x) / a)
    return max(0.0, 1 - front * _fraction(b, a, rest) / b)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's recurrence.

    Source of the recurrence: W. J. Lentz, "Generating Bessel functions in Mie scattering calculations using continued
    fractions", Applied Optics 15 (1976), 668-671.
    """
    tiny = 1e-300
    above, below = 1.0, 1.0 / _away(1 - (a + b) * x / (a + 1), tiny)
    value = below
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            below = 1 / _away(1 + term * below, tiny)
            above = _away(1 + term / above, tiny)
            value *= above * below
        if abs(above * below - 1) < 1e-15:
            break
    return value


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else sqrt(tiny)
