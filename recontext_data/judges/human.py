"""Labels that people gave (`recontext view`), as a judge.

    judges:
      - kind: choice
      - {kind: human, file: runs/code_mc/labels/labels.parquet, names: {not_hack: general}}

A candidate that nobody labelled is unscored, with the reason; so is one on which reviewers differ, unless `conflict` says
whose word counts. No label is ever made up.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from recontext_data.core.config import Config
from recontext_data.core.records import Candidate, Judgement, content_hash
from recontext_data.judges.base import require_known

WORDS: Mapping[str, tuple[str, ...]] = {"behaviour": ("not_hack", "hack"), "use": ("keep", "drop")}
"""What reviewers may say to each question, beside being unsure."""

UNSURE = "unsure"
"""A reviewer's word that is no label: it says that the reviewer could not tell."""

Verdicts = dict[str, list[tuple[str, str, str]]]
"""By candidate: (reviewer, label, time), sorted by reviewer."""


class HumanJudge(Config):
    """Says what reviewers said."""

    kind: Literal["human"] = "human"
    name: str = "human"
    """The judge's name in tables."""
    file: str
    """Path of the labels.parquet that `recontext view` writes."""
    question: Literal["behaviour", "use"] = "behaviour"
    """behaviour: hack or not_hack; use: keep or drop."""
    names: dict[str, str] = {}
    """What a reviewer's label is called in tables, such as {not_hack: general}; a label that is not named stays as it is."""
    scores: dict[str, float] = {}
    """A score per label (as it is called in tables), for `select.keep: best`: {keep: 1.0} keeps what people kept, for a
    candidate without a score is not kept."""
    reviewers: list[str] = []
    """Whose labels count; empty for everyone's."""
    conflict: Literal["unscored", "majority", "newest"] = "unscored"
    """Where reviewers differ: unscored; the label of more than half of them; or the newest label."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_known(self.names, WORDS[self.question], key="names")
        require_known(self.scores, self.labels)
        return self

    @property
    def labels(self) -> Sequence[str]:
        return tuple(self.names.get(word, word) for word in WORDS[self.question])

    @property
    def gives_scores(self) -> bool:
        return bool(self.scores)

    @property
    def content(self) -> dict[str, Any]:
        """What the rows that come of it depend on: the labels that it reads, and not where their file lies."""
        said = [(candidate, *one) for candidate, all_ in self._verdicts().items() for one in all_]
        digest = content_hash(sorted(one[:3] if self.conflict != "newest" else one for one in said))
        return {**self.model_dump(mode="json", exclude={"file"}), "labels": digest}

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """One judgement per candidate.

        Raises:
            DataError: the file of labels is missing or is none.
        """
        verdicts = self._verdicts()
        return [self._judgement(candidate.candidate_id, verdicts.get(candidate.candidate_id, [])) for candidate in candidates]

    def _verdicts(self) -> Verdicts:
        path = Path(self.file).expanduser()
        verdicts = _verdicts(path, self.question, _state(path))
        if not self.reviewers:
            return verdicts
        return {key: [one for one in said if one[0] in self.reviewers] for key, said in verdicts.items()}

    def _judgement(self, candidate_id: str, said: list[tuple[str, str, str]]) -> Judgement:
        label, reason = self._verdict(said)
        called = self.names.get(label, label) if label is not None else None
        return Judgement(
            candidate_id=candidate_id,
            judge=self.name,
            label=called,
            score=self.scores.get(called) if called is not None else None,
            unscored_reason=reason,
            raw="; ".join(f"{reviewer}: {word}" for reviewer, word, _ in said),
        )

    def _verdict(self, said: list[tuple[str, str, str]]) -> tuple[str | None, str | None]:
        """(label, why there is none)."""
        if not said:
            return None, "not labelled"
        words = Counter(word for _, word, _ in said)
        word, count = words.most_common(1)[0]
        if len(words) > 1:
            if self.conflict == "unscored":
                return None, "reviewers differ"
            if self.conflict == "newest":
                word = max(said, key=lambda one: (one[2], one[0]))[1]
            elif 2 * count <= len(said):
                return None, "reviewers differ, without a majority"
        return (None, "the reviewer is unsure") if word == UNSURE else (word, None)


def _state(path: Path) -> tuple[Any, ...]:
    """What changes when the labels do: they may be added to while a build is planned."""
    folder = path if path.is_dir() else path.parent
    files = sorted([path, *folder.glob("*.jsonl")])
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists())


@functools.lru_cache(maxsize=8)
def _verdicts(path: Path, question: str, state: tuple[Any, ...]) -> Verdicts:
    """Read once and not for every batch; `state` tells an old file from a new one."""
    from recontext_data.store.labels import labels_of

    table = labels_of(path)
    found: Verdicts = {}
    columns = [table.column(name).to_pylist() for name in ("candidate_id", "question", "reviewer", "label", "time")]
    for candidate_id, asked, reviewer, label, time in zip(*columns, strict=True):
        if asked == question:
            found.setdefault(candidate_id, []).append((reviewer, label, str(time)))
    return {candidate_id: sorted(said) for candidate_id, said in found.items()}
