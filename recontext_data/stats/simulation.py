"""Outcomes with a known truth, to check intervals and power against. Seeded, numpy.

    treatment_R_S_T, control_R_S_T = simulate(0.4, 0.1, Design(tasks=200, seeds=3), num_draws=1000, seed=0)

The layout is that of `power.Noise`. Each task is of one kind, drawn with the shares as probabilities: on a shared task all
models throw one common number, on an arm's task the models of an arm do, on a model's task all answers of a model do, on the
rest every answer throws its own. An answer misbehaves when its number falls below its model's rate. So a rate is
exactly what was asked for, and at equal rates so are the shares of the variance. A model's rate is beta distributed around
its arm's.
"""

import numpy as np
from numpy.typing import NDArray

from recontext_data.stats.power import Design, treated_rate

__all__ = ["simulate"]

Floats = NDArray[np.float64]


def simulate(base: float, effect: float, design: Design, *, num_draws: int, seed: int) -> tuple[Floats, Floats]:
    """(treatment, control): the share of misbehaving answers per draw, seed and task, each [R, S, T].

    Raises:
        ValueError: rates outside 0..1, or a seed_sd that no distribution of rates around them can have.
    """
    rates = treated_rate(base, effect), treated_rate(base, 0.0)
    generator, noise = np.random.default_rng(seed), design.noise
    shape = num_draws, design.seeds, design.tasks, design.answers
    draws, _, tasks, answers = shape
    shares = [noise.shared, noise.arm, noise.model, noise.rest]
    kind = generator.choice(4, size=(draws, 1, tasks, 1), p=np.array(shares) / sum(shares))
    common = generator.random((draws, 1, tasks, 1))
    arms = []
    for rate in rates:
        own = [generator.random((draws, 1, tasks, 1)), generator.random((*shape[:3], 1)), generator.random(shape)]
        thrown = np.select([kind == place for place in range(3)], [common, *own[:2]], own[2])
        models = _rates(rate, noise.seed_sd, size=(draws, design.seeds, 1, 1), generator=generator)
        arms.append((thrown < models).sum(axis=3) / answers)
    return arms[0], arms[1]


def _rates(rate: float, sd: float, *, size: tuple[int, ...], generator: np.random.Generator) -> Floats:
    """Rates of single models: the beta distribution of that mean and sd, which stays in 0..1 and keeps its mean."""
    if sd == 0 or rate in (0, 1):
        return np.full(size, rate)
    strength = rate * (1 - rate) / sd**2 - 1
    if strength <= 0:
        raise ValueError(
            f"seed_sd: rates around {rate:g} cannot vary by {sd:g}; write less than {np.sqrt(rate * (1 - rate)):.3g}"
        )
    return generator.beta(rate * strength, (1 - rate) * strength, size=size)
