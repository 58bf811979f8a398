"""A judge's trial: `validate_judges=true` has every judge that asks a model judge the gold answers of its rubric first.

It costs a few replies, which are kept like all others, and stops the build before anything else is paid for.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from recontext_data.core.errors import ProofFailed
from recontext_data.core.records import Judgement
from recontext_data.judges.base import Asker
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_models import asks

SHOWN = 160
"""Characters of an answer that a failed trial quotes."""


class Warned(Protocol):
    """Who is told of a judge that cannot be tried."""

    def warn(self, text: str) -> None:
        """Something to look at."""
        ...


def check_rubrics(judges: Sequence[Any], counsel: JudgeClient, screen: Warned) -> dict[str, dict[str, int]]:
    """Judge -> {"answers": how many gold answers it was tried on}; all were judged rightly.

    Raises:
        ProofFailed: a judge fails its own test.
        BuildStopped: its questions failed, or the budget is spent; what came is kept.
    """
    tried = {}
    for one in judges:
        if not asks(one):
            continue
        gold = list(getattr(one, "gold", ()))
        if not gold:
            screen.warn(f"validate_judges: judge {one.name} has no gold answers, so nothing is proven about it")
            continue
        assert isinstance(one, Asker)
        _require_right(one.name, gold, _words(one, gold, counsel))
        tried[one.name] = {"answers": len(gold)}
    return tried


def _words(one: Asker, gold: Sequence[Any], counsel: JudgeClient) -> list[Judgement]:
    candidates = [answer.candidate(f"gold.{index}") for index, answer in enumerate(gold)]
    batches: Iterator[Any] = iter([candidates])
    return [word for batch in counsel.judge(one, batches, total=len(candidates)) for word in batch]


def _require_right(name: str, gold: Sequence[Any], words: Sequence[Judgement]) -> None:
    wrong = [
        (index, answer, word)
        for index, (answer, word) in enumerate(zip(gold, words, strict=True))
        if not answer.expect.is_met(label=word.label, score=word.score)
    ]
    if wrong:
        index, answer, word = wrong[0]
        raise ProofFailed(
            f"validate_judges: judge {name} fails its own test on {len(wrong)} of {len(gold)} gold answers; gold.{index} "
            f"({' '.join(answer.completion.split())[:SHOWN]!r}) must get {answer.expect.in_words} and got {_said(word)}; "
            "change the rubric or the model that judges"
        )


def _said(word: Judgement) -> str:
    if word.unscored_reason is not None:
        return f"no verdict ({word.unscored_reason})"
    parts = [f"label {word.label}"] if word.label is not None else []
    return " and ".join([*parts, *([f"score {word.score:g}"] if word.score is not None else [])])
