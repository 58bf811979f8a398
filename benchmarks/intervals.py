"""Whether the intervals hold what they promise, and how long a whole evaluation takes.

    python -m benchmarks.intervals
    python -m benchmarks.intervals draws=500

Aims: 8 models x 6 contexts x 500 tasks in under 5 s; Wilson's nominal 95 % covers 94-96 %; the clustered ones as measured;
p-values under the null as often below each level as the level says, or less often. (It is not called `statistics`: run as a
file, it would stand in the way of the standard library's module.)
"""

import sys
import time
from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray

from recontext_data.stats.bootstrap import pigeonhole
from recontext_data.stats.intervals import paired_difference, paired_outcomes, rate
from recontext_data.stats.power import Design, Noise, power
from recontext_data.stats.simulation import simulate
from recontext_data.stats.statistics import Difference, Interval, holm, wilson
from recontext_data.stats.student import quantile

Floats = NDArray[np.float64]
Limits = tuple[float, float]

NOISES = {
    "seeds alike": Noise(seed_sd=0.0),
    "defaults": Noise(),
    "seeds differ": Noise(seed_sd=0.08),
    "effect varies by task": Noise(arm=0.4),
}
LEVELS = (0.01, 0.05, 0.1, 0.5)


def main(arguments: list[str]) -> None:
    """Prints one table per question."""
    options = dict(argument.split("=", 1) for argument in arguments)
    num_draws = int(options.get("draws", 2000))
    speed(num_seeds=1)
    speed(num_seeds=10)
    wilson_coverage(num_draws)
    rates(num_draws)
    differences(num_draws)
    null(num_draws)
    powers(num_draws)


def speed(*, num_seeds: int) -> None:
    """8 models (or arms of several seeds) under 6 contexts: rates, differences to the first, bootstrap, Holm."""
    design = Design(tasks=500, seeds=num_seeds)
    outcomes = [simulate(0.4, 0.1, design, num_draws=6, seed=seed)[0] for seed in range(8)]
    answers = np.ones((num_seeds, design.tasks))
    started = time.perf_counter()
    num_rates = sum(rate(cell, answers) is not None for model in outcomes for cell in model)
    pairs = [(cell, first) for model in outcomes[1:] for cell, first in zip(model, outcomes[0], strict=True)]
    found = [paired_difference(cell, first) for cell, first in pairs]
    holm([difference.p for difference in found if difference is not None])
    seconds = time.perf_counter() - started
    num_resampled = sum(pigeonhole(paired_outcomes(cell, first)) is not None for cell, first in pairs)
    print(
        f"speed    8 models x 6 contexts x 500 tasks x {num_seeds} seeds: {num_rates} rates, {len(found)} differences, Holm "
        f"in {seconds:.2f} s; {num_resampled} bootstraps of 2,000 draws: {time.perf_counter() - started - seconds:.2f} s more"
    )


def wilson_coverage(num_draws: int) -> None:
    """Simulated where theory has it near nominal; exact over a grid of shares where it is known to oscillate."""
    print(f"\nWilson, nominal 95 %, {num_draws:,} draws (and exact)")
    generator = np.random.default_rng(0)
    for total in (100, 500):
        intervals = np.array([wilson(successes, total) for successes in range(total + 1)])
        for share in (0.05, 0.1, 0.3, 0.5):
            drawn = intervals[generator.binomial(total, share, size=num_draws)]
            covered = np.mean((drawn[:, 0] <= share) & (share <= drawn[:, 1]))
            print(f"  n={total:<4} p={share:<5} {covered:.3f}  (exact {_exact(share, intervals):.3f})")
        extreme = [_exact(count / total, intervals) for count in np.linspace(0.1, 5, 200)]
        print(f"  n={total:<4} p below 5/n: exact, lowest {min(extreme):.3f}, mean {np.mean(extreme):.3f}")


def _exact(share: float, intervals: Floats) -> float:
    total = len(intervals) - 1
    return sum(
        comb(total, count) * share**count * (1 - share) ** (total - count)
        for count, (low, high) in enumerate(intervals)
        if low <= share <= high
    )


def rates(num_draws: int) -> None:
    """One arm's rate over seeds and tasks."""
    print(f"\nrate of an arm, nominal 95 %, {num_draws:,} draws: clustered Wilson | Wilson as if all answers were independent")
    for num_seeds, noise in ((1, Noise(seed_sd=0.0)), (3, Noise()), (3, Noise(seed_sd=0.08)), (5, Noise()), (10, Noise())):
        for base, tasks, answers in ((0.4, 200, 1), (0.4, 200, 5), (0.05, 200, 1), (0.05, 50, 5)):
            if noise.seed_sd > base:
                continue  # no rate near 0 varies that much
            sd = min(noise.seed_sd, base / 3)
            design = Design(tasks=tasks, seeds=num_seeds, answers=answers, noise=Noise(seed_sd=sd))
            _, control = simulate(base, 0.0, design, num_draws=num_draws, seed=1)
            counts = np.full((num_seeds, tasks), answers)
            clustered = [_ends(rate(np.rint(cell * answers), counts)) for cell in control]
            plain = [wilson(round(cell.sum() * answers), int(counts.sum())) for cell in control]
            shares = [float(np.mean([low <= base <= high for low, high in limits])) for limits in (clustered, plain)]
            print(
                f"  S={num_seeds:<3} T={tasks:<4} answers={answers} p={base:<5} seed sd {sd:.3f}: "
                + " | ".join(f"{share:.3f}" for share in shares)
            )


