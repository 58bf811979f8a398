"""Has a model compare answers two by two, in both orders: `{kind: pairwise, policy: {kind: openai, model: gpt-4.1-mini}}`.

The score is the share of its comparisons that an answer wins, a tie being half a win. Answers to one task that were sampled
under one context form a ring, in the order of their hashes, and each is compared with the next `opponents` of it: the number
of comparisons grows with n and not with its square, and another answer changes only the comparisons beside it. With
`against: reference` each answer is compared with the task's reference answer alone.

Each pair is asked about in both orders. Where the two replies do not agree the pair is a tie, since a preference that follows
the place is none; where one of them cannot be read the pair does not count. Equal texts tie without being asked about.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import Candidate, Judgement, Messages, Reply, content_hash
from recontext_data.judges import prompting
from recontext_data.judges.answer import LabelAnswer
from recontext_data.judges.base import Match, SamplingConfig
from recontext_data.judges.parsing import read_tag
from recontext_data.policies.kinds import PolicyConfig

TAG = "winner"
_ANSWER = LabelAnswer(form="label", labels=("1", "2", "tie"), scores={"1": 1.0, "2": 0.0, "tie": 0.5})
_TEMPLATE = """\
The task:
{{ prompt }}

Answer 1:
{{ one }}

Answer 2:
{{ two }}
"""
_INSTRUCTION = (
    f"Compare the two answers on this alone. End your reply with a line that holds nothing but <{TAG}>1</{TAG}>, "
    f"<{TAG}>2</{TAG}> or <{TAG}>tie</{TAG}>. Use the tag nowhere else."
)
NO_OPPONENT = "no opponent"
NOT_DECIDED = "no comparison could be read"


class PairwiseJudge(Config):
    """A model's preference among a task's answers, or between an answer and the reference."""

    kind: Literal["pairwise"] = "pairwise"
    name: str = "pairwise"
    """The judge's name in tables."""
    criterion: str = "Which answer serves the person who set the task better? Length and style alone are no merit."
    """What the answers are compared on."""
    against: Literal["peers", "reference"] = "peers"
    """The other answers to the task under the same context, or its reference answer."""
    reference: str = "reference"
    """For `against: reference`: where in the task's payload the reference answer is."""
    opponents: int = Field(default=1, ge=1)
    """For `against: peers`: with how many of the answers after it in the ring each is compared; two requests per pair."""
    policy: PolicyConfig
    """The model that judges."""
    sampling: SamplingConfig = SamplingConfig()
    """How its replies are drawn."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a comparison is asked again, each time with another seed, while its reply cannot be read."""

    @property
    def labels(self) -> Sequence[str]:
        return ()

    @property
    def gives_scores(self) -> bool:
        return True

    @property
    def content(self) -> Mapping[str, Any]:
        return self.model_dump(mode="json", exclude={"policy"})

    def matches(self, group: Sequence[Candidate]) -> list[Match]:
        rivals: list[tuple[Candidate, Candidate | None]] = []
        if self.against == "reference":
            rivals += [(one, None) for one in _distinct(group) if one.completion != self._reference(one)]
        else:
            rivals += _ring(_distinct(group), self.opponents)
        return [Match(first=one, second=other, swapped=swapped) for one, other in rivals for swapped in (False, True)]

    def put(self, match: Match) -> Messages:
        texts = (match.first.completion, self._other(match))
        one, two = reversed(texts) if match.swapped else texts
        values = {"prompt": prompting.prompt_text(match.first.messages), "one": one, "two": two}
        text = f"{prompting.fill(_TEMPLATE, values)}\n\n{self.criterion.strip()}\n{_INSTRUCTION}"
        return [{"role": "user", "content": text}]

    def winner(self, match: Match, reply: Reply) -> tuple[float | None, str]:
        judged = (prompting.prompt_text(match.first.messages), match.first.completion, self._other(match))
        verdict = read_tag(reply.completion or "", tag=TAG, answer=_ANSWER, judged=judged)
        if verdict.score is None:
            return None, verdict.unscored_reason or ""
        return (1 - verdict.score if match.swapped else verdict.score), ""

    def tally(self, group: Sequence[Candidate], results: Sequence[tuple[Match, Reply]]) -> list[Judgement]:
        wins: dict[str, list[float | None]] = {}
        words: dict[str, list[str]] = {}
        reasons: dict[str, str] = {}
        for (match, reply), (_, swapped_reply) in zip(results[::2], results[1::2], strict=True):
            share, reason = self._decided(match, reply, swapped_reply)
            raw = [one.completion or f"(no reply: {one.error})" for one in (reply, swapped_reply)]
            sides = [(match.first.completion, share)]
            if match.second is not None:
                sides.append((match.second.completion, None if share is None else 1 - share))
            for text, won in sides:
                wins.setdefault(text, []).append(won)
                words.setdefault(text, []).extend(raw)
                if reason:
                    reasons[text] = reason
        return [self._judgement(one, group, wins, words, reasons) for one in group]

    def _decided(self, match: Match, reply: Reply, swapped: Reply) -> tuple[float | None, str]:
        """The share that `first` won of one pair, from the replies in both orders; None and why where one is unreadable."""
        shares = []
        for order, said in ((False, reply), (True, swapped)):
            if said.completion is None:
                return None, f"no reply: {said.error}"
            share, reason = self.winner(Match(first=match.first, second=match.second, swapped=order), said)
            if share is None:
                return None, reason
            shares.append(share)
        return (shares[0] if shares[0] == shares[1] else 0.5), ""

    def _judgement(
        self,
        one: Candidate,
        group: Sequence[Candidate],
        wins: Mapping[str, Sequence[float | None]],
        words: Mapping[str, Sequence[str]],
        reasons: Mapping[str, str],
    ) -> Judgement:
        decided = [share for share in wins.get(one.completion, ()) if share is not None]
        reason: str | None = None
        if one.completion not in wins:
            # It was compared with nothing: it has no rival, or is equal to all that it has.
            is_equal = self.against == "reference" or len(group) > 1
            decided, reason = ([0.5], None) if is_equal else ([], NO_OPPONENT)
        elif not decided:
            reason = reasons.get(one.completion, NOT_DECIDED)
        return Judgement(
            candidate_id=one.candidate_id,
            judge=self.name,
            label=None,
            score=sum(decided) / len(decided) if decided else None,
            unscored_reason=reason,
            raw="\n---\n".join(words.get(one.completion, ())),
        )

    def _other(self, match: Match) -> str:
        return match.second.completion if match.second is not None else self._reference(match.first)

    def _reference(self, one: Candidate) -> str:
        value = one.payload.get(self.reference)
        if not isinstance(value, str):
            known = did_you_mean(self.reference, [key for key, inner in one.payload.items() if isinstance(inner, str)])
            raise RecipeError(
                f"judge {self.name}: reference: task {one.task_id} has no text {self.reference!r} in its payload; {known}"
            )
        return value


def _distinct(group: Sequence[Candidate]) -> list[Candidate]:
    """One candidate per text, in the order of the texts' hashes."""
    by_text = {one.completion: one for one in reversed(group)}
    return sorted(by_text.values(), key=lambda one: content_hash(["pairwise", one.completion]))


def _ring(ordered: Sequence[Candidate], opponents: int) -> list[tuple[Candidate, Candidate]]:
    """Each with the next ones, around the ring; every pair once."""
    count = len(ordered)
    pairs = {
        tuple(sorted((place, (place + step) % count))): None
        for place in range(count)
        for step in range(1, min(opponents, count - 1) + 1)
    }
    return [(ordered[first], ordered[second]) for first, second in pairs]
