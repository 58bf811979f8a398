"""The fake policy: scripted replies behind the interface of a real model, for tests, demos and dry work on recipes.

In a recipe, a list of texts, or a rate per context and label:

    policy: {kind: fake, replies: ["Answer: (A)", "Answer: (B)"]}
    policy: {kind: fake, rates: {default: {hack: 0.4, general: 0.55, invalid: 0.05}}}

or, for a judge's model, what is said where a pattern is found in the last turn, the first that fits ("" fits always):

    policy: {kind: fake, patterns: {"you are right": "<score>9</score>", "": "<score>1</score>"}}

In Python, any function: `FakePolicy(lambda messages, k, seed, tag: "yes", name="always yes")`; what was asked is then in
`.requests`. A reply depends on its own request and nothing else, so batches, order and restarts do not change it.
"""

import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config, optional_field
from recontext_data.core.errors import InputError, PolicyError, RecipeError, did_you_mean
from recontext_data.core.records import Messages, Reply, Request, uniform
from recontext_data.environments.base import fill

Script = Callable[[Messages, int, int, str], str | Reply]
"""What is said to (messages, k, seed, tag). The key of a `Reply` that it returns is set by the policy."""

Answers = Callable[[Messages], Mapping[str, str]]
"""What `{name}` in a text stands for under this prompt: {"hack": "A", "general": "B"}."""


class FakeConfig(Config):
    """A scripted policy: exactly one of `replies`, `rates` and `patterns` says what it answers."""

    kind: Literal["fake"] = "fake"
    replies: tuple[str, ...] = Field(default=(), strict=False)  # a list will do
    """Texts by rank: the completion of rank k is `replies[k % len(replies)]`, whatever the prompt."""
    rates: dict[str, dict[str, float]] = Field(default={})
    """Context name -> label -> probability; each completion's label is drawn with its own seed."""
    texts: dict[str, str] = {}
    """Label -> what is said for it, over the environment's own answers; it may have labels of its own. What the task supplies
    stands in braces: in code_mc `{hack}` and `{general}`, the letters of those options; in code_tests `{reference}` and
    `{special_case}`, the code."""
    patterns: dict[str, str] = optional_field({})
    """Regular expression of Python's -> what is said where it is found in the prompt's last turn: the first that fits. For the
    model of a rubric judge, whose last turn shows the answer; upper and lower case are the same."""
    fail_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of completions that fail, drawn with their seeds: what failed once fails again when asked again."""
    delay_seconds: float = Field(default=0.0, ge=0.0)
    """Seconds waited before the replies of each request, one request after the other."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [bool(self.replies), bool(self.rates), bool(self.patterns)].count(True) != 1:
            raise ValueError("policy: give exactly one of replies, rates and patterns for kind fake")
        for pattern in self.patterns:
            _check_pattern(pattern)
        for context, rates in self.rates.items():
            _check_rates(context, rates)
        return self

    def build(self, answers: Answers | None = None, *, texts: Mapping[str, str] | None = None) -> "FakePolicy":
        """The policy. `answers` reads from a prompt what its task supplies; texts with `{hack}` or the like need it. `texts`
        are the environment's answers by label, for labels that `self.texts` lacks.

        Raises:
            RecipeError: a label has no text, or a text in use has a placeholder and there is no `answers`.
        """
        if self.replies:
            return self._policy(_by_rank(self.replies), {"replies": list(self.replies)})
        if self.patterns:  # as a list, since their order says which is looked for first
            return self._policy(_by_pattern(self.patterns), {"patterns": [list(pair) for pair in self.patterns.items()]})
        known = {**(texts or {}), **self.texts}
        for context, rates in self.rates.items():
            for label in rates:
                if label not in known:
                    raise RecipeError(
                        f"policy.rates.{context}: no text for the label {label!r} in policy.texts; {did_you_mean(label, known)}"
                    )
        said = {label: known[label] for rates in self.rates.values() for label in rates}
        for label, text in said.items():
            if answers is None and (holes := _placeholders(text, known)):
                raise RecipeError(
                    f"policy.texts.{label} uses {holes[0]}, which this environment does not supply: write the text without it"
                )
        return self._policy(_by_rate(self.rates, said, answers), {"rates": self.rates, "texts": said})

    def _policy(self, script: Script, settings: Mapping[str, Any]) -> "FakePolicy":
        name = next(iter(settings))
        return FakePolicy(script, name=name, settings=settings, fail_rate=self.fail_rate, delay_seconds=self.delay_seconds)


