"""Runs from Python: the tables, arms and rates of a build, and training and evaluation on top of it."""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recontext_data.config.loading import Loaded, validated
from recontext_data.core.errors import DataError, RecipeError
from recontext_data.core.event_loop import apart
from recontext_data.publishing.runs import FinishedRun
from recontext_data.publishing.runs import open_run as open_finished
from recontext_data.reports import modes
from recontext_data.reports.screen import Screen

if TYPE_CHECKING:
    import datasets
    import polars as pl

    from recontext_data.training.models import TrainedModel

T = TypeVar("T")
Facts = Mapping[str, Any]
"""JSON facts as a run holds them."""

RATES = ("context", "role", "judge", "label", "count", "total", "rate", "low", "high")
"""Columns of `Run.rates`."""


@dataclass(frozen=True)
class RunArm:
    """One arm of a run: a dataset, and the pair of contexts behind it."""

    name: str
    """Its folder's name, `<kind>.<generation>-<training>`."""
    kind: str
    """standard, prior, inoculation, distillation, recontextualized, reversed or placebo."""
    generation: str
    """The context that its completions were sampled under."""
    training: str
    """The context that its prompts are rendered under."""
    rows: Mapping[str, int]
    """Rows by split."""
    path: Path
    """The folder of the dataset; README.md in it is the dataset card."""

    def dataset(self) -> "datasets.DatasetDict":
        """The dataset as `datasets` reads it, split into train and validation."""
        import datasets

        found = datasets.load_from_disk(str(self.path))
        assert isinstance(found, datasets.DatasetDict)
        return found


