"""What a model thinks of texts that it is given: their probabilities, and how far two prompts drive it apart. numpy.

Shapes: P prompts, N completions of each, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recontext_data.policies.base import TeacherForced

Floats = NDArray[np.float64]

ROWS = 64
"""Completions that are read at once."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt in tokens and completions of it in tokens."""

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]


def completion_tokens(policy: TeacherForced, messages: Sequence[Mapping[str, Any]], completion: str) -> list[int] | None:
    """The completion's tokens as they stand after the prompt's; None where the two merge and it has none of its own."""
    prompt, prefill = policy.encode(messages), ""
    if messages and messages[-1]["role"] == "assistant":
        messages, prefill = messages[:-1], str(messages[-1]["content"])
    whole = policy.encode([*messages, {"role": "assistant", "content": prefill + completion}])
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else None


def log_probabilities(policy: TeacherForced, items: Sequence[Prompted], *, temperature: float) -> list[Floats]:
    """For each item the natural logarithm of each completion's probability, its end included: [N] each.

    The probability is that of drawing exactly these tokens and then an end token, at this temperature.
    """
    found: list[Floats] = [np.zeros(len(item.completions)) for item in items]
    ends = sorted(policy.ends)
    for batch in _batches(items):
        most = max(len(items[i].completions) for i in batch)
        # A list of fewer completions is filled with empty ones, which nobody reads.
        texts = [[*items[i].completions, *[()] * (most - len(items[i].completions))] for i in batch]
        for step, logits_P_N_V in enumerate(policy.forced([items[i].prompt for i in batch], texts)):
            log_p = _log_softmax(logits_P_N_V / temperature)
            for row, i in enumerate(batch):
                for k, ids in enumerate(items[i].completions):
                    if step < len(ids):
                        found[i][k] += log_p[row, k, ids[step]]
                    elif step == len(ids):
                        found[i][k] += np.logaddexp.reduce(log_p[row, k, ends])
    return found


def divergences(
    policy: TeacherForced,
    first: Sequence[Sequence[int]],
    second: Sequence[Sequence[int]],
    *,
    completions: Sequence[Sequence[int]],
) -> list[float]:
    """For each completion the mean over its tokens of KL(next token after `first` || after `second`), in nats.

    The whole distributions are compared at every place of the given text, its end included, at temperature 1: not only the
    token that stands there. So for texts drawn under the first prompt it is the KL of the two sequence distributions, by the
    chain rule and without the noise of the drawn tokens' own ratios, divided by the length.
    """
    found = np.zeros(len(completions))
    for batch in _batches([Prompted(prompt, [ids]) for prompt, ids in zip(first, completions, strict=True)]):
        texts = [[completions[i]] for i in batch]
        sides = [policy.forced([prompts[i] for i in batch], texts) for prompts in (first, second)]
        for step, (one, other) in enumerate(zip(*sides, strict=True)):
            log_p, log_q = _log_softmax(one[:, 0]), _log_softmax(other[:, 0])
            kl_P = (np.exp(log_p) * (log_p - log_q)).sum(-1)
            for row, i in enumerate(batch):
                if step <= len(completions[i]):
                    found[i] += kl_P[row] / (len(completions[i]) + 1)
    return [float(value) for value in found]


def _batches(items: Sequence[Prompted]) -> Iterator[list[int]]:
    """Places of items, prompts of like length together, at most `ROWS` completions in one."""
    batch: list[int] = []
    most = 0
    for i in sorted(range(len(items)), key=lambda i: (len(items[i].prompt), i)):
        wider = max(most, len(items[i].completions))
        if batch and wider * (len(batch) + 1) > ROWS:
            yield batch
            batch, wider = [], len(items[i].completions)
        batch.append(i)
        most = wider
    if batch:
        yield batch


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