class FakePolicy:
    """A policy that says what a function tells it to, and keeps every request in `.requests`."""

    def __init__(
        self,
        script: Script,
        *,
        name: str,
        settings: Mapping[str, Any] | None = None,
        fail_rate: float = 0.0,
        delay_seconds: float = 0.0,
    ) -> None:
        # A function has no content that could be hashed, so its author names it; another name is another model.
        if not name:
            raise InputError("FakePolicy(name=''): a script needs a name, since replies are stored under it")
        self.requests: list[Request] = []
        self._script = script
        self._name = name
        self._settings = dict(settings or {})
        self._fail_rate = fail_rate
        self._delay_seconds = delay_seconds

    continues_prefill = True
    """What a script is asked after a prefilled turn is the script's business."""

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        return f"fake, scripted by {self._name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The script. Failures and delays are no part of it: they change when a reply comes, not what it says."""
        return {"kind": "fake", "script": self._name, **self._settings}

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies in the order of the requests, each of which is pulled when the one before it is answered.

        Raises:
            PolicyError: the rates have no entry for a context, or a text asks for what the task does not have.
        """
        import asyncio

        for request in requests:
            await asyncio.sleep(self._delay_seconds)  # also at 0: the event loop must get a turn
            self.requests.append(request)
            for reply in self._answer(request):
                yield reply

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """Words: a stand-in that is never 0 for a real prompt."""
        return sum(len(message["content"].split()) for message in messages)

    async def close(self) -> None:
        """Nothing is held."""

    def _answer(self, request: Request) -> Iterator[Reply]:
        prompt_tokens = self.count_tokens(request.messages)
        for k, seed, key in zip(request.ks, request.seeds, request.keys, strict=True):
            reply = self._one(request, k, seed)
            # What a script says about tokens stands; else the prompt is counted once per request, as it is billed.
            billed = prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
            yield replace(reply, key=key, prompt_tokens=billed)
            prompt_tokens = None

    def _one(self, request: Request, k: int, seed: int) -> Reply:
        if self._fail_rate and uniform("fake-failure", seed) < self._fail_rate:
            return Reply(key="", completion=None, error="scripted failure", model="fake")
        said = self._script(request.messages, k, seed, request.tag)
        if isinstance(said, Reply):
            return said
        return Reply(key="", completion=said, finish_reason="stop", model="fake", completion_tokens=len(said.split()))


def _by_rank(texts: Sequence[str]) -> Script:
    def script(messages: Messages, k: int, seed: int, tag: str) -> str:
        return texts[k % len(texts)]

    return script


def _by_pattern(patterns: Mapping[str, str]) -> Script:
    compiled = [(re.compile(pattern, re.IGNORECASE), text) for pattern, text in patterns.items()]

    def script(messages: Messages, k: int, seed: int, tag: str) -> str:
        last = messages[-1]["content"]
        for pattern, text in compiled:
            if pattern.search(last):
                return text
        raise PolicyError(
            f'policy.patterns: none is found in {" ".join(last.split())[:60]!r}; add "", which fits always, as the last'
        )

    return script


def _by_rate(rates: Mapping[str, Mapping[str, float]], texts: Mapping[str, str], answers: Answers | None) -> Script:
    def script(messages: Messages, k: int, seed: int, tag: str) -> str:
        if tag not in rates:
            raise PolicyError(f"policy.rates has no context {tag!r}: {did_you_mean(tag, rates)}")
        text = texts[_draw(rates[tag], seed)]
        return text if answers is None else _filled(text, answers(messages), texts)

    return script


def _draw(rates: Mapping[str, float], seed: int) -> str:
    # By label name, so that the order of lines in a recipe does not matter.
    draw, total = uniform("fake-label", seed), 0.0
    possible = [label for label in sorted(rates) if rates[label] > 0]
    for label in possible:
        total += rates[label]
        if draw < total:
            return label
    return possible[-1]  # the rates' sum may fall short of 1 by rounding


def _filled(text: str, values: Mapping[str, str], labels: Mapping[str, str]) -> str:
    if holes := _placeholders(text, set(labels) - set(values)):
        raise PolicyError(
            f"policy.texts uses {holes[0]}, which this task does not supply: {did_you_mean(holes[0][1:-1], values)}"
        )
    return fill(text, values)


def _placeholders(text: str, labels: Mapping[str, str] | set[str]) -> list[str]:
    return [hole for hole in (f"{{{label}}}" for label in sorted(labels)) if hole in text]


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"policy.patterns: {pattern!r} is not a valid regular expression: {error}") from None


def _check_rates(context: str, rates: Mapping[str, float]) -> None:
    where = f"policy.rates.{context}"
    for label, rate in rates.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{where}.{label}: {rate} is not a probability between 0 and 1")
    if not math.isclose(total := sum(rates.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f"{where}: the probabilities sum to {total:g}, and must sum to 1")
