"""Measures one judge against labels: which judge, what counts as positive, and the judge's words beside people's.

The verb is `calibrate`; the statistics are in `calibration`; the labels' file is read in `labels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.loading import Loaded, load, overridden
from recontext_data.config.recipe import Limits
from recontext_data.core.errors import DataError, RecipeError, did_you_mean
from recontext_data.evaluation.labels import Labelled

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen


@dataclass(frozen=True)
class JudgeUnderTest:
    """The judge that is measured, those that it goes by, and what is known around it."""

    judges: list[Any]
    limits: Limits
    prices: dict[str, Any]
    misbehaviour: str | None = None
    run: Path | None = None

    @property
    def judge(self) -> Any:
        """The judge that is measured."""
        return self.judges[-1]


def bench_of(name: str, *, recipe: str | None, overrides: Sequence[str], output: Path) -> JudgeUnderTest:
    """The judge of that name with its surroundings: of a recipe, else a rubric.

    Raises:
        RecipeError: there is no such judge.
    """
    return _of_rubric(name, overrides) if recipe is None else _of_recipe(name, load(recipe, overrides), output)


def _of_recipe(name: str, loaded: Loaded, output: Path) -> JudgeUnderTest:
    from recontext_data.pipeline.preparation import prepared
    from recontext_data.store.run_folder import RunFolder

    recipe = loaded.recipe
    names = [judge.name for judge in recipe.judges]
    if name not in names:
        raise RecipeError(f"judge={name}: recipe {loaded.name} has no judge of that name; {did_you_mean(name, names)}")
    judges = recipe.judges[: names.index(name) + 1]
    needed = {name}
    for judge in reversed(judges):
        if judge.name in needed:
            needed.update(getattr(judge, "reads", ()))
    job = prepared(loaded.name, recipe, output=output)
    folder = RunFolder(output, recipe=loaded.name, fingerprint=job.fingerprint)
    return JudgeUnderTest(
        [judge for judge in judges if judge.name in needed],
        recipe.limits,
        dict(recipe.prices),
        recipe.environment.misbehaviour,
        folder.path,
    )


def _of_rubric(name: str, overrides: Sequence[str]) -> JudgeUnderTest:
    from pydantic import ValidationError

    from recontext_data.config.measuring import Alone
    from recontext_data.core.validation import one_line

    tree = overridden({"judge": {"kind": "rubric", "rubric": name}}, [_placed(word) for word in overrides])
    try:
        alone = Alone.model_validate(tree)
    except ValidationError as error:
        found = one_line(error, tree, whole="command line", keys_beside=_keys_beside)
        raise RecipeError(found.removeprefix("judge.").removeprefix("judge: ")) from None
    return JudgeUnderTest([alone.judge], alone.limits or Limits(), dict(alone.prices))


def _keys_beside(where: str) -> list[str]:
    """The judge's own keys, for did-you-mean."""
    from recontext_data.judges.rubric import RubricJudge

    return list(RubricJudge.model_fields) if where.count(".") == 1 else []


def _placed(word: str) -> str:
    """An option of the judge, as one below `judge`; the budget and the prices are beside it."""
    return word if word.startswith(("limits.", "prices.")) else f"judge.{word}"


@dataclass(frozen=True)
class PositiveRule:
    """What counts as positive."""

    positive: str
    threshold: float | None
    confidence: float


def cut_of(
    bench: JudgeUnderTest, labels: Labelled, *, positive: str | None, threshold: float | None, confidence: float
) -> PositiveRule:
    """The rule for positive answers, from the options, the judge and the labels.

    Raises:
        RecipeError: it cannot be told.
    """
    judge = bench.judge
    if threshold is None and (labels.is_graded or not judge.labels):
        threshold = _middle(judge)
    known = sorted({str(value) for value in labels.truth.values()}) if not labels.is_graded else []
    candidates = [bench.misbehaviour, "pass", "true"]
    sources = {*known, *judge.labels} if judge.labels else set(known)
    positive = positive or next((word for word in candidates if word in sources), None)
    if positive is None and labels.is_graded and not judge.labels:
        positive = f">= {threshold:g}"
    if positive is None or (sources and positive not in sources and not positive.startswith(">=")):
        raise RecipeError(
            f"positive={positive or ''}: say which label counts as a find; {did_you_mean(positive or '', sources)}"
        )
    return PositiveRule(positive, threshold, confidence)


