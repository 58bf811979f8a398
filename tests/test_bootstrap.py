"""Intervals over seeds and tasks: coverage by simulation, with methods that must fail it; by hand; edges; the bootstrap."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recontext_data.stats import student
from recontext_data.stats.bootstrap import pigeonhole
from recontext_data.stats.intervals import NO_SPREAD, RARE, mean, paired_difference, paired_outcomes, rate
from recontext_data.stats.power import Design, Noise
from recontext_data.stats.simulation import simulate
from recontext_data.stats.statistics import ONE_SEED, Difference, Interval, holm, wilson

Floats = NDArray[np.float64]
Limits = tuple[float, float]

NUM_DRAWS = 800
SLACK = 0.025
"""3.2 standard errors of a share of .95 in 800 draws."""

FEW = Design(tasks=200, seeds=3)
UNLIKE_SEEDS = Design(tasks=100, seeds=3, noise=Noise(seed_sd=0.08))
MIDDLE = Design(tasks=100, seeds=5)
MANY = Design(tasks=200, seeds=10)
UNLIKE_TASKS = Design(tasks=50, seeds=10, noise=Noise(arm=0.4))
ANSWERS = Design(tasks=60, seeds=5, answers=4)
DESIGNS = (FEW, UNLIKE_SEEDS, MIDDLE, MANY, UNLIKE_TASKS, ANSWERS)


def ends(found: Interval | Difference | None) -> Limits:
    assert found is not None
    return found.low, found.high


def two_way(cells_S_T: Floats) -> Limits:
    return ends(paired_difference(cells_S_T, np.zeros_like(cells_S_T)))


def t_interval(values: Floats) -> Limits:
    half = student.quantile(0.95, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def coverage(method: Callable[[Floats], Limits], design: Design) -> float:
    treatment, control = simulate(0.4, 0.1, design, num_draws=NUM_DRAWS, seed=1)
    return float(np.mean([low <= -0.1 <= high for low, high in map(method, treatment - control)]))


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_difference_covers_what_it_promises(design: Design) -> None:
    covered = coverage(two_way, design)
    assert covered > 0.95 - SLACK
    # With few seeds it may be too wide, since whether seeds differ cannot be known; with ten it must not.
    assert covered < (0.95 + SLACK if design.seeds == 10 else 0.99)


@pytest.mark.parametrize(
    ("method", "design"),
    [
        (lambda cells: t_interval(cells.ravel()), FEW),  # all answers independent
        (lambda cells: t_interval(cells.ravel()), MANY),
        (lambda cells: t_interval(cells.mean(axis=0)), UNLIKE_SEEDS),  # tasks alone: seeds forgotten
        (lambda cells: t_interval(cells.mean(axis=1)), UNLIKE_TASKS),  # seeds alone: tasks forgotten
    ],
    ids=["independent, 3 seeds", "independent, 10 seeds", "over tasks", "over seeds"],
)
def test_wrong_methods_fail_the_coverage_test(method: Callable[[Floats], Limits], design: Design) -> None:
    assert coverage(method, design) < 0.95 - 3 * SLACK


def test_percentiles_over_three_seeds_are_too_narrow_and_over_ten_are_as_stated() -> None:
    """Why the bootstrap is not the headline interval."""
    narrow = Design(tasks=300, seeds=3, noise=Noise(seed_sd=0.08))
    treatment, control = simulate(0.4, 0.1, narrow, num_draws=300, seed=1)
    covered = np.mean([low <= -0.1 <= high for low, high in (bootstrap(cells) for cells in treatment - control)])
    assert covered < 0.92
    treatment, control = simulate(0.4, 0.1, MANY, num_draws=300, seed=1)
    covered = np.mean([low <= -0.1 <= high for low, high in (bootstrap(cells) for cells in treatment - control)])
    assert 0.93 < covered <= 1


def bootstrap(cells_S_T: Floats) -> Limits:
    return ends(pigeonhole(cells_S_T, num_draws=500))


@pytest.mark.parametrize("design", [UNLIKE_SEEDS, MIDDLE, MANY, Design(tasks=200, seeds=1, noise=Noise(seed_sd=0))], ids=str)
def test_p_values_without_an_effect_are_as_rare_as_they_say(design: Design) -> None:
    pairs = zip(*simulate(0.4, 0.0, design, num_draws=NUM_DRAWS, seed=2), strict=True)
    found = [paired_difference(treatment, control) for treatment, control in pairs]
    p_values = np.array([difference.p for difference in found if difference is not None])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        error = 3.3 * np.sqrt(level * (1 - level) / NUM_DRAWS)
        assert np.mean(p_values < level) < level + error
        if design.seeds in (1, 10):  # uniform, not only valid
            assert np.mean(p_values < level) > level - error


@pytest.mark.parametrize(
    ("base", "design"),
    [
        (0.4, Design(tasks=100, seeds=1, answers=5, noise=Noise(seed_sd=0))),
        (0.05, Design(tasks=200, seeds=3, noise=Noise(seed_sd=0.01))),
        (0.4, Design(tasks=100, seeds=5, answers=3)),
        (0.4, Design(tasks=100, seeds=10)),
    ],
)
def test_a_clustered_rate_covers_and_a_plain_wilson_does_not(base: float, design: Design) -> None:
    _, control = simulate(base, 0.0, design, num_draws=NUM_DRAWS, seed=3)
    answers = np.full((design.seeds, design.tasks), design.answers)
    hits = [np.rint(cell * design.answers) for cell in control]
    honest = [ends(rate(cell, answers)) for cell in hits]
    plain = [wilson(int(cell.sum()), int(answers.sum())) for cell in hits]
    covered = np.mean([low <= base <= high for low, high in honest])
    assert covered > 0.95 - SLACK
    assert covered < (1 if design.seeds == 3 else 0.95 + SLACK)
    assert np.mean([low <= base <= high for low, high in plain]) < 0.95 - 3 * SLACK


def test_the_two_way_variance_by_hand() -> None:
    """2 seeds, 3 tasks: sums of squares of the textbook's two-way table, written out; then the t over seed means, if wider."""
    treatment = np.array([[0.9, 0.1, 0.5], [0.8, 0.0, 0.5]])
    rows, columns, whole = treatment.mean(axis=1), treatment.mean(axis=0), treatment.mean()
    seeds = 3 * sum((row - whole) ** 2 for row in rows) / 1
    tasks = 2 * sum((column - whole) ** 2 for column in columns) / 2
    rest = sum((treatment[s, t] - rows[s] - columns[t] + whole) ** 2 for s in range(2) for t in range(3)) / 2
    variance = (seeds + tasks - rest) / 6
    assert variance > max(seeds, tasks) / 6
    df = variance**2 / ((seeds / 6) ** 2 / 1 + (tasks / 6) ** 2 / 2)
    found = paired_difference(treatment, np.zeros((2, 3)))
    assert found is not None
    assert found.estimate == pytest.approx(whole)
    assert found.p == pytest.approx(student.two_sided_p(whole / np.sqrt(variance), df))
    assert found.high == 1.0  # clipped: no difference of rates is larger
    unclipped = paired_difference(treatment, np.zeros((2, 3)), outcome_range=None)
    assert unclipped is not None
    assert unclipped.high == pytest.approx(whole + student.quantile(0.95, df) * np.sqrt(variance))
    apart = paired_difference(treatment - [[0.0], [0.4]], np.zeros((2, 3)), outcome_range=None)
    assert apart is not None
    over_seeds = t_interval(treatment.mean(axis=1) - [0.0, 0.4])
    assert (apart.low, apart.high) == pytest.approx(over_seeds)


