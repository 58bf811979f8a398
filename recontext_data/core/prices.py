"""What tokens cost: the dated table of data/prices.yaml, a recipe's own prices over it, and the arithmetic.

A cost is tokens times list price. It is an estimate of an invoice, and is only as fresh as the table's dates.
"""

import datetime
import functools
import re
from collections.abc import Mapping

from pydantic import Field

from recontext_data.core.config import Config
from recontext_data.core.records import Reply
from recontext_data.core.resources import shipped

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")

CHARACTERS_PER_TOKEN = 4
"""English text under GPT-class tokenizers, by rule of thumb; what is counted so is marked approximate."""


class Price(Config):
    """USD per million tokens of one model."""

    input: float = Field(ge=0)
    """Prompt tokens."""
    output: float = Field(ge=0)
    """Completion tokens, reasoning included."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens that the provider had cached; `input` where left out."""
    training: float | None = Field(default=None, ge=0)
    """Tokens trained on by the provider's fine-tuning, times the epochs; left out where it is not known."""
    date: datetime.date | None = None
    """When the provider listed it."""
    source: str = ""
    """Where."""

    def usd(self, *, prompt: int, completion: int, cached: int = 0) -> float:
        """The cost of one request; `cached` is the part of `prompt` that was cached."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        return ((prompt - cached) * self.input + cached * cached_price + completion * self.output) / 1e6

    def of(self, reply: Reply) -> float:
        """What one reply cost. Its tokens are on the first reply of each request, so a sum over replies is right."""
        cached = reply.details.get("cached_tokens")
        return self.usd(
            prompt=reply.prompt_tokens or 0,
            completion=reply.completion_tokens or 0,
            cached=cached if isinstance(cached, int) else 0,
        )


@functools.cache
def listed() -> Mapping[str, Price]:
    """The table that ships with the package."""
    import yaml

    rows = yaml.safe_load(shipped("data/prices.yaml").read_text(encoding="utf-8"))
    return {model: Price.model_validate(row) for model, row in rows.items()}


def price_of(model: str, own: Mapping[str, Price]) -> Price | None:
    """The price of a model: the recipe's own, else the listed one; a dated snapshot has its model's price. None: unknown."""
    for table in (own, listed()):
        for name in (model, _SNAPSHOT.sub("", model)):
            if name in table:
                return table[name]
    return None


def approximate_tokens(text: str) -> int:
    """Tokens of a text by its length, for where nothing better is known."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)