def differences(num_draws: int) -> None:
    """The paired difference of two arms, .4 against .3."""
    few = max(200, num_draws // 4)
    print(
        f"\npaired difference of .3 and .4, nominal 95 %, {num_draws:,} draws (bootstrap {few}): two-way t (mean half width) | "
        "pigeonhole bootstrap | wrong on purpose: all independent, t over seeds, t over tasks"
    )
    for num_seeds in (3, 5, 10):
        for tasks in (50, 100, 300):
            for name, noise in NOISES.items():
                treatment, control = simulate(
                    0.4, 0.1, Design(tasks=tasks, seeds=num_seeds, noise=noise), num_draws=num_draws, seed=2
                )
                cells = treatment - control
                widths = [high - low for low, high in map(_two_way, cells[:200])]
                wrong = [_covered(cells, -0.1, method) for method in (_independent, _over_seeds, _over_tasks)]
                print(
                    f"  S={num_seeds:<3} T={tasks:<4} {name:22} {_covered(cells, -0.1, _two_way):.3f} "
                    f"(+-{np.mean(widths) / 2:.3f}) | {_covered(cells[:few], -0.1, _bootstrap):.3f} | "
                    + " ".join(f"{share:.3f}" for share in wrong)
                )


def null(num_draws: int) -> None:
    """How often p falls below a level when there is no effect."""
    print(
        f"\np-values without an effect (.4 and .4, 200 tasks), {num_draws:,} draws: share below {', '.join(map(str, LEVELS))}"
    )
    for num_seeds in (1, 3, 5, 10):
        for name, noise in NOISES.items():
            if num_seeds == 1:  # one seed speaks of two models, so they must be equal for the null to hold
                noise = Noise(seed_sd=0.0, arm=noise.arm)
            pair = simulate(0.4, 0.0, Design(tasks=200, seeds=num_seeds, noise=noise), num_draws=num_draws, seed=3)
            found = [paired_difference(t, c) for t, c in zip(*pair, strict=True)]
            p_values = np.array([difference.p for difference in found if difference is not None])
            print(f"  S={num_seeds:<3} {name:22} " + "  ".join(f"{np.mean(p_values < level):.3f}" for level in LEVELS))


def powers(num_draws: int) -> None:
    """The closed form beside simulated experiments."""
    print(f"\npower at alpha .05: closed form | {num_draws:,} simulated experiments")
    designs = [(1, 200, 0.1), (3, 200, 0.1), (3, 200, 0.2), (5, 50, 0.15), (5, 200, 0.1), (10, 300, 0.05)]
    for num_seeds, tasks, effect in designs:
        noise = Noise(seed_sd=0.0) if num_seeds == 1 else Noise()
        design = Design(tasks=tasks, seeds=num_seeds, noise=noise)
        pair = simulate(0.4, effect, design, num_draws=num_draws, seed=4)
        found = [paired_difference(t, c) for t, c in zip(*pair, strict=True)]
        seen = np.mean([difference.p < design.alpha for difference in found if difference is not None])
        print(f"  S={num_seeds:<3} T={tasks:<4} effect {effect:<5} {power(0.4, effect, design):.3f} | {seen:.3f}")


def _covered(cells: Floats, truth: float, method: Callable[[Floats], Limits]) -> float:
    return float(np.mean([low <= truth <= high for low, high in map(method, cells)]))


def _two_way(cell: Floats) -> Limits:
    return _ends(paired_difference(cell, np.zeros_like(cell)))


def _bootstrap(cell: Floats) -> Limits:
    return _ends(pigeonhole(cell, num_draws=1000))


def _independent(cell: Floats) -> Limits:
    return _student(cell.ravel())


def _over_seeds(cell: Floats) -> Limits:
    return _student(cell.mean(axis=1))


def _over_tasks(cell: Floats) -> Limits:
    return _student(cell.mean(axis=0))


def _student(values: Floats) -> Limits:
    half = quantile(0.95, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def _ends(found: Interval | Difference | None) -> Limits:
    assert found is not None, "the simulation leaves nothing out"
    return found.low, found.high


if __name__ == "__main__":
    main(sys.argv[1:])