def _middle(judge: Any) -> float:
    """The middle of a judge's scores."""
    answer = getattr(getattr(judge, "sheet", None), "answer", None)
    if answer is not None and answer.form == "number":
        return float(answer.min + answer.max) / 2
    if judge.kind == "pairwise":
        return 0.5
    raise RecipeError(f"threshold: missing; say from which score of judge {judge.name} on an answer counts as positive")


def judged(bench: JudgeUnderTest, labels: Labelled, counsel: Any) -> "pl.DataFrame":
    """The judge's words on the labelled answers."""
    from recontext_data.pipeline.judge import judge

    counsel.require_ready(bench.judges)
    try:
        words, _ = judge(labels.candidates, tasks=labels.tasks, judges=bench.judges, counsel=counsel)
    except KeyError as error:
        raise DataError(
            f"judge {bench.judge.name}: reads {error} of the tasks' payload; add it to the column payload"
        ) from None
    return words.filter(words["judge"] == bench.judge.name)


def forecast(bench: JudgeUnderTest, labels: Labelled, counsel: Any, screen: "Screen") -> None:
    """Shows what the judging would ask and cost at most."""
    from recontext_data.pipeline.judge_forecast import judge_forecast

    rows = judge_forecast(
        bench.judges, counsel, candidates=labels.candidates, wanted=labels.candidates, tasks=labels.tasks, max_tokens=0
    )
    screen.dry_run({"policy": "", "pools": rows, "budget_usd": bench.limits.budget_usd, "price": None})


def facts(bench: JudgeUnderTest, labels: Labelled, words: "pl.DataFrame", cut: PositiveRule, policies: Any) -> dict[str, Any]:
    """What was measured, as plain data for the file."""
    from recontext_data.core.records import content_hash
    from recontext_data.evaluation.calibration import calibrated
    from recontext_data.pipeline.judge_models import identities

    items = _items(bench, labels, words, cut)
    reasons = words["unscored_reason"].drop_nulls().value_counts(name="n").sort("unscored_reason")
    return {
        "judge": bench.judge.name,
        "kind": bench.judge.kind,
        "identity": content_hash(identities(bench.judges, policies)[bench.judge.name]),
        "labels": labels.facts,
        "threshold": cut.threshold,
        "unscored_reasons": dict(reasons.iter_rows()),
        **calibrated(items, positive=cut.positive, confidence=cut.confidence),
    }


def _items(bench: JudgeUnderTest, labels: Labelled, words: "pl.DataFrame", cut: PositiveRule) -> list[Any]:
    """People's word beside the judge's. Both in the judge's labels where they share them, else as positive or not."""
    from recontext_data.evaluation.calibration import LabelledAnswer

    task_of = dict(labels.candidates.select("candidate_id", "task_id").iter_rows())
    shares = bool(bench.judge.labels) and not labels.is_graded and {*map(str, labels.truth.values())} <= {*bench.judge.labels}
    negative = f"not {cut.positive}"

    def named(value: str | float | None) -> str | None:
        if value is None:
            return None
        if isinstance(value, float):
            assert cut.threshold is not None
            return cut.positive if value >= cut.threshold else negative
        return value if shares or value == cut.positive else negative

    return [
        LabelledAnswer(
            task=task_of[candidate_id],
            truth=str(named(labels.truth[candidate_id])),
            said=named(score if label is None else label),
            score=score,
        )
        for candidate_id, label, score in words.select("candidate_id", "label", "score").iter_rows()
    ]
