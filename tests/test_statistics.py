"""The Wilson interval against published values, its exact ends, and its properties."""

from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.evaluation.statistics import wilson


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
