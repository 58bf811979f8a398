"""Wilson's interval, Holm's correction and Student's t against published values, closed forms and their properties."""

import random
import subprocess
import sys
from math import atan, comb, isclose, pi, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.stats import student
from recontext_data.stats.statistics import holm, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same
        (1, 29, 0.0061, 0.1718),  # the same
    ],
)
def test_known_values(successes: int, total: int, low: float, high: float) -> None:
    found = wilson(successes, total)
    assert found == pytest.approx((low, high), abs=6e-5)


def test_ends_are_exact() -> None:
    for total in (1, 7, 20, 1024, 10**9):
        assert wilson(0, total)[0] == 0.0
        assert wilson(total, total)[1] == 1.0
        assert 0.0 < wilson(0, total)[1] < 1.0
        assert 0.0 < wilson(total, total)[0] < 1.0


def test_newcombe_zero_of_twenty() -> None:
    assert wilson(0, 20)[1] == pytest.approx(0.1611, abs=6e-5)


def test_nothing_is_known_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_larger_confidence_is_wider() -> None:
    narrow, wide = wilson(30, 100, confidence=0.8), wilson(30, 100, confidence=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


@given(st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_holds_the_share_mirrors_and_inverts_the_score_test(pair: tuple[int, int]) -> None:
    successes, total = pair
    low, high = wilson(successes, total)
    assert 0.0 <= low <= successes / total <= high <= 1.0
    mirrored = wilson(total - successes, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    # By definition each end is a true share p that lies 1.96 of its own standard errors from the observed one.
    for end in (low, high):
        distance = abs(successes / total - end)
        assert end in (0.0, 1.0) or isclose(distance, 1.959963985 * sqrt(end * (1 - end) / total), rel_tol=1e-5, abs_tol=1e-9)


@pytest.mark.parametrize(("successes", "total"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {total}"):
        wilson(successes, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"such as 0\.95"):
        wilson(1, 2, confidence=confidence)


def test_wilson_covers_95_percent() -> None:
    """Exact: every count's interval, weighted by the binomial probability of the count."""
    for total in (200, 500):
        for share in (0.1, 0.2, 0.3, 0.5):
            assert 0.94 <= exact_coverage(share, total) <= 0.96


def test_wilson_oscillates_near_zero_as_its_docstring_says() -> None:
    lowest = min(exact_coverage(expected / 200, 200) for expected in (0.1, 0.176, 0.18, 0.2, 0.5, 1, 2, 5))
    assert 0.83 < lowest < 0.9


def exact_coverage(share: float, total: int) -> float:
    covered = 0.0
    for successes in range(total + 1):
        low, high = wilson(successes, total)
        if low <= share <= high:
            covered += comb(total, successes) * share**successes * (1 - share) ** (total - successes)
    return covered


def test_wald_would_not_pass() -> None:
    """The coverage test above can fail: the textbook interval does, at the same share."""
    total, share = 200, 0.05
    covered = 0.0
    for successes in range(total + 1):
        rate = successes / total
        if abs(rate - share) <= 1.96 * sqrt(rate * (1 - rate) / total):
            covered += comb(total, successes) * share**successes * (1 - share) ** (total - successes)
    assert covered < 0.94


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_missing_comparisons_out() -> None:
    assert holm([None, 0.02, None, 0.5]) == [None, 0.04, None, 0.5]
    assert holm([]) == []
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = [value for value in holm(p_values) if value is not None]
    for p, value in zip(p_values, adjusted, strict=True):
        assert p <= value <= min(1.0, len(p_values) * p)
    ordered = [value for _, value in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_holm_keeps_the_family_wise_error() -> None:
    """20 true nulls, 2,000 families: uncorrected, 64 % of them would claim something."""
    generator = random.Random(0)
    families = [[generator.random() for _ in range(20)] for _ in range(2000)]
    claimed = sum(min(value for value in holm(family) if value is not None) < 0.05 for family in families) / 2000
    uncorrected = sum(min(family) < 0.05 for family in families) / 2000
    assert 0.035 < claimed < 0.065
    assert uncorrected > 0.5


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(ValueError, match="at place 1"):
        holm([0.5, p])


@pytest.mark.parametrize(
    ("confidence", "df", "t"),
    [  # published tables of Student's t
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 4, 2.776),
        (0.99, 9, 3.250),
        (0.95, 30, 2.042),
        (0.9, 120, 1.658),
        (0.999, 3, 12.924),
        (0.95, 1e9, 1.960),
    ],
)
def test_t_quantiles_are_the_published_ones(confidence: float, df: float, t: float) -> None:
    assert student.quantile(confidence, df) == pytest.approx(t, abs=6e-4)


@given(st.floats(0.3, 2e6), st.floats(0.001, 0.9999))
def test_t_quantile_and_p_value_invert_each_other(df: float, confidence: float) -> None:
    assert student.two_sided_p(student.quantile(confidence, df), df) == pytest.approx(1 - confidence, rel=1e-5)


def test_t_against_closed_forms() -> None:
    for t in (0.01, 0.5, 1.0, 3.0, 40.0):
        assert student.two_sided_p(t, 1) == pytest.approx(1 - 2 * atan(t) / pi, rel=1e-9)
        assert student.two_sided_p(-t, 2) == pytest.approx(1 - t / sqrt(2 + t * t), rel=1e-9)
    assert student.two_sided_p(0.0, 3) == 1.0
    assert student.two_sided_p(float("inf"), 3) == 0.0


def test_the_light_half_imports_no_numpy() -> None:
    """The report and `recontext power` import it at their start."""
    code = "import sys, recontext_data.stats.statistics, recontext_data.power; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
