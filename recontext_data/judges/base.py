"""What a judge is: a small frozen config that reads candidates and says a label, a score, both, or why neither."""

from collections.abc import Sequence
from typing import Protocol

from recontext_data.records import Candidate, Judgement


class Judge(Protocol):
    """Reads completions. Blind: a `Candidate` carries neither the generation context nor the arm."""

    @property
    def name(self) -> str:
        """The judge's name in tables: unique within a recipe."""
        ...

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """One judgement per candidate, in order. A candidate that cannot be read is unscored, with the reason."""
        ...
