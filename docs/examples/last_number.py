"""A judge: reads the last number of an answer and compares it with the task's payload."""

import re
from collections.abc import Sequence

from recontext_data import Candidate, Config, Judgement


class LastNumber(Config):
    """`right`, `copied` or `other`; an answer without a number is `other`."""

    kind: str = "last_number:LastNumber"
    name: str = "last_number"
    """The judge's name in tables."""
    scores: dict[str, float] = {}
    """A score per label, for `select.keep: best`; a label without one has no score, never 0."""

    @property
    def labels(self) -> Sequence[str]:
        """Every label it can give."""
        return ("right", "copied", "other")

    @property
    def gives_scores(self) -> bool:
        """Whether a selection by score can go by it."""
        return bool(self.scores)

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """One judgement per candidate, in order. A candidate carries neither its context nor its arm: the judge is blind."""
        return [self._read(candidate) for candidate in candidates]

    def _read(self, candidate: Candidate) -> Judgement:
        numbers = re.findall(r"[0-9]+", candidate.completion)
        said = int(numbers[-1]) if numbers and len(numbers[-1]) < 10 else None
        label = next((name for name in ("right", "copied") if candidate.payload[name] == said), "other")
        return Judgement(
            candidate_id=candidate.candidate_id,
            judge=self.name,
            label=label,
            score=self.scores.get(label),
            unscored_reason=None,
            raw=candidate.completion[-80:],
        )
