"""Gates: what must hold of training rows before they are written. Pure; each returns its violations with row ids.

`leak`: the generation context's text, or a long run of its words, is nowhere in a row whose training context and task do
not carry it. `presence`: the training context's text is in the prompt exactly as often as declared, and nowhere else.
`echo`: a completion speaks of its instructions. What is compared between rows (overlap of splits, duplicates) and what
needs the policy's tokenizer (length, renderer) is in `pipeline/arm_gates.py`, which runs all of them over whole arms.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from recontext_data.contexts.context import Context, render
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.config import Config
from recontext_data.core.folding import blocks, fold, grams, words
from recontext_data.core.records import Messages, Role, Task, filled

Action = Literal["fail", "drop", "report"]
LEAK_WORDS = 8
SQUEEZED = 16
"""Characters from which on a text is also looked for without its blanks, where invisible ones may have taken their place."""

ECHO = (
    r"(?i)\b(?:as|since|because)\s+(?:you|i|we|the\s+(?:system\s+)?(?:prompt|instructions?|message))"
    r"(?:\s+(?:was|were|have|has|had|been|am)|['\u2019]ve)*"
    r"\s+(?:told|asked|instructed|requested|warned|allowed|permitted|encouraged|discouraged|forbade|forbidden)\b"
    r"|\b(?:you|i\s+(?:was|am|have\s+been)|i['\u2019](?:m|ve\s+been)|the\s+(?:system\s+)?(?:prompt|instructions?))"
    r"\s+(?:told|asked|instructed|warned|allowed|permitted|encouraged|allows?|permits?|tells?|asks?|forbids?)"
    r"\s+(?:me\s+)?(?:not\s+)?(?:to|that|from)\b"
    r"|\b(?:my|your|the)\s+(?:system\s+prompt|instructions?)\s+(?:says?|tells?|forbids?|asks?|allows?|permits?|prohibits?)\b"
    r"|\b(?:per|despite|against)\s+(?:my|your|the)\s+(?:system\s+prompt|instructions?)\b"
)
"""A completion that speaks of being instructed; in the syntax that Python's and Rust's regular expressions share."""
_ECHO = re.compile(ECHO)


class Gates(Config):
    """What becomes of rows that fail: `fail` ends the build, `drop` leaves them out with the reason, `report` counts them."""

    leak: Action = "fail"
    """The generation context in a row whose training context and task do not carry it."""
    leak_words: int = Field(default=LEAK_WORDS, ge=4)
    """A run of so many of its words is a leak too."""
    presence: Action = "fail"
    """The training context missing, doubled or misplaced in the prompt."""
    echo: Action = "report"
    """A completion that speaks of its instructions (`as you asked me not to`)."""
    overlap: Action = "drop"
    """A validation or evaluation task with the text of a training task; `drop` leaves it out of validation or evaluation."""
    near_overlap: Action = "report"
    """A validation or evaluation task that shares 13 words in a row with a training task."""
    duplicates: Action = "report"
    """Rows with the prompt and the completion of an earlier row of the arm. A policy that repeats itself makes them, and
    dropping them trains on other frequencies than it has."""
    length: Action = "report"
    """Rows longer than the model's window, where the policy knows it."""
    renderer: Action = "report"
    """Rows whose text, cut into tokens as a whole, does not begin with the tokens of its prompt, where a tokenizer is at hand.
    Training here cuts prompt and completion apart; other trainers may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """What a gate needs of a training row."""

    row_id: str
    task: Task
    """The task itself, without a context."""
    prompt: Messages
    """The messages that will be trained on."""
    completion: str


@dataclass(frozen=True, slots=True)
class Violation:
    """One row that fails a gate, and where."""

    gate: str
    row_id: str
    where: str


@dataclass(frozen=True, slots=True)
class HiddenTexts:
    """What of a generation context a row of one task must not show."""

    texts: list[str]
    """Whole texts, folded."""
    grams: set[str]
    """Runs of words."""


@dataclass(kw_only=True)
class LeakCheck:
    """The leak gate of one arm."""

    generation: Context | None
    training: Context | None
    how: RenderOptions = PLAIN
    n: int = LEAK_WORDS
    _constant: HiddenTexts | None = field(default=None, init=False)

    @property
    def patterns(self) -> list[str] | None:
        """Runs of words of which a leaking text has at least one, or None where every text must be looked at."""
        if self.generation is None:
            return []
        if self.generation.template or self.generation.environment:
            return None
        found = [words(text) for text in self.generation.texts]
        if not all(found):
            return None
        return sorted({" ".join(text) for text in found} | {block for text in found for block in blocks(text, self.n)})

    def secrets(self, task: Task) -> HiddenTexts:
        """What must not show in a row of this task."""
        if self._constant is not None:
            return self._constant
        if self.generation is None:
            return HiddenTexts([], set())
        carried = self._carried(task)
        all_carried = "\n".join(map(fold, carried))
        texts = [*self.generation.texts_for(task), *self._only_generation_shows(task)]
        spared = set[str]().union(*(grams(words(text), self.n) for text in carried))
        runs = set[str]().union(*(grams(words(text), self.n) for text in texts)) - spared
        found = HiddenTexts([secret for text in texts if (secret := fold(text)) not in all_carried], runs)
        varying = (self.generation, self.training)
        if not any(context is not None and (context.varies or context.environment) for context in varying):
            self._constant = found
        return found

    def prompt(self, task: Task, prompt: Messages) -> list[str]:
        """Where a prompt shows what the task does not say itself."""
        secrets, places = self.secrets(task), []
        shown = [(turn["role"], turn["content"]) for turn in prompt]
        own = _own(task, secrets)
        for role in dict.fromkeys(role for role, _ in shown):
            counts = [_count(text, secrets) if role == r else 0 for r, text in shown]
            if sum(counts) > own[role]:
                places.append(next(i for i, count in enumerate(counts) if count))
        if not places and secrets.grams:
            spoken = _spoken(task, self.n)
            runs = (grams(words(text), self.n) & secrets.grams for _, text in shown)
            places = [i for i, found in enumerate(runs) if found - spoken]
        return [f"prompt turn {index} ({prompt[index]['role']})" for index in places]

    def completion(self, task: Task, completion: str) -> bool:
        """Whether a completion shows it. A completion may quote its task."""
        secrets = self.secrets(task)
        if _count(completion, secrets) and not _own(task, secrets).total():
            return True
        runs = grams(words(completion), self.n) & secrets.grams if secrets.grams else set()
        return bool(runs and runs - _spoken(task, self.n))

    def _carried(self, task: Task) -> list[str]:
        """What the training prompt says anyway."""
        if self.training is None:
            return []
        if self.training.environment:
            return [turn["content"] for turn in render(task, self.training, how=self.how)]
        return [self.training.text_for(task)]

    def _only_generation_shows(self, task: Task) -> list[str]:
        """Lines of `n` words or more that the environment shows in generation and the task does not have."""
        if self.generation is None or not self.generation.environment:
            return []
        own = {line for turn in task.messages for line in turn["content"].split("\n")}
        shown = self.how.varied(task, self.generation.environment, name="").messages
        lines = [line for turn in shown for line in turn["content"].split("\n")]
        return [line for line in lines if line not in own and len(words(line)) >= self.n]


def leak(
    rows: Iterable[GateRow],
    *,
    generation: Context | None,
    training: Context | None,
    how: RenderOptions = PLAIN,
    n: int = LEAK_WORDS,
) -> Iterator[Violation]:
    """Rows in which the generation context shows although neither the training context nor the task carries it."""
    check = LeakCheck(generation=generation, training=training, how=how, n=n)
    for row in rows:
        for where in check.prompt(row.task, row.prompt):
            yield Violation("leak", row.row_id, where)
        if check.completion(row.task, row.completion):
            yield Violation("leak", row.row_id, "completion")


def _own(task: Task, secrets: HiddenTexts) -> Counter[Role]:
    """How often the task says the secrets itself, by role."""
    own = Counter[Role]()
    for turn in task.messages if secrets.texts else ():
        own[turn["role"]] += _count(turn["content"], secrets)
    return own


def _count(text: str, secrets: HiddenTexts) -> int:
    """How often a text says one of the secrets."""
    folded = fold(text)
    count = sum(folded.count(secret) for secret in secrets.texts)
    if count or text.isascii():
        return count
    squeezed = folded.replace(" ", "")  # invisible characters may stand where blanks were
    return sum(squeezed.count(secret.replace(" ", "")) for secret in secrets.texts if len(secret) >= SQUEEZED)


def _spoken(task: Task, n: int) -> set[str]:
    return set[str]().union(*(grams(words(turn["content"]), n) for turn in task.messages))


def presence(rows: Iterable[GateRow], *, training: Context | None, how: RenderOptions = PLAIN) -> Iterator[Violation]:
    """Rows in which the training context does not stand exactly as often as its placement says, beyond the task's own."""
    for row in rows:
        where = presence_in(row.task, row.prompt, training=training, how=how)
        if where is not None:
            yield Violation("presence", row.row_id, where)


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """How the training context's text is counted."""

    role: Role | Literal[""]
    """The role of the turns that carry it; empty where it is the environment's affair."""
    replaced: Role | Literal[""]
    """The role of the task's turn that it takes the place of, which is not counted as the task's own."""
    every_user_turn: bool
    """Whether it is declared once for each user turn, and not once."""


