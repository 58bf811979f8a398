"""Labels completions by regular expressions; needs no model.

    - {kind: pattern, name: refusal, patterns: {refused: "^(i'm sorry|i can(no|')t)"}, otherwise: answered}

The first label of which a pattern is found wins, in the order of the recipe. A text in which none is found gets `otherwise`;
without `otherwise` it is unscored, with that as the reason.
"""

import functools
import re
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.completions import Marks, split_reasoning
from recontext_data.core.config import Config, optional_field
from recontext_data.core.records import Candidate, Judgement
from recontext_data.judges.base import require_known

RAW_CHARACTERS = 200
"""Of the found text that are kept as the judge's words."""

MAX_CHARACTERS = 200_000
"""Of a text that are searched; a longer one is unscored, since a pattern may take very long on it."""


class PatternJudge(Config):
    """Labels a candidate by the first pattern that is found in it."""

    kind: Literal["pattern"] = "pattern"
    name: str = "pattern"
    """The judge's name in tables."""
    patterns: dict[str, str | list[str]] = Field(min_length=1)
    """Label -> a regular expression of Python's, or several; the first label of which one is found is given."""
    otherwise: str | None = None
    """The label of a text in which none is found; left out, such a text is unscored."""
    text: Literal["completion", "last_line", "reasoning"] = "completion"
    """Where to look. A candidate without reasoning is unscored where that is asked for."""
    marks: Marks = optional_field("beside")
    """For `text: reasoning`, where it stands: `think`, in <think> tags; `code`, around the last complete code block;
    `beside`, in the field that the server returned it in. What came in that field is read in any case."""
    ignore_case: bool = True
    """Whether upper and lower case are the same."""
    scores: dict[str, float] = {}
    """A score per label; a label without one has no score."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for label, patterns in self.patterns.items():
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                _check_pattern(label, pattern)
        require_known(self.scores, self.labels)
        return self

    @property
    def labels(self) -> Sequence[str]:
        return tuple(dict.fromkeys([*self.patterns, *([] if self.otherwise is None else [self.otherwise])]))

    @property
    def gives_scores(self) -> bool:
        return bool(self.scores)

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        flags = re.MULTILINE | (re.IGNORECASE if self.ignore_case else 0)
        compiled = [
            (label, re.compile(pattern, flags))
            for label, patterns in self.patterns.items()
            for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        ]
        return [self._read(candidate, compiled) for candidate in candidates]

    def _read(self, candidate: Candidate, compiled: "list[tuple[str, re.Pattern[str]]]") -> Judgement:
        word = functools.partial(Judgement, candidate_id=candidate.candidate_id, judge=self.name)
        text = self._text(candidate)
        if text is None:
            return word(label=None, score=None, unscored_reason="there is no reasoning", raw="")
        if len(text) > MAX_CHARACTERS:
            return word(label=None, score=None, unscored_reason=f"longer than {MAX_CHARACTERS} characters", raw="")
        for label, pattern in compiled:
            found = pattern.search(text)
            if found:
                raw = found[0][:RAW_CHARACTERS]
                return word(label=label, score=self.scores.get(label), unscored_reason=None, raw=raw)
        if self.otherwise is None:
            return word(label=None, score=None, unscored_reason="no pattern was found", raw="")
        return word(label=self.otherwise, score=self.scores.get(self.otherwise), unscored_reason=None, raw="")

    def _text(self, candidate: Candidate) -> str | None:
        if self.text == "reasoning":
            parts = split_reasoning(candidate.completion, marks=self.marks)
            found = [candidate.reasoning or "", parts[0] if parts else ""]
            return "\n".join(filter(None, found)) or None
        if self.text == "completion":
            return candidate.completion
        lines = candidate.completion.rstrip().splitlines()
        return lines[-1] if lines else ""


def _check_pattern(label: str, pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"patterns.{label}: {pattern!r} is not a valid regular expression: {error}") from None
    if compiled.search(""):
        raise ValueError(
            f"patterns.{label}: {pattern!r} is found in an empty text, and so in every one; say what must be there"
        )