def test_one_seed_is_the_paired_t_and_says_what_it_does_not_say() -> None:
    treatment, control = np.tile([1.0, 0, 0, 1, 0], 4), np.tile([1.0, 1, 0, 1, 1], 4)
    found = paired_difference(treatment, control)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(t_interval(treatment - control))
    assert found.caveat == ONE_SEED == "one seed: says nothing about retraining"
    assert (found.num_seeds, found.num_tasks, found.method) == (1, 20, "t over tasks")


def test_pairing_helps_and_direction_is_treatment_minus_control() -> None:
    pair = simulate(0.4, 0.1, Design(tasks=200, seeds=5, noise=Noise(shared=0.8, arm=0, model=0)), num_draws=1, seed=0)
    treatment, control = pair[0][0], pair[1][0]
    paired, reverse = paired_difference(treatment, control), paired_difference(control, treatment)
    shuffled = paired_difference(treatment, np.random.default_rng(0).permutation(control, axis=1))
    assert paired is not None and reverse is not None and shuffled is not None
    assert paired.estimate < 0 < reverse.estimate
    assert (paired.low, paired.high, paired.p) == pytest.approx((-reverse.high, -reverse.low, reverse.p))
    assert paired.high - paired.low < 0.8 * (shuffled.high - shuffled.low)


@given(st.integers(0, 10_000), st.floats(0.5, 0.999))
def test_the_interval_excludes_zero_exactly_when_p_is_below_alpha(seed: int, confidence: float) -> None:
    pair = simulate(0.4, 0.05, Design(tasks=30, seeds=3), num_draws=1, seed=seed)
    found = paired_difference(pair[0][0], pair[1][0], confidence=confidence)
    assert found is not None
    if abs(found.p - (1 - confidence)) > 1e-9:
        assert found.excludes_zero == (found.p < 1 - confidence)


