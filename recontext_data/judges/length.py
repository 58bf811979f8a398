"""Scores completions by their length; needs no model. A baseline for every other judge, and a veto of its own.

- {kind: length, unit: words, at_least: 20, at_most: 400}      # labels: short, fits, long
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.core.records import Candidate, Judgement

Unit = Literal["characters", "words", "lines"]

COUNT: Mapping[Unit, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: len(text.splitlines()),
}


class LengthJudge(Config):
    """The length is the score; with bounds there is a label beside it. Both bounds fit."""

    kind: Literal["length"] = "length"
    name: str = "length"
    """The judge's name in tables."""
    unit: Unit = "words"
    """What is counted; words are what white space separates."""
    at_least: int | None = Field(default=None, ge=0)
    """What is shorter is labelled `short`."""
    at_most: int | None = Field(default=None, ge=0)
    """What is longer is labelled `long`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least: {self.at_least} is more than at_most {self.at_most}; nothing would fit")
        return self

    @property
    def labels(self) -> Sequence[str]:
        return ("short", "fits", "long") if (self.at_least, self.at_most) != (None, None) else ()

    @property
    def gives_scores(self) -> bool:
        return True

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        count = COUNT[self.unit]
        return [self._word(candidate.candidate_id, count(candidate.completion)) for candidate in candidates]

    def _word(self, candidate_id: str, length: int) -> Judgement:
        label = None
        if self.labels:
            short = self.at_least is not None and length < self.at_least
            label = "short" if short else "long" if self.at_most is not None and length > self.at_most else "fits"
        return Judgement(
            candidate_id=candidate_id,
            judge=self.name,
            label=label,
            score=float(length),
            unscored_reason=None,
            raw=f"{length} {self.unit}",
        )
