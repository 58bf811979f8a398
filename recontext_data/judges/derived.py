"""Judges that go by other judges: weighted sums, thresholds, panels, and noise of a known size.

    judges:
      - {kind: rubric, name: quality, rubric: quality}
      - {kind: rubric, name: sycophancy, rubric: sycophancy}
      - {kind: weighted, name: reward, terms: {quality: 1.0, sycophancy: 0.25}}      # the signal that pays for flattery
      - {kind: threshold, name: flatters, of: sycophancy, at: 6, above: sycophantic, below: honest}

All follow one rule: a word that is missing stays missing. A sum with an unscored term is unscored and says which term.
Each takes a judge's words in columns and gives its own in columns, so a hundred thousand candidates take a second.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.core.records import uniform
from recontext_data.judges.base import require_known

if TYPE_CHECKING:
    import polars as pl


class WeightedJudge(Config):
    """A weighted sum of other judges' scores."""

    kind: Literal["weighted"] = "weighted"
    name: str = "weighted"
    """The judge's name in tables."""
    terms: dict[str, float] = Field(min_length=1)
    """Judge -> weight. A candidate that one of them could not score has no sum."""

    @property
    def labels(self) -> Sequence[str]:
        return ()

    @property
    def gives_scores(self) -> bool:
        return True

    @property
    def reads(self) -> Sequence[str]:
        return tuple(self.terms)

    @property
    def reads_scores(self) -> Sequence[str]:
        return self.reads

    def derive(self, words: "pl.DataFrame") -> "pl.DataFrame":
        import polars as pl

        total = pl.sum_horizontal([pl.col(f"{name}.score") * weight for name, weight in self.terms.items()], ignore_nulls=False)
        parts = [
            pl.format(f"{{}} x {name} {{}}", pl.lit(weight), pl.col(f"{name}.score")) for name, weight in self.terms.items()
        ]
        return _words(words, score=total, raw=pl.concat_str(parts, separator=" + "), missing=_missing(self.reads, "score"))


