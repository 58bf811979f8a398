"""The matrix: every model under every context. Samples through the reply store and judges as a build does.

The result is one table with a row per answer: arm, seed, context, task_id, k, label, score, unscored_reason, completion and
each judge's word. A model is its
arm and seed, by name and never by place; `before` is the policy as it was.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import Kind, folder_name, kind_of
from recontext_data.core.budget import Budget, Charge, charge_of
from recontext_data.core.errors import BuildStopped, RecipeError, did_you_mean
from recontext_data.core.records import SamplingParams
from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.contexts import contexts_of, measured
from recontext_data.evaluation.models import BEFORE, Model
from recontext_data.pipeline import sample
from recontext_data.pipeline.judge import judge
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_forecast import judge_forecast, require_askable
from recontext_data.pipeline.preparation import Prepared, counsel_of
from recontext_data.pipeline.purchase import ProgressSink, buy
from recontext_data.pipeline.sample import Plan, Pool
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen


def outcomes(models: Sequence[Model], job: Prepared, *, tasks: TaskSet, store: ReplyStore, screen: "Screen") -> "pl.DataFrame":
    """Every answer of every model under every context, judged.

    Raises:
        BuildStopped: too many completions of one model failed, or the budget is spent; what came is kept.
    """
    import polars as pl

    recipe = job.recipe
    plans = [(model, _plan(model, recipe, tasks, store)) for model in models]
    missing = sum(ready.requests.num_completions for _, ready in plans)
    failures: dict[str, dict[str, str]] = {}
    purse, counsel = purse_of(plans, job, store), counsel_of(job, store, screen)
    require_askable(recipe.judges, tasks.tasks)
    if missing:
        counsel.require_ready(recipe.judges)
        with screen.stage("evaluate", missing, unit="completions") as tracker:
            failures = asyncio.run(buy_all(plans, recipe, store=store, tracker=tracker, purse=purse))
    counsel.spent_usd = purse.spent_usd
    collected = [
        sample.collect(ready, store=store, failures=dict(failures.get(model.name, {})), bought=0) for model, ready in plans
    ]
    return pl.concat(
        _judged(model, ready, outcome.candidates, recipe, tasks=tasks, counsel=counsel)
        for (model, ready), outcome in zip(plans, collected, strict=True)
    )


def baseline_of(recipe: Recipe) -> str:
    """The arm that the others are compared with: `evaluation.baseline` names it or its kind. `before` where there is none.

    Raises:
        RecipeError: it is neither the name of an arm nor a kind that arms can have.
    """
    wanted = recipe.evaluation.baseline
    kinds = {folder_name(arm, recipe.contexts): kind_of(arm, recipe.contexts) for arm in recipe.arms}
    if wanted not in (*kinds, *get_args(Kind), BEFORE):
        known = did_you_mean(wanted, [*kinds, *get_args(Kind), BEFORE])
        raise RecipeError(f"evaluation.baseline={wanted}: no arm has this name or kind; {known}")
    return next((name for name, kind in kinds.items() if wanted in (name, kind)), BEFORE)


def forecast(models: Sequence[Model], job: Prepared, *, tasks: TaskSet, store: ReplyStore) -> dict[str, Any]:
    """What a measurement would sample and cost at most, as `Screen.dry_run` shows it; nothing is sent or written."""
    plans = [(model, _plan(model, job.recipe, tasks, store)) for model in models]
    listed = _charge(models[0], job.recipe).price
    most_per_answer, pools = job.recipe.sampler.max_tokens, []
    for name in contexts_of(job.recipe):
        parts = [(model, [r for r in ready.requests if r.tag == name]) for model, ready in plans]
        counts = [sample.token_counts(requests, model.policy) for model, requests in parts]
        samples = [sum(len(request.ks) for request in requests) for _, requests in parts]
        to_sample = sum(samples)
        wanted = sum(ready.wanted.counts.get(name, 0) for _, ready in plans)
        prompt_tokens, most = sum(tokens for tokens, _ in counts), to_sample * most_per_answer
        costs = [
            _charge(model, job.recipe).usd(prompt=tokens, completion=asked * most_per_answer)
            for (model, _), (tokens, _), asked in zip(parts, counts, samples, strict=True)
        ]
        pools.append(
            {
                "context": name,
                "tasks": len(tasks.tasks),
                "n": job.recipe.evaluation.n * len(models),
                "requests": sum(len(requests) for _, requests in parts),
                "found": wanted - to_sample,
                "to_sample": to_sample,
                "prompt_tokens": prompt_tokens,
                "is_exact": all(is_exact for _, is_exact in counts),
                "max_completion_tokens": most,
                "cost_usd": None if None in costs else sum(cost for cost in costs if cost is not None),
            }
        )
    pools += _judge_rows(plans, job, tasks=tasks, store=store)
    return {
        "policy": job.policy.description,
        "pools": pools,
        "budget_usd": job.recipe.limits.budget_usd,
        "price": listed.model_dump(mode="json") if listed else None,
    }


def _judge_rows(
    plans: Sequence[tuple[Model, Plan]], job: Prepared, *, tasks: TaskSet, store: ReplyStore
) -> list[dict[str, Any]]:
    """What the judges would ask about all models' answers; pools of different models are groups of their own."""
    import polars as pl

    def apart(frame: "pl.DataFrame", model: Model) -> "pl.DataFrame":
        return frame.with_columns(pl.format("{}/{}", pl.lit(model.name), "generation_context").alias("generation_context"))

    frames = [
        (apart(sample.collect(ready, store=store, failures={}, bought=0).candidates, model), apart(ready.wanted.table(), model))
        for model, ready in plans
    ]
    return judge_forecast(
        job.recipe.judges,
        counsel_of(job, store),
        candidates=pl.concat(candidates for candidates, _ in frames),
        wanted=pl.concat(wanted for _, wanted in frames),
        tasks={task.task_id: task for task in tasks.tasks},
        max_tokens=job.recipe.sampler.max_tokens,
    )


