"""How far two reviewers agree: the raw share and Cohen's kappa, always with n. Pure.

Kappa is (observed - chance) / (1 - chance), with chance from each reviewer's own shares of labels (Cohen, Educational and
Psychological Measurement 20, 1960). `unsure` is a label like the others here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from recontext_data.stats.agreement import kappa


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two reviewers on one question."""

    question: str
    first: str
    second: str
    n: int
    """Candidates that both labelled."""
    same: int
    kappa: float | None
    """None where it is undefined: nothing in common, or both gave one and the same label throughout."""
    table: Mapping[tuple[str, str], int]
    """Candidates by (label of the first, label of the second)."""

    @property
    def raw(self) -> float | None:
        """Share of the candidates on which they agree."""
        return self.same / self.n if self.n else None


def agreements(rows: Iterable[Mapping[str, Any]]) -> list[Agreement]:
    """Every pair of reviewers on every question that both answered about some candidate; rows as in `tables.LABELS`."""
    said: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        said.setdefault(row["question"], {}).setdefault(row["reviewer"], {})[row["candidate_id"]] = row["label"]
    return [
        agreement(question, (first, second), by_reviewer[first], by_reviewer[second])
        for question, by_reviewer in sorted(said.items())
        for first, second in combinations(sorted(by_reviewer), 2)
    ]


def agreement(question: str, names: tuple[str, str], first: Mapping[str, str], second: Mapping[str, str]) -> Agreement:
    """Two reviewers' labels by candidate, compared where both gave one."""
    pairs = [(first[candidate], second[candidate]) for candidate in first if candidate in second]
    mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    return Agreement(question, *names, len(pairs), sum(a == b for a, b in pairs), kappa(mine, theirs), Counter(pairs))
