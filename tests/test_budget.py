"""What tokens cost and what may be spent: one module for sampling, judging, rewriting and evaluation."""

import pytest

from recontext_data.core.budget import Budget, charge_of
from recontext_data.core.errors import BuildStopped, RecipeError
from recontext_data.core.prices import Price
from recontext_data.policies.fake import FakeConfig
from recontext_data.policies.openai.batch import OpenAIBatchConfig
from recontext_data.policies.openai.chat import OpenAIConfig
from recontext_data.policies.tiny.policy import TinyConfig

PRICE = Price(input=2.0, output=8.0)
MILLION = 1_000_000


def test_a_batch_is_charged_half_of_the_list_price() -> None:
    prices = {"m": PRICE}
    assert charge_of(OpenAIConfig(model="m"), prices).usd(prompt=MILLION, completion=MILLION) == 10.0
    assert charge_of(OpenAIBatchConfig(model="m"), prices).usd(prompt=MILLION, completion=MILLION) == 5.0


@pytest.mark.parametrize("policy", [TinyConfig(), FakeConfig(rates={"none": {"hack": 1.0}})])
def test_a_model_of_ones_own_costs_nothing(policy: object) -> None:
    cost = charge_of(policy, {"m": PRICE})
    assert not cost.is_paid and cost.usd(prompt=MILLION, completion=MILLION) == 0.0
    cost.require_price(5.0)  # nothing to hold against a budget, and nothing to refuse


def test_a_price_that_is_not_known_is_null_and_no_budget_can_be_kept() -> None:
    cost = charge_of(OpenAIConfig(model="nobody-knows-it"), {})
    assert cost.is_paid and cost.usd(prompt=1, completion=1) is None
    cost.require_price(None)
    with pytest.raises(
        RecipeError, match=r"no price is known for nobody-knows-it, which judges mine; set prices\.nobody-knows-it="
    ):
        cost.require_price(5.0, role=", which judges mine")


def test_a_fine_tuned_model_is_priced_as_the_model_that_it_was_made_from() -> None:
    tuned = OpenAIConfig(model="ft:m:org::1")
    assert charge_of(tuned, {"m": PRICE}).price is None
    assert charge_of(tuned, {"m": PRICE}, priced_as="m").price == PRICE


def test_a_batch_that_could_cost_more_than_is_left_is_refused_before_it_is_bought() -> None:
    budget = Budget(price=PRICE, factor=0.5, budget_usd=5.0, spent_usd=1.0)
    budget.require_affordable(prompt=0, completion=MILLION, batch="this batch", fix="wait")
    with pytest.raises(
        BuildStopped, match=r"5\.0 USD, and with this batch the run may cost 6\.0000 if every completion .*, or wait"
    ):
        budget.require_affordable(prompt=MILLION, completion=MILLION, batch="this batch", fix="wait")