def test_missing_outcomes_are_left_out_and_counted() -> None:
    pair = simulate(0.4, 0.1, MIDDLE, num_draws=1, seed=5)
    treatment, control = pair[0][0].copy(), pair[1][0].copy()
    treatment[:, 7] = np.nan  # a task that no seed has
    control[2, 11] = np.nan  # a hole
    found, without = paired_difference(treatment, control), paired_difference(treatment[:, :7], control[:, :7])
    assert found is not None and without is not None
    assert (found.num_seeds, found.num_tasks) == (5, 99)
    assert found.estimate == pytest.approx(np.nanmean(treatment - control))
    task_gone = paired_difference(np.delete(treatment, [7, 11], axis=1), np.delete(control, [7, 11], axis=1))
    assert task_gone is not None
    assert found.high - found.low == pytest.approx(task_gone.high - task_gone.low, rel=0.05)
    assert found.high - found.low < without.high - without.low


def test_holes_at_random_do_not_spoil_coverage() -> None:
    treatment, control = simulate(0.4, 0.1, MIDDLE, num_draws=NUM_DRAWS, seed=6)
    treatment[np.random.default_rng(0).random(treatment.shape) < 0.3] = np.nan
    found = [ends(paired_difference(t, c)) for t, c in zip(treatment, control, strict=True)]
    assert 0.95 - SLACK < np.mean([low <= -0.1 <= high for low, high in found]) < 0.99


def test_nothing_in_nothing_out() -> None:
    nothing = np.full((3, 4), np.nan)
    assert paired_difference(nothing, np.zeros((3, 4))) is None
    assert mean(nothing) is None
    assert pigeonhole(nothing) is None
    assert rate(np.zeros((3, 4)), np.zeros((3, 4))) is None


def test_no_spread_is_not_certainty() -> None:
    zeros = np.zeros((3, 200))
    found, fewer = paired_difference(zeros, zeros), paired_difference(zeros[:, :20], zeros[:, :20])
    assert found is not None and fewer is not None
    assert (found.estimate, found.p) == (0.0, 1.0)
    assert found.high == -found.low == pytest.approx(wilson(0, 200)[1])
    assert NO_SPREAD in found.caveat
    assert fewer.high > found.high
    always = paired_difference(zeros, zeros + 1)
    assert always is not None
    assert always.low == -1.0 and always.high < -0.9 and always.p < 1e-6
    third = paired_difference(zeros + 1 / 3, zeros + 0.1)  # 1e-17 of rounding is not a spread
    assert third is not None and NO_SPREAD in third.caveat


def test_no_spread_has_the_p_value_of_its_interval() -> None:
    control = np.zeros((3, 4))
    found = paired_difference(control + 0.9, control)
    assert found is not None and 0 < found.p < 1
    touching = paired_difference(control + 0.9, control, confidence=1 - found.p)
    assert touching is not None and touching.low == pytest.approx(0.0, abs=1e-9)


def test_one_task_says_nothing() -> None:
    found = paired_difference([[1.0], [1.0], [0.0]], [[0.0], [0.0], [0.0]])
    assert found is not None
    assert (found.low, found.high, found.p) == (-1.0, 1.0, 1.0)
    assert "one task" in found.caveat


def test_the_base_model_is_one_fixed_control() -> None:
    pair = simulate(0.4, 0.1, MIDDLE, num_draws=1, seed=7)
    treatment, base = pair[0][0], pair[1][0][0]
    found = paired_difference(treatment, base, fixed_control=True)
    same = paired_difference(treatment, np.tile(base, (5, 1)))
    assert found == same
    assert found is not None and found.num_seeds == 5


@pytest.mark.parametrize(
    ("treatment", "control", "fixed", "message"),
    [
        ((3, 5), (3, 6), False, "treatment_S_T has 5 tasks, control_S_T 6; give both the same tasks"),
        ((3, 5), (2, 5), False, "has 3 seeds, control_S_T 2; give the seeds that both have"),
        ((3, 5), (1, 5), False, "fixed_control=True"),
        ((3, 5), (3, 5), True, "a fixed control is one model; got 3 rows"),
        ((1, 3, 5), (3, 5), False, "two dimensions, seeds and tasks"),
    ],
)
def test_wrong_shapes_are_refused(treatment: tuple[int, ...], control: tuple[int, ...], fixed: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        paired_outcomes(np.zeros(treatment), np.zeros(control), fixed_control=fixed)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="infinite value; write NaN"):
        mean([[np.inf, 1.0]])
    with pytest.raises(ValueError, match=r"got 3 of 2 at seed 1, task 0"):
        rate([[0, 1], [3, 0]], [[2, 2], [2, 2]])
    with pytest.raises(ValueError, match="got nan of 1"):
        rate([[np.nan]], [[1]])
    for function in (mean, pigeonhole):
        with pytest.raises(ValueError, match=r"such as 0\.95"):
            function(np.zeros((2, 3)), confidence=95)
    with pytest.raises(ValueError, match="num_draws must be at least 100"):
        pigeonhole(np.zeros((2, 3)), num_draws=10)


