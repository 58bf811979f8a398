"""The forms that a model judge's verdict may have, and how strictly each is read. Pure.

    answer: {form: number, min: 0, max: 10}                     # whole numbers; step: 0.5 for halves
    answer: {form: label, labels: [mentions, silent]}           # with scores: {mentions: 1, silent: 0} also a score
    answer: {form: pass_fail}                                   # labels pass and fail, scores 1 and 0

A number is written as in arithmetic, in ASCII: `7`, `-2`, `6.5`. `10/10`, `7-8`, `7,5`, `1e1`, `+7`, `07`, `.5`, NaN and
digits of other scripts are no numbers here: whoever wrote them may have meant something else, and a judge that is asked
again costs less than a score that nobody gave.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_LONGEST = 40
"""Characters of a number: longer ones are noise, and arithmetic on them takes time."""

NOT_A_NUMBER = "no number"
OUT_OF_RANGE = "number out of range"
BETWEEN_STEPS = "number between the steps"
NO_LABEL = "no known label"
_WORDS = ("pass", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was read from a reply: a label, a score, both, or the reason why neither."""

    label: str | None = None
    score: float | None = None
    unscored_reason: str | None = None
    span: tuple[int, int] | None = None
    """Where in the reply the value stands, as character offsets."""

    def at(self, start: int, end: int) -> "Verdict":
        """The same verdict with its place."""
        return replace(self, span=(start, end))


class NumberAnswer(Config):
    """A number in a range."""

    form: Literal["number"] = "number"
    """A number in a range."""
    min: float = Field(default=0, strict=False)
    """The least, inclusive."""
    max: float = Field(default=10, strict=False)
    """The most, inclusive."""
    step: float = Field(default=1, gt=0, strict=False)
    """Numbers lie whole steps above `min`; 1 for whole numbers."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"answer.min: {self.min:g} is not below answer.max, {self.max:g}; swap them")
        if (_exact(self.max) - _exact(self.min)) % _exact(self.step):
            raise ValueError(f"answer.step: {self.step:g} does not lead from {self.min:g} to {self.max:g} in whole steps")
        return self

    @property
    def labels(self) -> Sequence[str]:
        """None: a number is a score."""
        return ()

    @property
    def gives_scores(self) -> bool:
        """Yes."""
        return True

    def read(self, text: str) -> Verdict:
        """The verdict in the text of a value."""
        if len(text) > _LONGEST or _NUMBER.fullmatch(text) is None:
            return Verdict(unscored_reason=NOT_A_NUMBER)
        number, least = Decimal(text), _exact(self.min)
        if not least <= number <= _exact(self.max):
            return Verdict(unscored_reason=OUT_OF_RANGE)
        if (number - least) % _exact(self.step):
            return Verdict(unscored_reason=BETWEEN_STEPS)
        return Verdict(score=float(number) + 0.0)  # + 0.0: "-0" is 0

    @property
    def wording(self) -> str:
        """What the judge is told to write."""
        kind = "whole number" if self.step == 1 and self.min == int(self.min) else "number"
        steps = "" if kind == "whole number" else f" in steps of {self.step:g}"
        return f"a {kind} from {self.min:g} to {self.max:g}{steps}"

    @property
    def values(self) -> Sequence[str]:
        """Every value as it is written, in order."""
        least, step = _exact(self.min), _exact(self.step)
        count = int((_exact(self.max) - least) / step) + 1
        return [_plain(least + i * step) for i in range(count)]


class LabelAnswer(Config):
    """One of a set of labels."""

    form: Literal["label"]
    """One of a set of labels."""
    labels: tuple[str, ...] = Field(min_length=2, strict=False)
    """The labels, in the order of reports."""
    scores: dict[str, float] = {}
    """A score per label, for selection; a label without one has none."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        odd = next((label for label in self.labels if label != label.strip() or not label or set(label) & set("<>\n")), None)
        if odd is not None:
            raise ValueError(f"answer.labels: {odd!r} is not accepted; use words without < > and without blanks at their ends")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"answer.labels: {', '.join(self.labels)}: one is there twice; labels must differ")
        for label in self.scores:
            if label not in self.labels:
                raise ValueError(f"answer.scores: {label!r} is none of the labels {', '.join(self.labels)}")
        return self

    @property
    def gives_scores(self) -> bool:
        """Where some label has one."""
        return bool(self.scores)

    def read(self, text: str) -> Verdict:
        """The verdict in the text of a value; a label must be written exactly."""
        return _labelled(text, self.labels, self.scores)

    @property
    def wording(self) -> str:
        """What the judge is told to write."""
        return f"one of: {', '.join(self.labels)}"

    @property
    def values(self) -> Sequence[str]:
        """Every value as it is written, in order."""
        return self.labels


class PassFailAnswer(Config):
    """Pass or fail."""

    form: Literal["pass_fail"]
    """Pass or fail; scores 1 and 0."""

    @property
    def labels(self) -> Sequence[str]:
        """pass, fail."""
        return _WORDS

    @property
    def gives_scores(self) -> bool:
        """Yes."""
        return True

    def read(self, text: str) -> Verdict:
        """The verdict in the text of a value."""
        return _labelled(text, _WORDS, {"pass": 1.0, "fail": 0.0})

    @property
    def wording(self) -> str:
        """What the judge is told to write."""
        return "pass or fail"

    @property
    def values(self) -> Sequence[str]:
        """Every value as it is written, in order."""
        return _WORDS


Answer = Annotated[NumberAnswer | LabelAnswer | PassFailAnswer, Field(discriminator="form")]


def _labelled(text: str, labels: Sequence[str], scores: Mapping[str, float]) -> Verdict:
    if text not in labels:
        return Verdict(unscored_reason=NO_LABEL)
    return Verdict(label=text, score=scores.get(text))


def _exact(value: float) -> Decimal:
    # By way of its text: 0.1 is meant as a tenth, not as the nearest binary fraction.
    return Decimal(repr(value))


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
