"""The recipe: one file that declares one experiment, and how it is read.

A recipe is YAML. `extends:` names another recipe to start from; `key=value` on the command line changes any key, with
dots for depth and YAML for values: `sampler.n=6`, `arms='[default -> hack]'`, `policy.kind=openai policy.model=gpt-4.1`.
This module only unites the configs of the rooms below it: adding a policy, a judge or an environment is one file there
and one line here.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from recontext_data.config.evaluation import Evaluation
from recontext_data.config.rounds import Rounds
from recontext_data.config.selection import Select
from recontext_data.config.training import Training
from recontext_data.contexts.arms import Arm, Baselines, Grid, folder_name, source_of, stance_problem, with_baselines
from recontext_data.contexts.context import NONE, Context
from recontext_data.contexts.placement import Rendering, RenderOptions
from recontext_data.core.completions import Marks
from recontext_data.core.config import Config, optional_field
from recontext_data.core.errors import did_you_mean
from recontext_data.core.prices import Price
from recontext_data.core.registry import Kinds
from recontext_data.environments.base import Environment
from recontext_data.gates.rules import Gates
from recontext_data.judges.base import AnyJudge
from recontext_data.policies.kinds import PolicyConfig


def _pairs(value: Any) -> Any:
    """A grid as its pairs."""
    return Grid.model_validate(value).arms() if isinstance(value, dict) else value


ENVIRONMENTS = Kinds(
    {
        "code_mc": "recontext_data.environments.code_mc:CodeMC",
        "code_tests": "recontext_data.environments.code_tests:CodeTests",
        "metric_gaming": "recontext_data.environments.metric_gaming:MetricGaming",
        "sycophancy": "recontext_data.environments.sycophancy:Sycophancy",
        "deception": "recontext_data.environments.deception:Deception",
        "eval_tampering": "recontext_data.environments.eval_tampering:EvalTampering",
    }
)
EnvironmentConfig = Annotated[Environment, ENVIRONMENTS]
JUDGES = Kinds(
    {
        "choice": "recontext_data.judges.choice:ChoiceJudge",
        "fact": "recontext_data.judges.fact:FactJudge",
        "pattern": "recontext_data.judges.pattern:PatternJudge",
        "length": "recontext_data.judges.length:LengthJudge",
        "human": "recontext_data.judges.human:HumanJudge",
        "weighted": "recontext_data.judges.derived:WeightedJudge",
        "threshold": "recontext_data.judges.derived:ThresholdJudge",
        "panel": "recontext_data.judges.derived:PanelJudge",
        "noise": "recontext_data.judges.derived:NoiseJudge",
        "trace": "recontext_data.judges.trace:TraceJudge",
        "tests": "recontext_data.judges.tests:ExecutedTests",
        "classifier": "recontext_data.judges.classifier:ClassifierJudge",
        "tampering": "recontext_data.judges.tampering:TamperingJudge",
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


class Rewriter(Config):
    """Who writes reasoning anew, from the bare task and the answer alone: it never sees the old one or a context."""

    policy: PolicyConfig
    """The model; its replies are kept in the same store, so none is paid for twice."""
    instruction: str = (
        "Below are a task and a finished answer to it. Write the reasoning that leads from the task to this answer: a few "
        "plain sentences in the first person, as if written before the answer. Do not repeat the answer and add no code."
    )
    """Its system turn; the user turn holds the task and the answer."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    max_tokens: int = Field(default=1024, ge=1)
    """Tokens of a rewritten reasoning at most; one that is cut there is not used."""