def test_a_plain_rate_is_wilson() -> None:
    found = rate([1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0])
    assert found is not None
    assert (found.low, found.high) == wilson(3, 5)
    assert (found.method, found.num_tasks, found.caveat) == ("Wilson", 5, ONE_SEED)


def test_copies_of_an_answer_add_nothing_to_a_rate() -> None:
    hits = np.random.default_rng(0).random(100) < 0.3
    once, copied = rate(hits, np.ones(100)), rate(5 * hits, np.full(100, 5))
    assert once is not None and copied is not None
    assert copied.estimate == once.estimate
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.03)


def test_a_rate_of_nothing_in_many_copies_is_bounded_by_its_tasks() -> None:
    found = rate(np.zeros((3, 50)), np.full((3, 50), 4))
    assert found is not None
    assert (found.low, found.high) == wilson(0, 50)
    every = rate(np.full((3, 50), 4), np.full((3, 50), 4))
    assert every is not None
    assert (every.low, every.high) == wilson(50, 50)


def test_a_rare_clustered_rate_carries_a_caveat() -> None:
    hits = np.zeros((3, 50))
    hits[:, 0] = 1
    found = rate(hits, np.ones((3, 50)))
    assert found is not None and found.caveat == RARE
    common = rate(np.tile(np.arange(50) % 2, (3, 1)), np.ones((3, 50)))
    assert common is not None and common.caveat == ""


def test_the_mean_of_scores_is_not_bound_to_rates() -> None:
    scores = np.random.default_rng(0).normal(9, 2, size=(5, 100)) + np.arange(5)[:, None]
    found = mean(scores)
    assert found is not None
    assert found.low < 11 < found.high
    assert found.high - found.low > 2  # seeds lie a point apart: over tasks alone it would be .35


def test_the_bootstrap_is_seeded_and_has_the_variance_that_theory_gives() -> None:
    cells = simulate(0.4, 0.1, Design(tasks=100, seeds=6), num_draws=1, seed=8)[0][0]
    assert pigeonhole(cells) == pigeonhole(cells)
    assert pigeonhole(cells) != pigeonhole(cells, seed=1)
    rows, columns, whole = cells.mean(axis=1), cells.mean(axis=0), cells.mean()
    rest = cells - rows[:, None] - columns + whole
    # Exact for a full table: both weights are multinomial, and each has variance 1 - 1/size.
    variance = rows.var() / 6 + columns.var() / 100 + rest.var() / 600
    low, high = ends(pigeonhole(cells, num_draws=20_000))
    assert (high - low) / 2 / 1.96 == pytest.approx(np.sqrt(variance), rel=0.03)


def test_the_bootstrap_of_a_table_with_holes_is_that_of_a_resampled_list() -> None:
    generator = np.random.default_rng(9)
    cells = generator.random((4, 30))
    cells[generator.random(cells.shape) < 0.3] = np.nan
    drawn = [np.nanmean(cells[np.ix_(generator.integers(4, size=4), generator.integers(30, size=30))]) for _ in range(5000)]
    low, high = ends(pigeonhole(cells, num_draws=20_000))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)


def test_a_whole_evaluation_is_counted() -> None:
    """8 models x 6 contexts x 500 tasks, ten seeds each, with every difference; benchmarks/evaluation.py times it."""
    cells = [simulate(0.4, 0.1, Design(tasks=500, seeds=10), num_draws=6, seed=seed)[0] for seed in range(8)]
    rates = [rate(cell, np.ones_like(cell)) for model in cells for cell in model]
    pairs = [(cell, first) for model in cells[1:] for cell, first in zip(model, cells[0], strict=True)]
    found = [paired_difference(cell, first) for cell, first in pairs]
    resampled = [pigeonhole(paired_outcomes(cell, first)) for cell, first in pairs]
    adjusted = holm([difference.p for difference in found if difference])
    assert (len(rates), len(adjusted), len(resampled)) == (48, 42, 42)
