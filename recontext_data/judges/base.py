"""What a judge is: a small frozen config that says of each candidate a label, a score, both, or why neither.

There are four shapes, and the judge stage knows what to do with each:

- a `Reader` reads candidates and needs nothing else (or runs their code in the sandbox);
- an `Asker` turns a candidate into a prompt for a model and reads the reply; the stage buys the replies, once;
- a `Comparer` has a model compare candidates of one task and pool, two by two; its replies are bought in the same way;
- a `Deriver` makes its word from the words of judges before it: a weighted sum, a threshold, injected noise.

All are blind: a `Candidate` carries neither the generation context nor the arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import Field

from recontext_data.core.config import Config
from recontext_data.core.errors import did_you_mean
from recontext_data.core.records import Candidate, Judgement, Messages, Reply, SamplingParams

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.policies.base import AnyPolicy


class SamplingConfig(Config):
    """How the replies of a model that judges are drawn."""

    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy. What is asked again after an unreadable reply is drawn at no less than 0.7: greedily it would come again."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: sample from the most likely tokens that together have this probability."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens of a reply at most."""

    @property
    def plain(self) -> SamplingParams:
        """As a request has it."""
        return SamplingParams(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)


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


class Paid(Protocol):
    """A judge that asks a model, in whatever shape."""

    @property
    def name(self) -> str:
        """The judge's name in tables."""
        ...

    @property
    def policy(self) -> "AnyPolicy":
        """The model that judges."""
        ...

    @property
    def sampling(self) -> SamplingConfig:
        """How its replies are drawn."""
        ...

    @property
    def retries(self) -> int:
        """How often it is asked again, each time with another seed, while its reply cannot be read."""
        ...

    @property
    def content(self) -> Mapping[str, Any]:
        """All that its words depend on but its model's identity: in the fingerprint of a run in the config's place."""
        ...


@runtime_checkable
class Asker(Paid, Protocol):
    """Has a model read completions, one at a time."""

    def ask(self, candidate: Candidate) -> Messages:
        """The prompt about one candidate.

        Raises:
            RecipeError: the task lacks something that the prompt needs; found on every task before anything is paid for.
        """
        ...

    def read(self, candidate: Candidate, reply: Reply) -> Judgement:
        """The judgement in a reply; unscored, with the reply as its raw words, when it is not in the declared form."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Two texts in the order in which they are shown. `second` is None for the task's reference answer."""

    first: Candidate
    second: Candidate | None
    swapped: bool
    """Whether `second` is shown first."""


@runtime_checkable
class Comparer(Paid, Protocol):
    """Has a model compare completions of one task, sampled under one context, two by two."""

    def matches(self, group: Sequence[Candidate]) -> list[Match]:
        """What is compared: each pair in both orders, one after the other."""
        ...

    def put(self, match: Match) -> Messages:
        """The prompt about one match; raises as `Asker.ask`."""
        ...

    def winner(self, match: Match, reply: Reply) -> tuple[float | None, str]:
        """(1 where `first` won, 0 where it lost, 0.5 for a tie, None for an unreadable reply; why it is unreadable)."""
        ...

    def tally(self, group: Sequence[Candidate], results: Sequence[tuple[Match, Reply]]) -> list[Judgement]:
        """One judgement per candidate of the group, in order, from the replies to all its matches."""
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


def labelled(
    candidates: Sequence[Candidate], word: Callable[[Candidate], tuple[str, str]], *, judge: str, scores: Mapping[Any, float]
) -> list[Judgement]:
    """One judgement per candidate, in order, of a judge that has a label for every one.

    `word` gives the label and what it was read from; a label's score is the one in `scores`, or none.
    """
    return [
        Judgement(
            candidate_id=candidate.candidate_id,
            judge=judge,
            label=label,
            score=scores.get(label),
            unscored_reason=None,
            raw=raw,
        )
        for candidate in candidates
        for label, raw in [word(candidate)]
    ]


def require_known(scores: Mapping[str, object], labels: Sequence[str], *, key: str = "scores") -> None:
    """Raises ValueError for something said of a label that the judge never gives, under the recipe's key `key`."""
    unknown = next((label for label in scores if label not in labels), None)
    if unknown is not None:
        raise ValueError(f"{key}: it never says {unknown!r}; {did_you_mean(unknown, labels)}")
