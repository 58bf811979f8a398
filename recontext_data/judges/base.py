"""What a judge is: a small frozen config that says of each candidate a label, a score, both, or why neither.

There are three shapes, and the judge stage knows what to do with each:

- a `Reader` reads candidates and needs nothing else (or runs their code in the sandbox);
- an `Asker` turns a candidate into a prompt for a model and reads the reply; the stage buys the replies, once;
- a `Deriver` makes its word from the words of judges before it: a weighted sum, a threshold, injected noise.

All are blind: a `Candidate` carries neither the generation context nor the arm.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from recontext_data.errors import did_you_mean
from recontext_data.records import Candidate, Judgement, Messages, Reply, Sampling

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.policies.base import AnyPolicy


class AnyJudge(Protocol):
    """What every judge's config says of itself."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        ...

    @property
    def name(self) -> str:
        """The judge's name in tables: unique within a recipe."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Every label it can give, in the order of reports; empty for a judge that gives scores alone."""
        ...

    @property
    def gives_scores(self) -> bool:
        """Whether `select.keep: best` can go by it."""
        ...


@runtime_checkable
class Reader(Protocol):
    """Reads completions."""

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """One judgement per candidate, in order. A candidate that cannot be read is unscored, with the reason."""
        ...


@runtime_checkable
class Asker(Protocol):
    """Has a model read completions."""

    @property
    def policy(self) -> "AnyPolicy":
        """The model that judges."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How its replies are drawn."""
        ...

    def ask(self, candidate: Candidate) -> Messages:
        """The prompt about one candidate."""
        ...

    def read(self, candidate: Candidate, reply: Reply) -> Judgement:
        """The judgement in a reply; unscored, with the reply as its raw words, when it is not in the declared form."""
        ...


@runtime_checkable
class Deriver(Protocol):
    """Makes its word from others'."""

    @property
    def reads(self) -> Sequence[str]:
        """Names of the judges that it goes by; each stands before it in the recipe."""
        ...

    def derive(self, words: "pl.DataFrame") -> "pl.DataFrame":
        """One row per candidate, in order: candidate_id, label, score, unscored_reason, raw (see `tables.JUDGEMENTS`).

        `words` has candidate_id, reply_key and, for each judge NAME in `reads`, the columns `NAME.label`, `NAME.score` and
        `NAME.unscored_reason`. `reply_key` identifies what was said and is what seeded draws belong to.
        """
        ...


def require_known(scores: Mapping[str, float], labels: Sequence[str]) -> None:
    """Raises ValueError for a score of a label that the judge never gives."""
    unknown = next((label for label in scores if label not in labels), None)
    if unknown is not None:
        raise ValueError(f"scores: it never says {unknown!r}; {did_you_mean(unknown, labels)}")
