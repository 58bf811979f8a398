"""Money, in one place: which models are paid for, at what price, what a run has spent, and whether it may spend more.

A cost is tokens times list price (`core.prices`), times the share of it that the way of asking is charged. It is an estimate
of an invoice. `Charge` says what a model's tokens cost; `Budget` counts what one run spends.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from recontext_data.core.errors import BuildStopped, RecipeError
from recontext_data.core.prices import Price, price_of
from recontext_data.core.records import Reply, Request


@runtime_checkable
class PaidByToken(Protocol):
    """The config of a policy whose tokens are paid for."""

    @property
    def model(self) -> str:
        """The model's name, by which its price is found."""
        ...

    @property
    def api_key_env(self) -> str:
        """The environment variable that holds the key; empty for a server that needs none."""
        ...

    @property
    def price_factor(self) -> float:
        """The share of the list price that is charged: 1, or 0.5 in the Batch API."""
        ...

    @property
    def stops_in_time(self) -> bool:
        """Whether asking can stop at any request; a batch is bought as a whole."""
        ...


@dataclass(frozen=True)
class Charge:
    """What the tokens of one model cost."""

    model: str
    """The model's name, or the kind of a policy that is not paid by the token."""
    is_paid: bool = False
    """Whether the model is paid by the token."""
    price: Price | None = None
    """USD per million tokens; None where the model is not paid by the token or its price is not known."""
    factor: float = 1.0
    """The share of the list price that is charged."""

    def usd(self, *, prompt: int, completion: int, cached: int = 0) -> float | None:
        """The cost of so many tokens; 0 for a model that is not paid by the token, None where the price is not known."""
        if not self.is_paid:
            return 0.0
        return self.factor * self.price.usd(prompt=prompt, completion=completion, cached=cached) if self.price else None

    def require_price(self, budget_usd: float | None, *, role: str = "") -> None:
        """Refuses a budget that cannot be kept. `role`: what the model does, for the message.

        Raises:
            RecipeError: there is a budget, and the price of a model that is paid by the token is not known.
        """
        if budget_usd is not None and self.is_paid and self.price is None:
            raise RecipeError(
                f"limits.budget_usd: no price is known for {self.model}{role}; "
                f"set prices.{self.model}='{{input: ..., output: ...}}'"
            )


def charge_of(policy: object, prices: Mapping[str, Price], *, priced_as: str | None = None) -> Charge:
    """What a policy's tokens cost.

    Args:
        policy: its config.
        prices: the recipe's own, by model; they go before the list of data/prices.yaml.
        priced_as: another name to look for, such as the model that a fine-tuned one was made from.
    """
    if not isinstance(policy, PaidByToken):
        return Charge(str(getattr(policy, "kind", "")))
    names = [policy.model, *([priced_as] if priced_as else [])]
    price = next((found for name in names if (found := price_of(name, prices)) is not None), None)
    return Charge(policy.model, is_paid=True, price=price, factor=policy.price_factor)


@dataclass
class Budget:
    """What one run may spend and has spent. Without a price nothing is counted: a model of one's own costs no tokens."""

    price: Price | None = None
    factor: float = 1.0
    """The share of the list price that is charged: 0.5 in the Batch API."""
    budget_usd: float | None = None
    """The limit, in USD; None for no limit."""
    spent_usd: float = 0.0
    """Spent so far by this run, in USD; what its stored replies cost is included from the start."""
    unsent_count: int = field(default=0, init=False)
    """Completions that were not asked for, since the money was spent or too many had failed."""
    is_closed: bool = field(default=False, init=False)
    """Whether nothing more may be asked for, whatever is left."""
    is_drained: bool = field(default=False, init=False)
    """Whether every request has been given out."""

    def charge(self, charge: Charge) -> None:
        """From here on replies are paid at this charge."""
        self.price, self.factor = charge.price, charge.factor

    def pay(self, replies: Sequence[Reply]) -> float:
        """Counts what replies cost and returns it, in USD."""
        if self.price is None:
            return 0.0
        usd = self.factor * sum(self.price.of(reply) for reply in replies)
        self.spent_usd += usd
        return usd

    def may_spend(self) -> bool:
        """Whether anything more may be asked for."""
        return not self.is_closed and (self.budget_usd is None or self.spent_usd < self.budget_usd)

    def affordable(self, requests: Iterator[Request]) -> Iterator[Request]:
        """The requests, one by one as they are pulled, until the budget is spent."""
        while self.may_spend():
            request = next(requests, None)
            if request is None:
                self.is_drained = True
                return
            yield request

    def require_affordable(self, *, prompt: int, completion: int, batch: str, fix: str) -> None:
        """Refuses a batch that could cost more than is left: it is bought as a whole and cannot be stopped half way.

        Args:
            prompt: tokens of all its prompts.
            completion: tokens of all its completions, at most.
            batch: what the batch is, for the message.
            fix: what to do instead.

        Raises:
            BuildStopped: it could.
        """
        if self.budget_usd is None or self.price is None:
            return
        most = self.spent_usd + self.factor * self.price.usd(prompt=prompt, completion=completion)
        if most > self.budget_usd:
            raise BuildStopped(
                f"limits.budget_usd: {self.budget_usd} USD, and with {batch} the run may cost {most:.4f} if every completion "
                f"runs to max_tokens; raise the budget, or {fix}"
            )

    def require_all_sent(self) -> None:
        """Ends a build that ran out of money.

        Raises:
            BuildStopped: completions are still to be sampled.
        """
        if self.unsent_count:
            raise BuildStopped(
                f"limits.budget_usd: {self.spent_usd:.4f} of {self.budget_usd} USD are spent and {self.unsent_count} "
                "completions are still to be sampled; raise it and run the same command again, what came is kept"
            )
