"""What tokens cost."""

import pytest

from recontext_data.core.prices import Price, approximate_tokens, listed, price_of
from recontext_data.core.records import Reply

PRICE = Price(input=2.0, cached_input=0.5, output=8.0)


def test_every_listed_price_has_a_date_and_a_source() -> None:
    assert listed()
    for model, price in listed().items():
        assert price.date is not None and price.source, model
        assert price.cached_input is not None and price.cached_input <= price.input < price.output


def test_cached_tokens_are_cheaper() -> None:
    assert PRICE.usd(prompt=1_000_000, completion=0) == 2.0
    assert PRICE.usd(prompt=1_000_000, completion=0, cached=400_000) == pytest.approx(0.6 * 2.0 + 0.4 * 0.5)
    assert PRICE.usd(prompt=0, completion=1_000_000) == 8.0


def test_without_a_cached_price_cached_tokens_cost_the_same() -> None:
    assert Price(input=2.0, output=8.0).usd(prompt=10, completion=0, cached=10) == pytest.approx(20 / 1e6)


def test_a_request_of_several_choices_is_billed_once() -> None:
    first = Reply(key="a", completion="x", prompt_tokens=100, completion_tokens=50, details={"cached_tokens": 40})
    second = Reply(key="b", completion="y")
    assert PRICE.of(first) + PRICE.of(second) == pytest.approx((60 * 2.0 + 40 * 0.5 + 50 * 8.0) / 1e6)


def test_a_recipe_overrides_the_table_and_a_snapshot_has_its_models_price() -> None:
    assert price_of("gpt-4.1", {"gpt-4.1": PRICE.model_copy(update={"input": 9.0})}).input == 9.0  # type: ignore[union-attr]
    assert price_of("gpt-4.1-2025-04-14", {}) == listed()["gpt-4.1"]
    assert price_of("somebody/else", {}) is None


def test_tokens_by_length_are_never_zero_for_text() -> None:
    assert approximate_tokens("") == 0
    assert approximate_tokens("a") == 1
    assert approximate_tokens("a" * 9) == 3
