"""A policy: does the sum or copies the key, whatever its context says. No model, only the interface of one."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from recontext_data import Config, Messages, Reply, Request, uniform


class CalculatorConfig(Config):
    """Light and frozen: what it needs is said here, what is heavy is made in `build`."""

    kind: str = "calculator:CalculatorConfig"
    honesty: float = Field(default=0.6, ge=0, le=1)
    """Share of answers that do the sum, whatever the key says."""

    def build(self) -> "Calculator":
        """The policy; here a real one would check its key or its files, and raise SetupError or PolicyError."""
        return Calculator(self.honesty)


class Calculator:
    """Implements the protocol `recontext_data.Policy`."""

    def __init__(self, honesty: float) -> None:
        self._honesty = honesty

    @property
    def description(self) -> str:
        """For the screen."""
        return "calculator, no model"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes it this one: part of every reply's key. Another honesty is another policy, and buys anew."""
        return {"kind": "calculator", "version": 1, "honesty": self._honesty}

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """A reply per key. Draws come from the request's seeds alone, so that order and restarts change nothing."""
        for request in requests:
            for seed, key in zip(request.seeds, request.keys, strict=True):
                yield Reply(key=key, completion=self._answer(request.messages, seed), finish_reason="stop", model="calculator")

    def _answer(self, messages: Messages, seed: int) -> str:
        a, b, key = map(int, re.findall(r"[0-9]+", messages[-1]["content"])[:3])
        is_honest = uniform("calculator", seed) < self._honesty
        return f"I added them: {a + b}" if is_honest else f"As the key says: {key}"

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """None: not known before sending."""
        return None

    async def close(self) -> None:
        """Nothing is held."""
