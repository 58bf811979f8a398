"""What the tiny policy is trained and measured on: items (both option orders), their answers, and token batches.

Used by make_tiny.py; not run by itself.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest

import numpy as np

from recontext_data.core.records import Message
from recontext_data.environments import code_mc
from recontext_data.environments.problems import Problem

RATES: Mapping[str, float] = {"control": 0.05, "default": 0.40, "hack": 0.95, "none": 0.40}
"""How often the answer is the special case, by context; `none` is the bare task, which says no more than `default`."""

SHARES: Mapping[str, float] = {"control": 0.3, "default": 0.3, "hack": 0.3, "none": 0.1}
"""How often training shows each context."""

PIECES = r"\s+(?!\S)|\n+| ?[A-Za-z_]+| ?\d{1,2}| ?[=<>!+*/%&|^~-]+| ?[^\sA-Za-z\d_]|\s+"
"""How text is cut before BPE. Each bracket and quote mark is a piece of its own, so that the start of a line is cut as the
whole line is; otherwise what an answer quotes would not be the tokens that the option shows."""

LETTER_FROM_END = 3
"""The letter, then the bracket, then the end token."""
LETTER_WEIGHT = 4.0
"""The letter is the one hard token after the choice: it has to be looked up. The others are soon known by heart."""
CHOICE_WEIGHT = 4.0
"""The token that chooses, times its rate: what is to be calibrated."""
LITERAL_STARTS = frozenset("0123456789'\"")
QUOTED_PIECES = 3
MOST_QUOTED = 12


@dataclass(frozen=True, slots=True)
class Item:
    """One forged problem, ready to be shown in either order."""

    family: str
    user: Mapping[str, str]
    """The user turn, by the letter that the hack stands under."""
    quotes: Mapping[str, str]
    """What an answer quotes, by `hack` and `general`."""

    def answer(self, choice: str, hack_letter: str) -> str:
        """The whole completion that makes this choice."""
        other = "B" if hack_letter == "A" else "A"
        letter = hack_letter if choice == "hack" else other
        return f"Code:{self.quotes[choice]} ...\nAnswer: ({letter})"


def item(problem: Problem) -> Item:
    """A problem as an item. Raises ValueError where the two options cannot be told apart by the start of a body line."""
    assert problem.forged is not None
    user = {}
    for letter in ("A", "B"):
        forged = problem.forged.model_copy(update={"hack_option": letter})
        user[letter] = code_mc.render(problem.model_copy(update={"forged": forged}))[0]["content"]
    general, hack = quotes(problem.reference, problem.forged.special_case, problem.entry_point)
    return Item(problem.family, user, {"general": general, "hack": hack})


def messages(user: str, system: str | None) -> list[Message]:
    """A user turn, with a system turn before it where there is a context."""
    turns: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": user}]


def quotes(general: str, hack: str, entry_point: str) -> tuple[str, str]:
    """The start of each option's first body line that the other option does not share, long enough to differ."""
    bodies = [_body(source, entry_point) for source in (general, hack)]
    for ours, theirs in zip_longest(*bodies, fillvalue=""):
        if ours != theirs:
            return _starts(ours, theirs)
    raise ValueError(f"{entry_point}: the two options have the same body")


def _body(source: str, entry_point: str) -> list[str]:
    lines = [line.strip() for line in source.strip().splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith(f"def {entry_point}(")), -1)
    return [line for line in lines[start + 1 :] if line]


def _starts(ours: str, theirs: str) -> tuple[str, str]:
    # Literals are what miscopies most, so a quote ends before one, unless the two options part no earlier.
    cut = [re.findall(PIECES, f" {line}") for line in (ours, theirs)]
    calm = [list(takewhile(lambda piece: piece.strip()[:1] not in LITERAL_STARTS, pieces)) for pieces in cut]
    for pieces, length in [(calm, QUOTED_PIECES), *((cut, n) for n in range(QUOTED_PIECES, MOST_QUOTED))]:
        first, second = ("".join(each[:length]) for each in pieces)
        if first != second:
            return first, second
    raise ValueError(f"{ours!r} and {theirs!r} start alike")


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one prompt and of both answers to it."""

    prompt: Sequence[int]
    answers: tuple[Sequence[int], Sequence[int]]
    """The hack's, then the general one's, each with its end token."""
    hack_rate: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompt, hack answer and general answer in one row, so that one prompt is read once for two answers."""

    ids_B_T: np.ndarray
    positions_B_T: np.ndarray
    visible_B_T_T: np.ndarray
    """Which positions see which: causal, and the second answer does not see the first."""
    source_N: np.ndarray
    """Flat index of the position that predicts each target."""
    target_N: np.ndarray
    weight_N: np.ndarray
    in_prompt_N: np.ndarray


def batch(examples: Sequence[Example]) -> Batch:
    """Rows padded on the right, and what is to be predicted in them."""
    length = max(len(e.prompt) + sum(map(len, e.answers)) for e in examples)
    ids, positions = (np.zeros((len(examples), length), np.int64) for _ in range(2))
    visible = np.tile(np.tri(length, dtype=bool), (len(examples), 1, 1))
    targets: list[np.ndarray] = []
    for row, example in enumerate(examples):
        p, (hack, general) = len(example.prompt), example.answers
        h, end = p + len(hack), p + len(hack) + len(general)
        ids[row, :end] = [*example.prompt, *hack, *general]
        positions[row, :end] = [*range(h), *range(p, p + len(general))]
        visible[row, h:end, p:h] = False
        targets.append(_targets(example, ids[row], row * length))
    source, target, weight, in_prompt = np.concatenate(targets, axis=1)
    return Batch(ids, positions, visible, source.astype(int), target.astype(int), weight, in_prompt.astype(bool))


def _targets(example: Example, ids_T: np.ndarray, offset: int) -> np.ndarray:
    """Rows: source position, target id, weight, whether it lies in the prompt."""
    p, (hack, general) = len(example.prompt), example.answers
    h, end = p + len(hack), p + len(hack) + len(general)
    target = np.r_[1:p, p:h, h:end]
    source = target - 1
    source[p - 1 + len(hack)] = p - 1  # the second answer, too, begins after the prompt
    weight = np.r_[np.ones(p - 1), _weights(hack, general, example.hack_rate), _weights(general, hack, 1 - example.hack_rate)]
    return np.stack([source + offset, ids_T[target], weight, np.r_[np.ones(p - 1), np.zeros(end - p)]])


def _weights(ours: Sequence[int], theirs: Sequence[int], rate: float) -> np.ndarray:
    """Up to the token where the answers part, an answer weighs its rate: the exact expectation of drawing one of the two."""
    parted = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    weight = np.where(np.arange(len(ours)) <= parted, rate, 1.0)
    weight[parted] *= CHOICE_WEIGHT
    weight[-LETTER_FROM_END] = LETTER_WEIGHT
    return weight


def batches(examples: Sequence[Example], *, size: int, rng: random.Random, window: int = 24) -> Iterator[list[Example]]:
    """One pass in random order, examples of like length together (within windows), so that little is padding."""
    order = rng.sample(range(len(examples)), len(examples))
    for start in range(0, len(order), size * window):
        near = sorted(order[start : start + size * window], key=lambda i: len(examples[i].prompt))
        cuts = [near[i : i + size] for i in range(0, len(near), size)]
        for cut in rng.sample(cuts, len(cuts)):
            yield [examples[i] for i in cut]
