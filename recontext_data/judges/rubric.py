"""Has a model judge completions by a rubric: `{kind: rubric, rubric: quality, policy: {kind: openai, model: gpt-4.1-mini}}`.

The rubric (judges/quality.yaml, or a file of one's own) says what is asked and how the reply is read: docs/judges.md. The
judge sees the task and the answer, never the context that it was sampled under, nor the arm.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Candidate, Judgement, Messages, Reply
from recontext_data.judges import expectation
from recontext_data.judges.answer import NumberAnswer
from recontext_data.judges.base import SamplingConfig
from recontext_data.judges.prompting import TemplateProblem
from recontext_data.judges.rubric_file import Gold, Rubric, load_rubric
from recontext_data.policies.kinds import PolicyConfig


class ExpectedValue(Config):
    """The score is the mean over the values that the judge weighed, by their log-probabilities."""

    min_coverage: float = Field(default=0.80, gt=0, le=1)
    """Least probability that the values found must have together; below it the row is unscored."""


class RubricJudge(Config):
    """A model's word on a completion, by a rubric."""

    kind: Literal["rubric"] = "rubric"
    rubric: str
    """A shipped rubric's name, or the path of a file."""
    name: str = Field(min_length=1)
    """The judge's name in tables; the rubric's name unless set."""
    policy: PolicyConfig
    """The model that judges; the rubric's own where it names one."""
    sampling: SamplingConfig = SamplingConfig()
    """How its replies are drawn; the rubric's own unless set."""
    overrides: dict[str, Any] = {}
    """Changes to the rubric's keys: {answer: {max: 5}}."""
    expected_value: ExpectedValue | None = None
    """For numbers in a tag: the mean over the judge's alternatives instead of the number drawn; needs policy.logprobs."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often it is asked again, each time with another seed, while its reply cannot be read."""

    @model_validator(mode="before")
    @classmethod
    def _from_rubric(cls, tree: Any) -> Any:
        """What the recipe leaves out is the rubric's; from here on the config is whole."""
        return filled(tree)

    @model_validator(mode="after")
    def _expectable(self) -> Self:
        if self.expected_value is None:
            return self
        answer = self.sheet.answer
        if not isinstance(answer, NumberAnswer) or answer.step != 1 or self.sheet.read != "tag":
            raise ValueError("expected_value: works for whole numbers in a tag; this rubric asks for something else")
        if not getattr(self.policy, "logprobs", None):
            raise ValueError("expected_value: needs log-probabilities; set policy.logprobs=20 on a server that gives them")
        return self

    @cached_property
    def sheet(self) -> Rubric:
        """The rubric, read once."""
        return load_rubric(self.rubric, self.overrides)

    @property
    def labels(self) -> Sequence[str]:
        return self.sheet.answer.labels

    @property
    def gives_scores(self) -> bool:
        return self.sheet.answer.gives_scores

    @property
    def content(self) -> Mapping[str, Any]:
        own = self.model_dump(mode="json", include={"kind", "name", "sampling", "expected_value", "retries"})
        return {**own, "rubric": self.sheet.content}

    @property
    def gold(self) -> Sequence[Gold]:
        """Answers that it must judge rightly, for its trial."""
        return self.sheet.gold

    def ask(self, candidate: Candidate) -> Messages:
        try:
            return self.sheet.prompt(candidate)
        except TemplateProblem as error:
            raise RecipeError(f"judge {self.name}: the rubric's user template, for task {candidate.task_id}: {error}") from None

    def read(self, candidate: Candidate, reply: Reply) -> Judgement:
        text = reply.completion or ""
        verdict = self.sheet.verdict(text, candidate)
        if self.expected_value is not None and isinstance(self.sheet.answer, NumberAnswer):
            floor = self.expected_value.min_coverage
            verdict = expectation.expected(text, verdict, details=reply.details, answer=self.sheet.answer, floor=floor)
        return Judgement(
            candidate_id=candidate.candidate_id,
            judge=self.name,
            label=verdict.label,
            score=verdict.score,
            unscored_reason=verdict.unscored_reason,
            raw=text,
        )


def filled(tree: Any) -> Any:
    """A judge's plain config with the name, policy and sampling of its rubric where it has none of its own."""
    if not isinstance(tree, dict) or not isinstance(tree.get("rubric"), str):
        return tree
    overrides = tree.get("overrides", {})
    sheet = load_rubric(tree["rubric"], overrides if isinstance(overrides, dict) else None)
    own: dict[str, Any] = {"name": Path(tree["rubric"]).stem}
    if sheet.policy is not None:
        own["policy"] = sheet.policy
    drawn = tree.get("sampling")
    if drawn is None or isinstance(drawn, dict):
        own["sampling"] = {**sheet.sampling.model_dump(), **(drawn or {})}
    return {**own, **{key: value for key, value in tree.items() if key != "sampling" or key not in own}}
