"""Questions that judges ask, the replies as the store has them, and the judgements of replies that failed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recontext_data.core.records import Candidate, Judgement, Messages, Reply
from recontext_data.judges.base import Asker, Comparer, Match


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """One prompt of a judge's, and whether a reply settles it."""

    messages: Messages
    is_settled: Callable[[Reply], bool]


def question(one: Asker, candidate: Candidate) -> JudgeQuestion:
    """What is asked about a candidate."""
    return JudgeQuestion(one.ask(candidate), lambda reply: one.read(candidate, reply).unscored_reason is None)


def put(one: Comparer, match: Match) -> JudgeQuestion:
    """What is asked about a match."""
    return JudgeQuestion(one.put(match), lambda reply: one.winner(match, reply)[0] is not None)


def heard(one: Asker, candidate: Candidate, reply: Reply) -> Judgement:
    """The judgement in a reply; one that failed is unscored, with the server's words."""
    if reply.completion is not None:
        return one.read(candidate, reply)
    reason = f"no reply: {reply.error}"
    return Judgement(
        candidate_id=candidate.candidate_id, judge=one.name, label=None, score=None, unscored_reason=reason, raw=""
    )


def stored(row: Mapping[str, Any]) -> Reply:
    """A row of the store as the reply that it was."""
    import orjson

    return Reply(
        key=row["key"],
        completion=row["completion"],
        reasoning=row["reasoning"],
        finish_reason=row["finish_reason"],
        model=row["model"] or "",
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        details=orjson.loads(row["details"]) if row["details"] else {},
    )
