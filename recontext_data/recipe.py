"""The recipe: one file that declares one experiment, and how it is read.

A recipe is YAML. `extends:` names another recipe to start from; `key=value` on the command line changes any key, with
dots for depth and YAML for values: `sampler.n=6`, `arms='[default -> hack]'`, `policy.kind=openai policy.model=gpt-4.1`.
This module only unites the configs of the rooms below it: adding a policy, a judge or an environment is one file there
and one line here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recontext_data.arms import Arm, folder_name
from recontext_data.config import Config
from recontext_data.contexts import NONE, Context
from recontext_data.environments.base import Environment
from recontext_data.errors import did_you_mean
from recontext_data.evaluation.config import Evaluation
from recontext_data.judges.base import AnyJudge
from recontext_data.kinds import Kinds
from recontext_data.policies.kinds import PolicyConfig
from recontext_data.prices import Price
from recontext_data.training.config import Training

ENVIRONMENTS = Kinds(
    {
        "code_mc": "recontext_data.environments.code_mc:CodeMC",
    }
)
EnvironmentConfig = Annotated[Environment, ENVIRONMENTS]
JUDGES = Kinds(
    {
        "choice": "recontext_data.judges.choice:ChoiceJudge",
        "rubric": "recontext_data.judges.rubric:RubricJudge",
        "pairwise": "recontext_data.judges.pairwise:PairwiseJudge",
    }
)
JudgeConfig = Annotated[AnyJudge, JUDGES]


class Sampler(Config):
    """How completions are drawn."""

    n: int = Field(default=4, ge=1)
    """Completions per task and generation context; raising it keeps those that are there."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: sample from the most likely tokens that together have this probability."""
    max_tokens: int = Field(default=256, ge=1)
    """Completion tokens at most."""
    seed: int = 0
    """Every completion's own seed derives from this, its prompt and its rank."""


class Select(Config):
    """Which candidates are trained on."""

    keep: Literal["all", "random", "best"] = "all"
    """all; or `per_task` of each task's candidates, at random or by the judge's score."""
    per_task: int = Field(default=1, ge=1)
    """Candidates kept of each task by `random` and `best`."""
    judge: str | None = None
    """Whose score `best` goes by; may be left out when there is one judge."""
    drop_truncated: bool = False
    """Drop completions that were cut at max_tokens; training on them teaches the policy to stop in mid-sentence."""
    seed: int = 0
    """For `random`, and for ties of `best`."""


class Measure(Config):
    """Contexts under which the policy is sampled and judged for the report alone; nothing of it is trained on."""

    contexts: list[str] = []
    """Names of contexts. One that is an arm's generation context is measured by the arm's pool anyway."""
    n: int = Field(default=1, ge=1)
    """Completions per task."""


class Export(Config):
    """How the dataset is split."""

    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of tasks, not of rows, that go to the validation split, the same ones in every arm."""
    seed: int = 0
    """Decides which tasks."""


class Limits(Config):
    """What ends a build."""

    max_failure_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of a pool's requests that may fail for good."""
    max_invalid_rate: float = Field(default=1.0, ge=0, le=1)
    """Share of a pool's candidates that may be invalid or unscored."""
    budget_usd: float | None = Field(default=None, gt=0)
    """What the run's replies may cost, those found in the store included; sampling stops there, and goes on when it is
    raised. Requests that are in flight by then are waited for and may exceed it."""


class Recipe(Config):
    """One experiment, whole."""

    description: str = ""
    """One line for the list of recipes."""
    environment: EnvironmentConfig
    """Where tasks come from."""
    contexts: dict[str, Context]
    """Named changes to a task's prompt. `none` is the bare task and needs no entry."""
    policy: PolicyConfig
    """The model that is sampled."""
    sampler: Sampler = Sampler()
    judges: list[JudgeConfig] = Field(min_length=1)
    """What reads the completions."""
    validate_judges: bool = False
    """Before anything is sampled, have judges that ask a model judge the gold answers of their rubrics; stop if one errs."""
    select: Select = Select()
    arms: list[Arm] = Field(min_length=1)
    """Pairs `generation -> training`; each becomes a dataset."""
    measure: Measure = Measure()
    export: Export = Export()
    limits: Limits = Limits()
    prices: dict[str, Price] = {}
    """USD per million tokens by model, over data/prices.yaml: `prices.my-model='{input: 0.5, output: 1.5}'`."""
    training: Training = Training()
    """How models are trained on the arms; it changes no dataset."""
    evaluation: Evaluation = Evaluation()
    """How models are measured."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for name in self.contexts:
            if name == NONE or not name.isidentifier():
                raise ValueError(f"contexts: {name!r} cannot be a context's name; use letters, digits and '_', and not `none`")
        for index, arm in enumerate(self.arms):
            for side in (arm.generation, arm.training):
                self._known_context(side, f"arms.{index} ({arm.pair})")
        for name in self.measure.contexts:
            self._known_context(name, "measure.contexts")
        self._unique_arms()
        self._selection_has_scores()
        return self

    def _known_context(self, name: str, where: str) -> None:
        if name != NONE and name not in self.contexts:
            raise ValueError(f"{where}: no context is named {name!r}; {did_you_mean(name, [*self.contexts, NONE])}")

    def _unique_arms(self) -> None:
        names = [folder_name(arm, self.contexts) for arm in self.arms]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"arms: {twice!r} is there twice; remove one or give it a `name`")
        judges = [judge.name for judge in self.judges]
        if len(set(judges)) < len(judges):
            raise ValueError(f"judges: the names {judges} must differ; set `name` on one")
        for index, judge in enumerate(self.judges):
            unknown = [name for name in getattr(judge, "reads", ()) if name not in judges[:index]]
            if unknown:
                known = did_you_mean(unknown[0], judges[:index])
                raise ValueError(f"judges.{index} ({judge.name}): reads {unknown[0]!r}, which is no judge before it; {known}")

    def _selection_has_scores(self) -> None:
        names = [judge.name for judge in self.judges]
        if self.select.judge is not None and self.select.judge not in names:
            raise ValueError(f"select.judge: no judge is named {self.select.judge!r}; {did_you_mean(self.select.judge, names)}")
        if self.select.keep == "best":
            if self.select.judge is None and len(names) > 1:
                raise ValueError(f"select.judge: say whose score `best` goes by; judges: {', '.join(names)}")
            if not self.selecting_judge.gives_scores:
                raise ValueError(
                    f"select.keep: `best` needs scores and judge {self.selecting_judge.name!r} gives none; "
                    "set its `scores`, such as {general: 0.667, hack: 1.0}"
                )

    @property
    def selecting_judge(self) -> AnyJudge:
        """The judge whose score goes into the rows."""
        return next(judge for judge in self.judges if self.select.judge in (None, judge.name))

    @property
    def outcome_judge(self) -> AnyJudge:
        """The judge whose label says whether an answer misbehaved: the first that can give the environment's word for it."""
        word = self.environment.misbehaviour
        return next((judge for judge in self.judges if word in judge.labels), self.selecting_judge)
