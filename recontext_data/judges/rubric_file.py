"""A rubric: one YAML file that says what a model judge is asked and how its reply is read. See docs/judges.md.

    user: |
      Task:
      {{ prompt }}

      Answer:
      {{ completion }}

      How good is the answer?
    answer: {form: number, min: 0, max: 10}

The shipped ones lie in judges/ and are found by name; any other is found by its path.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import Candidate, Message, Messages, Role
from recontext_data.core.resources import shipped
from recontext_data.core.validation import one_line
from recontext_data.core.yaml_text import half_character, read_yaml
from recontext_data.judges import prompting
from recontext_data.judges.answer import Answer, Verdict
from recontext_data.judges.base import SamplingConfig
from recontext_data.judges.parsing import REASON, read_json, read_tag
from recontext_data.policies.kinds import PolicyConfig

SUFFIXES = (".yaml", ".yml")


class RubricTurn(Config):
    """One turn of a task."""

    role: Role
    """system, user or assistant."""
    content: str
    """What is said."""


class GoldAnswer(Config):
    """An answer that is written down in a rubric file."""

    messages: list[RubricTurn] = Field(min_length=1)
    """The task's turns; a text is short for one user turn."""
    completion: str
    """The answer."""
    reasoning: str | None = None
    """The reasoning beside it."""
    payload: dict[str, Any] = {}
    """What else the template uses of the task, such as {metric: ...}."""

    @field_validator("messages", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return [{"role": "user", "content": value}] if isinstance(value, str) else value

    def candidate(self, name: str) -> Candidate:
        """As a judge sees it."""
        return Candidate(
            candidate_id=name,
            task_id=name,
            messages=[{"role": turn.role, "content": turn.content} for turn in self.messages],
            completion=self.completion,
            payload=self.payload,
            reasoning=self.reasoning,
        )


class RubricExample(GoldAnswer):
    """An answer with the reply that it should get: shown to the judge before the row."""

    reply: str
    """The judge's reply, in the form that is asked for."""


class Expect(Config):
    """What a judge must say of an answer: a label, or a score between bounds."""

    label: str | None = None
    """The label."""
    min: float | None = Field(default=None, strict=False)
    """The least score, inclusive."""
    max: float | None = Field(default=None, strict=False)
    """The greatest score, inclusive."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.label is None and self.min is None and self.max is None:
            raise ValueError("says nothing; give a label, or min, max or both")
        return self

    def is_met(self, *, label: str | None, score: float | None) -> bool:
        """Whether a judgement is what was expected; an unscored one never is."""
        if self.label is not None and label != self.label:
            return False
        if self.min is None and self.max is None:
            return True
        return score is not None and (self.min is None or score >= self.min) and (self.max is None or score <= self.max)

    @property
    def in_words(self) -> str:
        """`label good`, `score >= 7`."""
        bounds = [f"score {sign} {bound:g}" for sign, bound in ((">=", self.min), ("<=", self.max)) if bound is not None]
        return " and ".join([*([f"label {self.label}"] if self.label is not None else []), *bounds])


class Gold(GoldAnswer):
    """An answer whose verdict is known: the judge proves itself on it."""

    expect: Expect
    """What the judge must say of it."""


class Rubric(Config):
    """What a model judge is asked, and how its reply is read."""

    description: str = ""
    """One line: what it measures."""
    system: str = ""
    """The system turn; plain text."""
    user: str
    """The user turn: a jinja2 template over prompt, messages, completion, reasoning and payload."""
    answer: Answer
    """The form of the verdict: number, label or pass_fail."""
    read: Literal["tag", "json"] = "tag"
    """Where the verdict stands: in a tag on the last line, or in a JSON object that is the whole reply."""
    tag: str = Field(default="score", pattern=r"^[a-z][a-z_]*$")
    """The tag's name, or the JSON object's key."""
    examples: list[RubricExample] = []
    """Answered before the row, as turns of the conversation; one with the row's own answer is left out."""
    gold: list[Gold] = []
    """Answers whose verdict is known, good and bad, for `validate_judges=true`."""
    policy: PolicyConfig | None = None
    """The model that judges, where the recipe's judge names none."""
    sampling: SamplingConfig = SamplingConfig()
    """How replies are drawn, where the recipe's judge does not say."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            prompting.check(self.user, required=("completion",))
        except prompting.TemplateProblem as error:
            raise ValueError(f"user: {error}") from None
        for place, shown in (*_placed("examples", self.examples), *_placed("gold", self.gold)):
            try:
                self.prompt(shown.candidate(place))
            except prompting.TemplateProblem as error:
                raise ValueError(f"{place}: {error}") from None
        for place, example in _placed("examples", self.examples):
            reason = self.verdict(example.reply).unscored_reason
            if reason is not None:
                raise ValueError(f"{place}.reply: is not in the form that is asked for: {reason}; {self.instruction}")
        for place, gold in _placed("gold", self.gold):
            if gold.expect.label is not None and gold.expect.label not in self.answer.labels:
                known = did_you_mean(gold.expect.label, self.answer.labels)
                raise ValueError(f"{place}.expect.label: {gold.expect.label!r} is none of its labels; {known}")
        return self

    @property
    def instruction(self) -> str:
        """How the judge is told to reply; written by us, so that it agrees with what is read."""
        if self.read == "json":
            example = f'{{"{REASON}": "...", "{self.tag}": ...}}'
            quotes = "" if self.answer.form == "number" else ", in quotes"
            return f"Reply with one JSON object and nothing else: {example}, where {self.tag} is {self.answer.wording}{quotes}."
        return (
            f"End your reply with a line that holds nothing but <{self.tag}>VERDICT</{self.tag}>, where VERDICT is "
            f"{self.answer.wording}. Use the tag nowhere else."
        )

    def prompt(self, candidate: Candidate) -> Messages:
        """The conversation about one candidate.

        Raises:
            TemplateProblem: the candidate lacks something that the template uses.
        """
        system: list[Message] = [{"role": "system", "content": self.system.strip()}] if self.system.strip() else []
        own = " ".join(candidate.completion.split())
        turns: list[Message] = []
        for example in self.examples:
            if " ".join(example.completion.split()) != own:
                turns.append(self._asked(example.candidate("example")))
                turns.append({"role": "assistant", "content": example.reply.strip()})
        return [*system, *turns, self._asked(candidate)]

    def _asked(self, candidate: Candidate) -> Message:
        text = prompting.fill(self.user, prompting.material(candidate))
        return {"role": "user", "content": f"{text}\n\n{self.instruction}"}

    def verdict(self, reply: str, candidate: Candidate | None = None) -> Verdict:
        """What a reply says about the candidate."""
        if self.read == "json":
            return read_json(reply, key=self.tag, answer=self.answer)
        judged = prompting.texts_of(prompting.material(candidate)) if candidate is not None else ()
        return read_tag(reply, tag=self.tag, answer=self.answer, judged=judged)

    @property
    def content(self) -> Mapping[str, Any]:
        """All that its replies and their reading depend on, as plain data."""
        return self.model_dump(mode="json", exclude={"description", "gold", "policy", "sampling"})


def _placed(name: str, items: list[Any]) -> list[tuple[str, Any]]:
    return [(f"{name}.{index}", item) for index, item in enumerate(items)]


def shipped_rubrics() -> dict[str, Path]:
    """The rubrics that come with the package, by name."""
    return {path.stem: path for path in sorted(shipped("judges").glob("*.yaml"))}


def find_rubric(name: str) -> Path:
    """The file of a rubric given by name or by path.

    Raises:
        RecipeError: there is none.
    """
    if "/" in name or "\\" in name or name.endswith(SUFFIXES):
        path = Path(name).expanduser()
        if not path.is_file():
            raise RecipeError(f"rubric: {name}: there is no such file; give a path to a YAML file or a name")
        return path
    known = shipped_rubrics()
    if name not in known:
        raise RecipeError(f"rubric: no rubric is named {name!r}; {did_you_mean(name, known)}")
    return known[name]


def load_rubric(name: str, overrides: Mapping[str, Any] | None = None) -> Rubric:
    """The rubric of that name or path; `overrides` change its keys.

    Raises:
        RecipeError: one line with the file, the key and the fix.
    """
    path = find_rubric(name)
    tree = _read(path)
    if overrides:
        tree = _merged(tree, overrides)
    half = half_character(tree)
    if half is not None:
        raise RecipeError(f"{path.name}: {half}: holds half a character (a lone surrogate); remove it")
    try:
        return Rubric.model_validate(tree)
    except ValidationError as error:
        found = one_line(error, tree, whole="rubric", keys_beside=lambda where: _keys_beside(where, tree))
        raise RecipeError(f"{path.name}: {found}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(f"{path.name}: line {line} is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path.name}: a rubric is a mapping of keys to values; found {type(tree).__name__}")
    return tree


def _merged(base: Any, change: Any) -> Any:
    """Mappings merge key by key, anything else replaces; an answer of another form replaces too."""
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)) or change.get("form", base.get("form")) != base.get(
        "form"
    ):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def _keys_beside(where: str, tree: Mapping[str, Any]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    from recontext_data.judges.answer import LabelAnswer, NumberAnswer, PassFailAnswer

    first, *deeper = where.split(".")[:-1] or [""]
    answers: dict[str, type[Config]] = {"number": NumberAnswer, "label": LabelAnswer, "pass_fail": PassFailAnswer}
    if first == "answer":
        return list(answers[tree["answer"]["form"]].model_fields)
    homes: dict[str, type[Config]] = {"": Rubric, "examples": RubricExample, "gold": Gold, "sampling": SamplingConfig}
    home = Expect if "expect" in deeper else homes.get(first)
    return list(home.model_fields) if home else []
