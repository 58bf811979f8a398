"""The options of every verb, as its help shows them."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from recontext_data.config.options import FolderName, OptionalRecipeOptions, RecipeOptions, VerbOptions, Workers


class BuildOptions(OptionalRecipeOptions):
    """The options of `build`; it has none of its own."""

    verb: ClassVar[str] = "build"


class PreviewOptions(RecipeOptions):
    """How much of a recipe is shown."""

    verb: ClassVar[str] = "preview"

    examples: int = Field(default=2, ge=1, le=50)
    """Tasks to show, drawn by seeded hash."""


class TrainOptions(RecipeOptions):
    """The models that are trained."""

    verb: ClassVar[str] = "train"

    arms: list[str] = []
    """Some of the recipe's arms, by name or pair: arms='default -> hack'; in [brackets] the recipe's own list, as in build."""
    seeds: list[int] = []
    """0,1,2 or 0-9; in place of training.seeds."""
    workers: Workers = 1
    """Processes that share the models among them; on a CPU one per core."""
    models: FolderName = "models"
    """The folder in the run that the models go to, to keep several trainings of one arm apart."""


class EvaluateOptions(RecipeOptions):
    """The models that are measured."""

    verb: ClassVar[str] = "evaluate"

    models: FolderName = "models"
    """The folder in the run that the trained models are in."""
    seeds: list[int] = []
    """Some of the trained models, by seed: 0,1,2 or 0-9; all unless set."""
    open: bool = False
    """Open the report in a browser where there is a display."""


class IterateOptions(RecipeOptions):
    """The rounds and who works on them."""

    verb: ClassVar[str] = "iterate"

    rounds: int | None = None
    """How many rounds; short for rounds.count."""
    seeds: list[int] = []
    """0,1,2 or 0-9; in place of training.seeds."""
    workers: Workers = 1
    """Processes that share the models of a round among them."""
    models: FolderName = "models"
    """The folder in each run that its models go to."""


class SweepOptions(RecipeOptions):
    """The values that are combined, and how the points are run."""

    verb: ClassVar[str] = "sweep"
    example: ClassVar[str] = "recipe=code_mc over='{sampler.temperature: [0.7, 1.0]}'"

    over: str
    """The values, a mapping of key to list: over='{sampler.temperature: [0.7, 1.0]}'; of several keys, all combinations."""
    seeds: list[int] = []
    """0,1,2 or 0-9; in place of training.seeds, at every point."""
    workers: Workers = 1
    """Processes that share the models of a point."""
    models: FolderName = "models"
    """The folder in each point's run that its models go to."""
    print: bool = False
    """Write the points' recipes and print the commands, instead of running them."""


class CalibrateOptions(OptionalRecipeOptions):
    """The judge, the labels, and what counts as positive."""

    verb: ClassVar[str] = "calibrate"
    example: ClassVar[str] = "judge=NAME labels=FILE"

    judge: str = Field(min_length=1)
    """The name of a judge of the recipe; without a recipe a shipped rubric's name, or the path of one."""
    labels: Path
    """Parquet or JSON Lines: candidate_id or prompt and completion; label or score; reviewer if you like."""
    positive: str | None = None
    """The label that counts as a find; the recipe's misbehaviour, or `pass`, unless set."""
    threshold: float | None = None
    """Scores from here on are positive, the judge's and people's; the middle of the judge's range unless set."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """The confidence of every interval."""


class PublishOptions(VerbOptions):
    """The run and where it goes; each target has more options."""

    verb: ClassVar[str] = "publish"
    example: ClassVar[str] = "to=file run=code_mc"

    to: Literal["hub", "openai", "file"]
    """Where to; required."""
    run: str | None = None
    """The folder of a run, or a recipe's name for its latest run."""
    output: Path = Path()
    """The folder of runs/; the working directory unless set."""


class ViewOptions(VerbOptions):
    """The runs that are shown, and how they are served."""

    verb: ClassVar[str] = "view"
    example: ClassVar[str] = "run=code_mc"

    run: str | None = None
    """A recipe (its newest run), recipe/fingerprint, or the path of a run's folder; all runs unless set."""
    output: Path = Path()
    """The folder of runs/ and replies/; the working directory unless set."""
    port: int = Field(default=8321, ge=0, le=65535)
    """The port on 127.0.0.1; 0 takes a free one."""
    reviewer: str | None = None
    """Who labels; the login name unless set, and every browser may use another name."""
    open: bool = True
    """Open a browser where there is a display."""


class StatusOptions(VerbOptions):
    """The runs that are listed."""

    verb: ClassVar[str] = "status"
    example: ClassVar[str] = "output=folder"

    output: Path = Path()
    """The folder of runs/ and replies/; the working directory unless set."""
    recipe: str | None = None
    """The runs of one recipe; all unless set."""


class PowerOptions(VerbOptions):
    """The design of an evaluation."""

    verb: ClassVar[str] = "power"
    example: ClassVar[str] = "base=.4 effect=.1 tasks=200 seeds=3"

    base: float
    """The rate of misbehaviour without the treatment, 0..1; required."""
    effect: float | None = None
    """How much the treatment lowers the rate, such as .1; without it only the smallest visible effect is shown."""
    tasks: int
    """Held-out tasks, shared by both arms; required."""
    seeds: int
    """Trainings of each arm; required."""
    answers: int = 1
    """Answers per task and model."""
    seed_sd: float = 0.03
    """Standard deviation of a model's rate from training to training; the default is a guess, a pilot knows better."""
    shared: float = 0.3
    """Share of an answer's variance that lies between tasks, the same in both arms."""
    arm: float = 0.1
    """Share between tasks that differs between the arms (the effect is not the same everywhere)."""
    model: float = 0.1
    """Share between tasks that is each single model's own."""
    alpha: float = 0.05
    """The level of the test. For one of k comparisons under Holm at worst .05 / k."""


class CountOptions(VerbOptions):
    """Where the store is."""

    verb: ClassVar[str] = "replies"
    example: ClassVar[str] = "find recipe=code_mc"

    output: Path = Path()
    """The folder of replies/; the working directory unless set."""


class CheckOptions(CountOptions):
    """Where the store is."""

    verb: ClassVar[str] = "replies check"


class FindOptions(RecipeOptions):
    """The replies that are compared with what a recipe needs."""

    verb: ClassVar[str] = "replies find"

    task: str | None = None
    """Only replies to this task."""
    context: str | None = None
    """Only replies under this context."""
    k: int | None = None
    """Only replies of this rank, from 0."""


class PruneOptions(CountOptions):
    """The replies that are removed: those that match both `before` and `model`."""

    verb: ClassVar[str] = "replies prune"
    example: ClassVar[str] = "prune before=2026-01-31"

    before: str | None = None
    """Replies written before this day, YYYY-MM-DD."""
    model: str | None = None
    """Replies of this model."""
    dry_run: bool = True
    """Print what would be removed; dry_run=false removes it."""
