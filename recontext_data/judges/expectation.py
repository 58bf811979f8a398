"""The expected score over the alternatives that a judge weighed, from its reply's token log-probabilities. Pure.

At the place of the value, the server gave some alternatives with their log-probabilities. Those that are values of the range
are weighed by their probabilities: sum(p * value) / sum(p). `sum(p)` is the coverage; below the floor nothing is said, since
the rest of the probability lies on what is no value, or beyond the alternatives that the server lists.

This holds where each value is one token, as 0 to 10 are to most tokenizers of served models. Where "10" is written as "1",
"0", the token "1" may begin either. So a value that begins another counts only if the longer one is there as a token.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recontext_data.judges.answer import NumberAnswer, Verdict

NO_LOGPROBS = "no log-probabilities came"
MISALIGNED = "the log-probabilities do not spell the reply"
SEVERAL_TOKENS = "the value is more than one token"
LOW_COVERAGE = "coverage below the floor"


def expected(reply: str, verdict: Verdict, *, details: Mapping[str, Any], answer: NumberAnswer, floor: float) -> Verdict:
    """The verdict with the expected score in place of the drawn one; unscored, with the reason, where it cannot be had.

    `details` are the reply's; `verdict` is what was read from it, with the place of the value.
    """
    tokens = details.get("logprobs")
    if verdict.unscored_reason is not None or verdict.span is None:
        return verdict
    if not isinstance(tokens, list) or not tokens:
        return Verdict(unscored_reason=NO_LOGPROBS)
    if "".join(_text(token) for token in tokens) != reply:
        return Verdict(unscored_reason=MISALIGNED)
    place = _token_at(tokens, verdict.span)
    if place is None:
        return Verdict(unscored_reason=SEVERAL_TOKENS)
    weights = _weights(tokens[place], answer)
    coverage = math.fsum(weights.values())
    if coverage < floor:
        return Verdict(unscored_reason=LOW_COVERAGE)
    return Verdict(score=math.fsum(p * float(value) for value, p in weights.items()) / coverage, span=verdict.span)


def _text(token: Any) -> str:
    return str(token.get("token", "")) if isinstance(token, dict) else ""


def _token_at(tokens: Sequence[Any], span: tuple[int, int]) -> int | None:
    """Which token is the value, up to blanks around it; None where none is."""
    start = 0
    for place, token in enumerate(tokens):
        text = _text(token)
        begin = start + len(text) - len(text.lstrip())
        if (begin, begin + len(text.strip())) == span:
            return place
        start += len(text)
    return None


def _weights(token: Mapping[str, Any], answer: NumberAnswer) -> dict[str, float]:
    """Probability by value, of the values that stand for themselves."""
    seen: dict[str, float] = {}  # the drawn token may be among its alternatives: each text counts once
    for option in (*(token.get("top_logprobs") or ()), token):
        logprob = option.get("logprob") if isinstance(option, dict) else None
        if isinstance(logprob, int | float) and logprob <= 0:  # NaN is not
            seen[_text(option)] = math.exp(logprob)
    values, weights = set(answer.values), dict[str, float]()
    for text, p in seen.items():
        if text.strip() in values:
            weights[text.strip()] = weights.get(text.strip(), 0.0) + p
    longer = {value: [other for other in values if other != value and other.startswith(value)] for value in weights}
    return {value: p for value, p in weights.items() if not longer[value] or any(other in weights for other in longer[value])}