class Run:
    """A finished build."""

    def __init__(self, found: FinishedRun, *, loaded: Loaded | None = None) -> None:
        self._found = found
        self._loaded_recipe = loaded

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._found.path

    @property
    def manifest(self) -> Facts:
        """The manifest: the recipe as resolved, versions, ledger, rates, timings, the hash of every file."""
        return self._found.manifest

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.manifest["recipe_name"])

    @property
    def fingerprint(self) -> str:
        """The hash of everything that the rows depend on; its first 16 characters name the folder."""
        return str(self.manifest["fingerprint"])

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.path / "report.html"

    @cached_property
    def arms(self) -> list[RunArm]:
        """The arms, in the recipe's order."""
        return [
            RunArm(
                name=arm["name"],
                kind=arm["kind"],
                generation=arm["generation_context"],
                training=arm["training_context"],
                rows=dict(arm["rows"]),
                path=self.path / "arms" / arm["name"],
            )
            for arm in self.manifest["arms"]
        ]

    def arm(self, name: str) -> RunArm:
        """An arm by its folder's name or by its pair, such as `default -> hack`.

        Raises:
            RecipeError: the run has no such arm.
        """
        (folder,) = self._found.wanted([name])
        return next(arm for arm in self.arms if arm.name == folder)

    def tasks(self) -> "pl.LazyFrame":
        """The tasks; columns as in `core.tables.TASKS`."""
        return self._table("tasks")

    def candidates(self) -> "pl.LazyFrame":
        """Every completion that competed; columns as in `core.tables.CANDIDATES`."""
        return self._table("candidates")

    def judgements(self) -> "pl.LazyFrame":
        """Every judge's word on every candidate; columns as in `core.tables.JUDGEMENTS`."""
        return self._table("judgements")

    def selection(self) -> "pl.LazyFrame":
        """Which candidates each arm keeps, and why the others were dropped; columns as in `core.tables.SELECTION`."""
        return self._table("selection")

    def violations(self) -> "pl.LazyFrame":
        """What the gates found; columns as in `core.tables.VIOLATIONS`."""
        return self._table("violations")

    def _table(self, name: str) -> "pl.LazyFrame":
        import polars as pl

        return pl.scan_parquet(self.path / f"{name}.parquet")

    def rates(self, *, confidence: float = 0.95) -> "pl.DataFrame":
        """How often each judge gave each label under each generation context; one row per label.

        Columns: context, role (arms or measured), judge, label, count, total, rate = count / total, and low and high, the
        Wilson interval. The interval treats completions as independent; for differences between models use `evaluate`.
        """
        import polars as pl

        from recontext_data.stats.statistics import wilson

        rows = []
        for row in self.manifest["rates"]:
            for label, count in row["counts"].items():
                low, high = wilson(count, row["total"], confidence=confidence) if row["total"] else (None, None)
                rate = count / row["total"] if row["total"] else None
                rows.append((row["context"], row["role"], row["judge"], label, count, row["total"], rate, low, high))
        types: Sequence[type[pl.DataType]] = [pl.String] * 4 + [pl.Int64] * 2 + [pl.Float64] * 3
        return pl.DataFrame(rows, schema=dict(zip(RATES, types, strict=True)), orient="row")

    @property
    def _output(self) -> Path:
        return self.path.parents[2]

    @cached_property
    def _loaded(self) -> Loaded:
        """The recipe; of a run that was opened as its manifest holds it, if that still leads to this run."""
        if self._loaded_recipe is not None:
            return self._loaded_recipe
        from recontext_data.pipeline.preparation import prepared

        loaded = validated(self.name, dict(self.manifest["recipe"]), {}, said=str(self.path / "manifest.json"))
        if prepared(loaded.name, loaded.recipe, output=self._output).fingerprint != self.fingerprint:
            raise RecipeError(
                f"{self.path}: the recipe in its manifest leads to another run today, since its tasks, models or judges have "
                "changed; load the recipe and build it again"
            )
        return loaded

    def _with_seeds(self, seeds: Sequence[int]) -> Loaded:
        if not seeds:
            return self._loaded
        tree = self._loaded.recipe.model_dump(mode="json")
        tree["training"]["seeds"] = list(seeds)
        return validated(self._loaded.name, tree, self._loaded.origins, said=self._loaded.name)

    def train(
        self, *, seeds: Sequence[int] = (), arms: Sequence[str] = (), models: str = "models", progress: bool = True
    ) -> list["TrainedModel"]:
        """Trains a model for each arm and seed; a model that is finished already is left alone.

        Args:
            seeds: in place of the recipe's.
            arms: names or pairs; none means all.
            models: the folder in the run that the models go to.
            progress: whether progress and notes are written to standard error.

        Returns:
            The models that were asked for, in the order of arms and seeds.

        Raises:
            RecontextError: of any kind; finished models stay, and the same call continues.
        """
        from recontext_data.training.models import model_folder, read_record, trained_model
        from recontext_data.training.run import folders_of_arms, train_arms

        loaded = self._with_seeds(seeds)
        words = [f"recipe={self.name}", *([f"seeds={','.join(map(str, seeds))}"] if seeds else [])]
        call = partial(train_arms, loaded, output=self._output, arms=arms, models=models, words=words)
        _quietly(call, progress=progress)
        wanted = [(arm, seed) for arm in folders_of_arms(loaded, arms) for seed in loaded.recipe.training.seeds]
        folders = [model_folder(self.path, arm=arm, seed=seed, models=models) for arm, seed in wanted]
        return [trained_model(folder, record) for folder in folders if (record := read_record(folder)) is not None]

    def evaluate(self, *, seeds: Sequence[int] = (), models: str = "models", progress: bool = True) -> "EvaluationResults":
        """Measures the policy and every trained model under every context, on tasks that no arm was trained on.

        Args:
            seeds: some of the trained models; none means all.
            models: the folder in the run that the trained models are in.
            progress: whether progress and notes are written to standard error.

        Raises:
            RecontextError: of any kind; what was sampled is kept.
        """
        from recontext_data.evaluation.run import evaluate_models

        call = partial(evaluate_models, self._loaded, output=self._output, models=models, seeds=seeds)
        facts = _quietly(call, progress=progress)
        assert facts is not None, "only a dry run has no results"
        return EvaluationResults(facts, self.path / "evaluation")

    def __repr__(self) -> str:
        arms = ", ".join(f"{arm.generation} -> {arm.training}" for arm in self.arms)
        return f"Run({self.name}, {self.fingerprint[:16]}, arms: {arms})"

    def _repr_html_(self) -> str:
        import html

        return f"<p><b>{html.escape(self.name)}</b> {html.escape(str(self.path))}</p>{self.rates()._repr_html_()}"