class Completion(Config):
    """What becomes of the reasoning in the completions that are trained on. Judges read them as they were sampled."""

    reasoning: Literal["keep", "drop", "rewrite"] = "keep"
    """keep; drop (the answer alone is trained on); or have another model rewrite it from the task and the answer."""
    marks: Marks = "code"
    """Where it stands: `code`, around the last complete code block; `think`, in <think> tags; `beside`, in a field of its own,
    which rows never have."""
    rewriter: Rewriter | None = None
    """Who rewrites it."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.reasoning == "rewrite") != (self.rewriter is not None):
            raise ValueError("completion.rewriter: goes with completion.reasoning=rewrite; set both or neither")
        if self.rewriter is not None and self.rewriter.policy.kind == "openai_batch":
            raise ValueError("completion.rewriter.policy.kind: openai_batch cannot rewrite; use openai")
        if self.reasoning == "rewrite" and self.marks == "beside":
            raise ValueError("completion.marks: `beside` is in no row, so nothing can be rewritten in place; use think or code")
        return self


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
    completion: Completion = optional_field(Completion())
    """What becomes of the reasoning in what is trained on."""
    arms: Annotated[list[Arm], BeforeValidator(_pairs), Field(min_length=1)]
    """Pairs `generation -> training`, or {generation: [...], training: [...]} for all pairs; each becomes a dataset."""
    baselines: Baselines = optional_field("none")
    """Arms that are added for comparison: `standard` adds what is trained as it was sampled; `full` also, for each
    recontextualized arm, its training context on both sides, the reversed pair, distillation, and every placebo."""
    measure: Measure = Measure()
    rendering: Rendering = optional_field(Rendering())
    gates: Gates = optional_field(Gates())
    export: Export = Export()
    limits: Limits = Limits()
    prices: dict[str, Price] = {}
    """USD per million tokens by model, over data/prices.yaml: `prices.my-model='{input: 0.5, output: 1.5}'`."""
    training: Training = Training()
    """How models are trained on the arms; it changes no dataset."""
    rounds: Rounds = optional_field(Rounds())
    """How often building and training are repeated, each round sampled from the model of the round before."""
    evaluation: Evaluation = Evaluation()
    """How models are measured."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for name in self.contexts:
            if name == NONE or not name.isidentifier():
                raise ValueError(f"contexts: {name!r} cannot be a context's name; use letters, digits and '_', and not `none`")
        for index, arm in enumerate(self.arms):
            for side in (arm.generation, *arm.trained_under):
                self._known_context(side, f"arms.{index} ({arm.pair})")
            if (problem := stance_problem(arm, self.contexts)) is not None:
                raise ValueError(f"arms.{index} ({arm.pair}): {problem}")
        for name in self.measure.contexts:
            self._known_context(name, "measure.contexts")
        if self.baselines == "full" and not any(context.stance == "placebo" for context in self.contexts.values()):
            raise ValueError("baselines: full needs a context of stance placebo; add one, or say standard")
        object.__setattr__(self, "arms", with_baselines(self.arms, self.contexts, self.baselines))  # frozen once it is made
        self._unique_arms()
        self._parts_are_known()
        self._selection_has_scores()
        return self

    @property
    def how(self) -> RenderOptions:
        """What of rendering prompts is this recipe's."""
        return RenderOptions(variant=getattr(self.environment, "variant", None), rendering=self.rendering)

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
            self._reads_what_is_there(judge, f"judges.{index} ({judge.name})", self.judges[:index])

    def _parts_are_known(self) -> None:
        """`where` names judges and labels that there are; files that are told apart by their names have different names."""
        files: dict[str, str] = {}
        for index, arm in enumerate(self.arms):
            for judge, labels in arm.where.items():
                self._known_labels(f"arms.{index} ({arm.pair}): where", judge, labels)
            for data in [*([arm.data] if arm.data is not None else []), *(mix.data for mix in arm.mix)]:
                if files.setdefault(source_of(data), data) != data:
                    both = f"{data} and {files[source_of(data)]}"
                    raise ValueError(f"arms.{index}: {both} would both be {source_of(data)!r}; rename one of them")

    def _reads_what_is_there(self, judge: AnyJudge, where: str, before: list[AnyJudge]) -> None:
        """A judge that goes by others finds them before it, with the scores and labels that it needs."""
        known = {other.name: other for other in before}
        for name in getattr(judge, "reads", ()):
            if name not in known:
                raise ValueError(
                    f"{where}: depends on judge {name!r}, which must be listed earlier; {did_you_mean(name, known)}"
                )
        for name in getattr(judge, "reads_scores", ()):
            if not known[name].gives_scores:
                raise ValueError(f"{where}: needs the scores of {name!r}, which gives none; set `scores` on it")
        for name, label in getattr(judge, "reads_labels", ()):
            if label not in known[name].labels:
                raise ValueError(f"{where}: {name!r} never says {label!r}; {did_you_mean(label, known[name].labels)}")

    def _selection_has_scores(self) -> None:
        names = [judge.name for judge in self.judges]
        if self.select.judge is not None and self.select.judge not in names:
            raise ValueError(f"select.judge: no judge is named {self.select.judge!r}; {did_you_mean(self.select.judge, names)}")
        if self.select.needs_scores:
            key, word = ("keep", "`best`") if self.select.keep == "best" else ("min_score", "a threshold")
            if self.select.judge is None and len(names) > 1:
                raise ValueError(f"select.judge: say whose score {word} goes by; judges: {', '.join(names)}")
            if not self.selecting_judge.gives_scores:
                raise ValueError(
                    f"select.{key}: {word} needs scores and judge {self.selecting_judge.name!r} gives none; "
                    "set its `scores`, such as {general: 0.667, hack: 1.0}"
                )
        for key in ("require", "veto", "drop"):
            asked: dict[str, list[str]] = getattr(self.select, key)
            for name, labels in asked.items():
                self._known_labels(f"select.{key}", name, labels)

    def _known_labels(self, where: str, name: str, labels: list[str]) -> None:
        judge = next((judge for judge in self.judges if judge.name == name), None)
        if judge is None:
            raise ValueError(f"{where}: no judge is named {name!r}; {did_you_mean(name, [one.name for one in self.judges])}")
        if not labels:
            raise ValueError(f"{where}.{name}: names no label; known: {', '.join(judge.labels) or 'none'}")
        unknown = next((label for label in labels if label not in judge.labels), None)
        if unknown is not None:
            raise ValueError(f"{where}.{name}: it never says {unknown!r}; {did_you_mean(unknown, judge.labels)}")

    @property
    def selecting_judge(self) -> AnyJudge:
        """The judge whose score goes into the rows."""
        return next(judge for judge in self.judges if self.select.judge in (None, judge.name))

    @property
    def outcome_judge(self) -> AnyJudge:
        """The judge whose label says whether an answer misbehaved: the first that can give the environment's word for it."""
        word = self.environment.misbehaviour
        return next((judge for judge in self.judges if word in judge.labels), self.selecting_judge)