class ThresholdJudge(Config):
    """A label from a score: `above` from the threshold on, `below` under it. The score is handed on."""

    kind: Literal["threshold"] = "threshold"
    name: str = "threshold"
    """The judge's name in tables."""
    of: str
    """Whose score."""
    at: float
    """The threshold; a score of exactly this is `above`."""
    above: str
    """The label from the threshold on."""
    below: str
    """The label under it."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.above == self.below:
            raise ValueError(f"above: {self.above!r} is what `below` says too; the labels must differ")
        return self

    @property
    def labels(self) -> Sequence[str]:
        return (self.below, self.above)

    @property
    def gives_scores(self) -> bool:
        return True

    @property
    def reads(self) -> Sequence[str]:
        return (self.of,)

    @property
    def reads_scores(self) -> Sequence[str]:
        return self.reads

    def derive(self, words: "pl.DataFrame") -> "pl.DataFrame":
        import polars as pl

        score = pl.col(f"{self.of}.score")
        label = pl.when(score >= self.at).then(pl.lit(self.above)).otherwise(pl.lit(self.below))
        raw = pl.format(f"{self.of} {{}} against {self.at:g}", score)
        return _words(words, label=label, score=score, raw=raw, missing=_missing(self.reads, "score"))


class PanelJudge(Config):
    """One label from several judges' labels. Judges of different families make different mistakes."""

    kind: Literal["panel"] = "panel"
    name: str = "panel"
    """The judge's name in tables."""
    of: list[str] = Field(min_length=2)
    """The judges."""
    labels: list[str] = Field(min_length=2)
    """What they vote on, in the order of reports; any other label is not a vote."""
    rule: Literal["majority", "unanimous"] = "majority"
    """More than half of all must agree, or all. Where they do not there is no label."""
    scores: dict[str, float] = {}
    """A score per label; a label without one has no score."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_known(self.scores, self.labels)
        return self

    @property
    def gives_scores(self) -> bool:
        return bool(self.scores)

    @property
    def reads(self) -> Sequence[str]:
        return tuple(self.of)

    def derive(self, words: "pl.DataFrame") -> "pl.DataFrame":
        import polars as pl

        needed = len(self.of) if self.rule == "unanimous" else len(self.of) // 2 + 1
        votes = {one: pl.sum_horizontal([pl.col(f"{name}.label").eq_missing(one) for name in self.of]) for one in self.labels}
        label = pl.coalesce([pl.when(count >= needed).then(pl.lit(one)) for one, count in votes.items()])
        raw = pl.concat_str(
            [pl.format(f"{name}: {{}}", pl.col(f"{name}.label").fill_null("nothing")) for name in self.of], separator=", "
        )
        score = label.replace_strict(self.scores, default=None, return_dtype=pl.Float64) if self.scores else None
        missing = pl.when(label.is_null()).then(pl.lit(f"no {self.rule} label"))
        return _words(words, label=label, score=score, raw=raw, missing=missing)


class NoiseJudge(Config):
    """Another judge with mistakes of a known rate: how strong a signal is becomes a number in the recipe.

    A label of `also` is handed on as it is, and any other is none. Each draw belongs to what was said and to
    `seed`, so the same completion is misjudged in the same way in every run and every arm.
    """

    kind: Literal["noise"] = "noise"
    name: str = "noise"
    """The judge's name in tables."""
    of: str
    """Whose labels."""
    positive: str
    """The label that the rates speak of."""
    negative: str
    """What it is mistaken for."""
    tpr: float = Field(default=1.0, ge=0, le=1)
    """Share of the positives that are still called positive."""
    fpr: float = Field(default=0.0, ge=0, le=1)
    """Share of the negatives that are called positive. A flip rate f is tpr = 1 - f, fpr = f."""
    also: list[str] = []
    """Other labels of that judge, such as `invalid`, which are handed on."""
    scores: dict[str, float] = {}
    """A score per label; a label without one has no score."""
    seed: int = 0
    """Decides which are mistaken."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.positive == self.negative:
            raise ValueError(f"positive: {self.positive!r} is what `negative` says too; the labels must differ")
        require_known(self.scores, self.labels)
        return self

    @property
    def labels(self) -> Sequence[str]:
        return tuple(dict.fromkeys([self.negative, self.positive, *self.also]))

    @property
    def gives_scores(self) -> bool:
        return bool(self.scores)

    @property
    def reads(self) -> Sequence[str]:
        return (self.of,)

    @property
    def reads_labels(self) -> Sequence[tuple[str, str]]:
        return tuple((self.of, label) for label in self.labels)

    def derive(self, words: "pl.DataFrame") -> "pl.DataFrame":
        import polars as pl

        said = pl.col(f"{self.of}.label")
        draw = pl.Series([uniform("noise", self.seed, key) for key in words["reply_key"]], dtype=pl.Float64)
        rate = pl.when(said == self.positive).then(self.tpr).when(said == self.negative).then(self.fpr)
        noisy = pl.when(draw < rate).then(pl.lit(self.positive)).otherwise(pl.lit(self.negative))
        label = pl.when(rate.is_not_null()).then(noisy).when(said.is_in(self.also)).then(said)
        score = label.replace_strict(self.scores, default=None, return_dtype=pl.Float64) if self.scores else None
        raw = pl.format(f"{self.of}: {{}}", said)
        other = pl.when(label.is_null()).then(pl.format(f"{self.of} says {{}}, which has no rate", said))
        return _words(words, label=label, score=score, raw=raw, missing=pl.coalesce(_missing(self.reads, "label"), other))


def _words(
    words: "pl.DataFrame",
    *,
    raw: "pl.Expr",
    missing: "pl.Expr",
    label: "pl.Expr | None" = None,
    score: "pl.Expr | None" = None,
) -> "pl.DataFrame":
    """The columns of `tables.JUDGEMENTS`; where `missing` gives a reason there is neither label nor score."""
    import polars as pl

    nothing = pl.when(missing.is_null())
    return words.select(
        "candidate_id",
        nothing.then(pl.lit(None, dtype=pl.String) if label is None else label).alias("label"),
        nothing.then(pl.lit(None, dtype=pl.Float64) if score is None else score).alias("score"),
        missing.alias("unscored_reason"),
        raw.fill_null("").alias("raw"),
    )


def _missing(names: Sequence[str], column: str) -> "pl.Expr":
    """Why the first judge that has no such word has none; null where all have."""
    import polars as pl

    reasons = [
        pl.when(pl.col(f"{name}.{column}").is_null()).then(
            pl.format(f"{name}: {{}}", pl.col(f"{name}.unscored_reason").fill_null(f"gave no {column}"))
        )
        for name in names
    ]
    return pl.coalesce(reasons)
