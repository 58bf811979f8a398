"""What an evaluation can see before it is run: the power of the paired test, and the smallest effect it detects. Pure.

The test is `intervals.paired_difference`. Its power needs a guess of where the answers' variance p (1 - p) sits, `Noise`:

    seed    sd of a model's true rate from training to training; one more for each arm
    shared  share of p (1 - p) that lies between tasks and is the same in both arms: pairing removes it where the rates agree
    arm     share between tasks that differs from arm to arm but not from seed to seed: the effect is not the same everywhere
    model   share between tasks that is each single model's own
    rest    1 - shared - arm - model: between the answers of one model to one task; more answers per task reduce it alone

With v the sum of both arms' p (1 - p), the expected squared standard errors for S seeds, T tasks and m answers are

    by_cell = v (model + rest / m) / (S T)
    by_task = (v arm + shared |effect| (1 - |effect|)) / T + by_cell
    by_seed = 2 seed^2 / S + by_cell

(expected mean squares of the two-way random-effects layout; S. R. Searle, G. Casella and C. E. McCulloch, "Variance
Components", Wiley 1992, chapter 4). The term in the effect is what pairing cannot remove: two 0/1 outcomes with different
rates covary by at most min (1 - max), and v - 2 min (1 - max) = |effect| (1 - |effect|). The test estimates by_seed and by_task
with S - 1 and T - 1 degrees of freedom, so its own limit varies from draw to draw; `power` averages over that.
Standard library only. Beside 1,000 simulated experiments it is within .05 (`tests/test_power.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist

from recontext_data.stats import student

__all__ = ["Design", "Noise", "detectable", "power", "treated_rate"]

MOST = 10**9
LEAST_ALPHA = 1e-6
_PHI = NormalDist().cdf


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Where the variance of an answer sits. The defaults are a guess for tasks of mixed difficulty; a pilot knows better."""

    seed_sd: float = 0.03
    shared: float = 0.3
    arm: float = 0.1
    model: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.seed_sd < 0.5:
            raise ValueError(f"seed_sd must lie in 0..0.5, the sd of a rate from training to training; got {self.seed_sd:g}")
        for name, share in (("shared", self.shared), ("arm", self.arm), ("model", self.model)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in 0..1, a share of the variance of an answer; got {share:g}")
        if self.shared + self.arm + self.model > 1 + 1e-9:
            raise ValueError(
                f"shared + arm + model must not exceed 1, the whole variance; got {self.shared + self.arm + self.model:g}"
            )

    @property
    def rest(self) -> float:
        """The share between answers of one model to one task."""
        return max(0.0, 1 - self.shared - self.arm - self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How much is run, and how strict the test is."""

    tasks: int
    seeds: int
    answers: int = 1
    alpha: float = 0.05
    noise: Noise = Noise()

    def __post_init__(self) -> None:
        for name, value, least in (("tasks", self.tasks, 2), ("seeds", self.seeds, 1), ("answers", self.answers, 1)):
            if not least <= value <= MOST:
                raise ValueError(f"{name} must lie in {least}..{MOST}; got {value:g}")
        if not LEAST_ALPHA <= self.alpha <= 0.5:
            raise ValueError(f"alpha must lie in {LEAST_ALPHA:g}..0.5, such as 0.05; got {self.alpha:g}")


def power(base: float, effect: float, design: Design) -> float:
    """The probability that the test of "no difference" gives p < alpha when the treatment lowers `base` by `effect`.

    A negative effect raises it. With one seed the seed's luck is part of what is seen as effect: the answer is then about the
    two models at hand.

    Raises:
        ValueError: a base outside 0..1, or an effect that leaves it.
    """
    treated = treated_rate(base, effect)
    errors = _expected(base, treated, design)
    if errors.variance == 0:
        return float(effect != 0)
    sd = sqrt(errors.variance)
    total = 0.0
    for weight, limit in _limits(errors, design):
        total += weight * (_PHI((abs(effect) - limit) / sd) + _PHI((-abs(effect) - limit) / sd))
    return total


def detectable(base: float, design: Design, *, wanted: float = 0.8) -> float | None:
    """The smallest decrease of `base` that is seen with probability `wanted`; None when none is: too few seeds or tasks.

    Raises:
        ValueError: a base outside 0..1.
    """
    treated_rate(base, 0.0)
    low, high = 0.0, base
    if base == 0 or power(base, high, design) < wanted:
        return None
    while high - low > 2e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(base, middle, design) >= wanted else (middle, high)
    return high


def treated_rate(base: float, effect: float) -> float:
    """The rate after the effect.

    Raises:
        ValueError: a base outside 0..1, or an effect that leaves it.
    """
    if not 0 <= base <= 1:
        raise ValueError(f"base must lie in 0..1, a rate such as 0.4; got {base:g}")
    treated = round(base - effect, 12)
    if not 0 <= treated <= 1:
        raise ValueError(
            f"effect: {effect:g} takes the base {base:g} to {treated:g}, outside 0..1; write at most {base:g} "
            f"(a negative effect raises the rate, by at most {1 - base:g})"
        )
    return treated


@dataclass(frozen=True, slots=True)
class _Errors:
    """Expected squared standard errors, as `intervals` estimates them."""

    by_seed: float
    by_task: float
    by_cell: float
    num_seeds: int

    @property
    def variance(self) -> float:
        """Of the estimate, for what the test speaks of: with one seed, the two models at hand."""
        return self.by_task if self.num_seeds == 1 else self.by_seed + self.by_task - self.by_cell


def _expected(base: float, treated: float, design: Design) -> _Errors:
    noise, both = design.noise, base * (1 - base) + treated * (1 - treated)
    by_cell = both * (noise.model + noise.rest / design.answers) / (design.seeds * design.tasks)
    effect = abs(base - treated)
    by_task = (both * noise.arm + noise.shared * effect * (1 - effect)) / design.tasks + by_cell
    return _Errors(2 * noise.seed_sd**2 / design.seeds + by_cell, by_task, by_cell, design.seeds)


def _limits(errors: _Errors, design: Design) -> Iterator[tuple[float, float]]:
    """(weight, limit): the test rejects beyond `limit`, which depends on the variances that happened to be seen."""
    confidence = 1 - design.alpha
    if design.seeds == 1:
        for weight, factor in _chi_square_nodes(design.tasks - 1):
            yield weight, student.quantile(confidence, design.tasks - 1) * sqrt(factor * errors.by_task)
        return
    for weight_seed, factor_seed in _chi_square_nodes(design.seeds - 1):
        for weight_task, factor_task in _chi_square_nodes(design.tasks - 1, num=7):
            by_seed, by_task = factor_seed * errors.by_seed, factor_task * errors.by_task
            variance, df = student.two_way(by_seed, by_task, errors.by_cell, num_seeds=design.seeds, num_tasks=design.tasks)
            # Rounded so that the cache of quantiles is hit: it moves the limit by less than a thousandth.
            limit = student.quantile(confidence, float(f"{df:.3g}")) * sqrt(variance)
            over_seeds = student.quantile(confidence, design.seeds - 1) * sqrt(by_seed)
            yield weight_seed * weight_task, max(limit, over_seeds)


def _chi_square_nodes(df: int, *, num: int = 41) -> list[tuple[float, float]]:
    """(weight, value) of chi^2 / df: its density in the root, which is smooth, on even steps."""
    spread = 4.5 / sqrt(2 * df)
    low, high = max(0.0, 1 - spread), 1 + spread
    roots = [low + (high - low) * (place + 0.5) / num for place in range(num)]
    densities = [exp((df - 1) * log(root) + df * (1 - root * root) / 2) for root in roots]
    total = sum(densities)
    return [(density / total, root * root) for density, root in zip(densities, roots, strict=True)]