def _charge(model: Model, recipe: Recipe) -> Charge:
    """What the model's tokens cost."""
    return charge_of(model.config, recipe.prices, priced_as=model.priced_as)


def purse_of(plans: Sequence[tuple[Model, Plan]], job: Prepared, store: ReplyStore) -> Budget:
    """What may be spent: the recipe's budget, less what the stored answers cost. Its price is set model by model."""
    purse = Budget(budget_usd=job.recipe.limits.budget_usd)
    for model, ready in plans:
        cost = _charge(model, job.recipe)
        if cost.price is not None:
            purse.spent_usd += sample.stored_cost_usd(ready, store, cost.price, factor=cost.factor)
    return purse


def _plan(model: Model, recipe: Recipe, tasks: TaskSet, store: ReplyStore) -> Plan:
    pools = [
        Pool(name=name, context=context, n=recipe.evaluation.n, role="measured") for name, context in measured(recipe).items()
    ]
    own = recipe.sampler
    sampling = SamplingParams(temperature=own.temperature, top_p=own.top_p, max_tokens=own.max_tokens)
    identity = dict(model.policy.identity)
    return sample.plan(tasks.tasks, pools, sampling=sampling, seed=own.seed, identity=identity, store=store, how=recipe.how)


async def buy_all(
    plans: Sequence[tuple[Model, Plan]], recipe: Recipe, *, store: ReplyStore, tracker: ProgressSink, purse: Budget
) -> dict[str, dict[str, str]]:
    """Asks for what the store lacks, one model after the other: two of them in memory help nobody."""
    failures = {}
    for model, ready in plans:
        if ready.requests:
            purse.charge(_charge(model, recipe))
            limit = int(recipe.limits.max_failure_rate * len(ready.wanted))
            try:
                failures[model.name] = await buy(
                    ready.requests, policy=model.policy, store=store, tracker=tracker, max_failures=limit, purse=purse
                )
            except BuildStopped as error:
                raise BuildStopped(f"{model.name}: {error}") from None
            finally:
                await model.policy.close()
    return failures


def _judged(
    model: Model,
    ready: Plan,
    sampled: "pl.DataFrame",
    recipe: Recipe,
    *,
    tasks: TaskSet,
    counsel: JudgeClient,
) -> "pl.DataFrame":
    """The model's answers with what the judges say; a completion that failed is a row with the reason.

    Label, score and why there is none are the outcome judge's; `judgements` has the word of each.
    """
    import polars as pl

    by_id = {task.task_id: task for task in tasks.tasks}
    judgements, _ = judge(sampled, tasks=by_id, judges=recipe.judges, counsel=counsel)
    words = judgements.filter(pl.col("judge") == recipe.outcome_judge.name).drop("judge", "raw")
    every = judgements.group_by("candidate_id", maintain_order=True).agg(
        judgements=pl.struct("judge", "label", "score", "unscored_reason", "raw")
    )
    candidates = sampled.select("candidate_id", "completion")
    table = ready.wanted.table().join(candidates, on="candidate_id", how="left", maintain_order="left")
    table = table.join(words, on="candidate_id", how="left", maintain_order="left")
    table = table.join(every, on="candidate_id", how="left", maintain_order="left")
    return table.select(
        arm=pl.lit(model.arm),
        seed=pl.lit(model.seed, dtype=pl.Int64),
        context="generation_context",
        task_id="task_id",
        k="k",
        label="label",
        score="score",
        unscored_reason=pl.when(pl.col("completion").is_null()).then(pl.lit("no reply")).otherwise("unscored_reason"),
        completion="completion",
        judgements="judgements",
    )


def as_arrays(table: "pl.DataFrame", *, label: str, tasks: Sequence[str], seeds: Sequence[int | None]) -> tuple[Any, Any]:
    """(answers with this label, answers with any label) as integer arrays [S, T]; `table` is one arm under one context."""
    import numpy as np

    row = {seed: index for index, seed in enumerate(seeds)}
    column = {task: index for index, task in enumerate(tasks)}
    hits_S_T = np.zeros((len(seeds), len(tasks)), dtype=np.int64)
    answers_S_T = np.zeros_like(hits_S_T)
    for seed, task, found in table.select("seed", "task_id", "label").iter_rows():
        if found is not None:
            answers_S_T[row[seed], column[task]] += 1
            hits_S_T[row[seed], column[task]] += found == label
    return hits_S_T, answers_S_T