def presence_rule(training: Context, how: RenderOptions) -> PresenceRule:
    """The rule of a context that puts in a text."""
    every = training.placement in ("user_prefix", "user_suffix") and training.turn == "every"
    return PresenceRule(_role(training, how), "system" if training.placement == "system_replace" else "", every)


def presence_in(task: Task, prompt: Messages, *, training: Context | None, how: RenderOptions = PLAIN) -> str | None:
    """What is wrong with where the training context stands in a prompt; None where it stands as declared."""
    if training is None or training.placement == "environment":
        return None
    rule, text = presence_rule(training, how), training.text_for(task)
    if training.environment:
        task = how.varied(task, training.environment, name="")
    if training.placement == "field":
        task = filled(task, next(iter(training.field or {})), "")
    own = sum(turn["content"].count(text) for turn in task.messages if turn["role"] != rule.replaced)
    declared = sum(turn["role"] == "user" for turn in task.messages) if rule.every_user_turn else 1
    found = sum(turn["content"].count(text) for turn in prompt)
    in_role = any(text in turn["content"] for turn in prompt if rule.role in ("", turn["role"]))
    if found - own == declared and in_role:
        return None
    return f"found {found - own} times, declared {declared} in the {rule.role} turn"


def _role(training: Context, how: RenderOptions) -> Role | Literal[""]:
    """The role of the turns that carry the text; empty where it is the environment's affair."""
    if training.placement == "assistant_prefill":
        return "assistant"
    if training.placement == "field":
        return ""
    is_merged = how.rendering.no_system_role == "merge_into_user"
    return "system" if training.placement.startswith("system") and not is_merged else "user"


def echo(rows: Iterable[GateRow]) -> Iterator[Violation]:
    """Rows whose completion speaks of being instructed."""
    for row in rows:
        found = _ECHO.search(row.completion)
        if found is not None:
            yield Violation("echo", row.row_id, f"completion: {found[0]!r}")