class EvaluationResults:
    """What an evaluation measured."""

    def __init__(self, facts: Facts, folder: Path) -> None:
        self.facts = facts
        """results.json as it was written."""
        self.folder = folder
        """Holds results.json, outcomes.parquet, report.html and figure.svg."""

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.folder / "report.html"

    def outcomes(self) -> "pl.LazyFrame":
        """A row per answer."""
        import polars as pl

        return pl.scan_parquet(self.folder / "outcomes.parquet")

    def rates(self) -> "pl.DataFrame":
        """The rate of misbehaviour of every arm under every context; one row per cell.

        Columns: arm, kind, context, answers, rate, low, high (an interval over tasks and seeds) and its method and caveat.
        """
        return _frame(self.facts["cells"], ("arm", "kind", "context", "answers"), "rate")

    def differences(self) -> "pl.DataFrame":
        """Every arm minus the baseline arm under every context, paired by task; `p_holm` is corrected over all rows.

        Columns: arm, baseline, context, estimate, low, high, p, p_holm and how the interval was made.
        """
        import polars as pl

        rows = [{key: value for key, value in row.items() if key != "seeds"} for row in self.facts["differences"]]
        texts, numbers = ("arm", "baseline", "context"), ("estimate", "low", "high", "p", "p_holm")
        none = dict.fromkeys(texts, pl.String) | dict.fromkeys(numbers, pl.Float64)
        return pl.DataFrame(rows, schema=None if rows else none, infer_schema_length=None)

    def __repr__(self) -> str:
        return f"EvaluationResults({len(self.facts['cells'])} cells, {self.folder})"

    def _repr_html_(self) -> str:
        return f"{self.rates()._repr_html_()}{self.differences()._repr_html_()}"


def _frame(rows: Sequence[Facts], keys: Sequence[str], interval: str) -> "pl.DataFrame":
    import polars as pl

    flat = []
    for row in rows:
        found = dict(row[interval] or {})
        flat.append({key: row[key] for key in keys} | {interval: found.pop("estimate", None)} | found)
    return pl.DataFrame(flat, infer_schema_length=None)


def open_run(name: str | Path, *, output: str | Path = ".") -> Run:
    """The run in a folder, or the latest run of the recipe of that name below `output`.

    Raises:
        RecipeError: there is no such run, or it is not finished.
        DataError: its manifest cannot be read.
    """
    return Run(open_finished(str(name), output=Path(output)))


def build_run(loaded: Loaded, *, output: Path, progress: bool = True) -> Run:
    """Builds the datasets of a recipe, or only what is missing of them; see `LoadedRecipe.build`."""
    from recontext_data.pipeline.build import build
    from recontext_data.pipeline.preparation import prepared
    from recontext_data.store.run_folder import require_writable

    with _mode(progress):
        screen = _screen()
        require_writable(output)
        ready = prepared(loaded.name, loaded.recipe, output=output, screen=screen)
        folder, manifest = build(ready, output=output, screen=screen, command="")
    if not manifest:
        raise DataError(f"{folder.path}: the build left no manifest")
    return Run(FinishedRun(folder.path.resolve(), manifest), loaded=loaded)


def _quietly(call: "partial[T]", *, progress: bool) -> T:
    def job() -> T:
        # The tables that a command prints are what the call returns.
        with _mode(progress), redirect_stdout(io.StringIO()):
            return call()

    return apart(job)


def _mode(progress: bool) -> AbstractContextManager[None]:
    return modes.speaking("auto" if progress else "quiet")


def _screen() -> Screen:
    """Progress, notes and warnings on standard error; tables are what the call returns."""
    return Screen(out=io.StringIO())
