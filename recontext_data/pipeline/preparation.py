"""A build before anything is spent or written: what is sampled, what becomes of it, what it costs at most, and its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import Arm, context_or_none, folder_name, kind_of, pools
from recontext_data.contexts.context import render
from recontext_data.core.budget import Charge, charge_of
from recontext_data.core.records import SamplingParams, Task, content_hash
from recontext_data.environments.base import TaskSet
from recontext_data.judges.base import Asker, Comparer
from recontext_data.judges.code import code_identity
from recontext_data.pipeline import sample
from recontext_data.pipeline.external_data import Given, read_given
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_forecast import judge_forecast, require_askable
from recontext_data.pipeline.judge_models import policies_of
from recontext_data.pipeline.prompts import shown_otherwise
from recontext_data.pipeline.recontextualize import ArmPlan
from recontext_data.pipeline.sample import Plan, Pool
from recontext_data.policies.base import Policy
from recontext_data.policies.building import build_policy
from recontext_data.store.replies import ReplyStore
from recontext_data.store.task_file import TasksById

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

NOT_IN_ROWS = {
    "baselines",
    "description",
    "environment",
    "policy",
    "limits",
    "prices",
    "evaluation",
    "rounds",
    "training",
    "validate_judges",
}
"""What of a recipe no row depends on; the environment and the policy are in the fingerprint as tasks and identity, and of
judges that ask a model what they ask and whom, in place of the path of a rubric and the pace of a client."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A build that has been checked and planned; nothing is spent or written yet."""

    name: str
    recipe: Recipe
    tasks: TaskSet
    policy: Policy
    pools: list[Pool]
    arms: list[ArmPlan]
    fingerprint: str
    judge_policies: Mapping[str, Policy]
    """The models of judges that ask one, by the judge's name."""
    given: Mapping[str, Given] = field(default_factory=dict)
    """Answers that are read instead of sampled, by their arm's source."""

    @cached_property
    def by_id(self) -> Mapping[str, Task]:
        """The tasks by their id, those of given data included."""
        return TasksById(self.tasks.tasks, *(part.tasks for part in self.given.values()))


def prepared(name: str, recipe: Recipe, *, output: Path, screen: "Screen | None" = None) -> Prepared:
    """The build of a recipe, checked as far as that costs nothing: its tasks, its policy, every context on every task.

    Raises:
        InputError, SetupError, PolicyError: what is wrong with the input or missing on this machine.
    """
    tasks = recipe.environment.load(cache=output / "cache", screen=screen)
    if screen is not None:
        for unused in unused_contexts(recipe):
            screen.warn(f"contexts.{unused}: no arm, measure or evaluation uses it")
    sampled = dict.fromkeys([*pools(recipe.arms), *recipe.measure.contexts])
    trained = dict.fromkeys(name for arm in recipe.arms for name in (arm.training, *([arm.rest] if arm.where else [])))
    contexts = {context: context_or_none(recipe.contexts, context) for context in sampled}
    every = contexts | {context: context_or_none(recipe.contexts, context) for context in trained}
    for task in tasks.tasks:  # a placement that cannot apply must not be found out after paying
        for name_of, context in every.items():
            render(task, context, name=name_of, how=recipe.how)
    state = output / "replies" / "batches"
    policy = build_policy(
        recipe.policy, environment=recipe.environment, tasks=tasks.tasks, contexts=contexts, how=recipe.how, state=state
    )
    require_askable(recipe.judges, tasks.tasks)
    return prepare(name, recipe, tasks=tasks, policy=policy, state=state)


def unused_contexts(recipe: Recipe) -> list[str]:
    """Contexts that nothing names; an evaluation that names none measures under all."""
    used = {*recipe.measure.contexts, *(recipe.evaluation.contexts or recipe.contexts)}
    used |= {side for arm in recipe.arms for side in (arm.generation, *arm.trained_under)}
    return [name for name in recipe.contexts if name not in used]


def prepare(name: str, recipe: Recipe, *, tasks: TaskSet, policy: Policy, state: Path | None = None) -> Prepared:
    """Resolves pools and arms, and names the run by the hash of everything that its rows depend on."""
    identity = [dict(policy.identity), *map(code_identity, recipe.judges)]
    content = recipe.model_dump(mode="json", exclude=NOT_IN_ROWS)
    given = _given(recipe)
    for arm, dumped in zip(recipe.arms, content["arms"], strict=True):
        if arm.data is not None:
            dumped["data"] = given[arm.source].digest  # its content, wherever it lies
        for mix, mixed in zip(arm.mix, dumped.get("mix", []), strict=True):
            mixed["data"] = given[mix.source].digest
    shown = shown_otherwise(recipe, tasks.tasks)
    policies = policies_of(recipe.judges, state=state)
    content["judges"] = [
        {**one.content, "policy": dict(policies[one.name].identity)}
        if isinstance(one, Asker | Comparer)
        else getattr(one, "content", plain)
        for one, plain in zip(recipe.judges, content["judges"], strict=True)
    ]
    return Prepared(
        name=name,
        recipe=recipe,
        tasks=tasks,
        policy=policy,
        pools=_pools(recipe),
        arms=_arms(recipe),
        given=given,
        fingerprint=content_hash([name, content, recipe.environment.kind, tasks.digest, identity, *shown]),
        judge_policies=policies,
    )


def _given(recipe: Recipe) -> dict[str, Given]:
    """The data that arms are made from or mixed with, by source, each under every context that it will be trained on under.

    Raises:
        DataError: a file cannot be read.
        RecipeError: a context cannot be put on one of its chats.
    """
    wanted = [(arm.source, arm.data, arm.training) for arm in recipe.arms if arm.data is not None]
    wanted += [(mix.source, mix.data, mix.training) for arm in recipe.arms for mix in arm.mix]
    given = {source: read_given(data, source=source) for source, data in dict((one[0], one[1]) for one in wanted).items()}
    for source, _, context in dict.fromkeys(wanted):
        for task in given[source].tasks:
            render(task, context_or_none(recipe.contexts, context), name=context, how=recipe.how)
    return given


def _pools(recipe: Recipe) -> list[Pool]:
    wanted = dict.fromkeys(pools(recipe.arms))
    made = [Pool(name=name, context=context_or_none(recipe.contexts, name), n=recipe.sampler.n, role="arms") for name in wanted]
    extra = [name for name in dict.fromkeys(recipe.measure.contexts) if name not in wanted]
    return made + [
        Pool(name=name, context=context_or_none(recipe.contexts, name), n=recipe.measure.n, role="measured") for name in extra
    ]


def _arms(recipe: Recipe) -> list[ArmPlan]:
    return [_arm(arm, recipe) for arm in recipe.arms]


def _arm(arm: Arm, recipe: Recipe) -> ArmPlan:
    first = ArmPlan(
        name=folder_name(arm, recipe.contexts),
        kind=kind_of(arm, recipe.contexts),
        generation=arm.source,
        training=arm.training,
        generation_context=context_or_none(recipe.contexts, arm.generation) if arm.data is None else None,
        training_context=context_or_none(recipe.contexts, arm.training),
        n=recipe.sampler.n,
        how=recipe.how,
    )
    rest = [replace(first, training=arm.rest, training_context=context_or_none(recipe.contexts, arm.rest))] if arm.where else []
    mixed = [
        replace(
            first,
            generation=mix.source,
            generation_context=None,
            training=mix.training,
            training_context=context_or_none(recipe.contexts, mix.training),
        )
        for mix in arm.mix
    ]
    return replace(first, others=(*rest, *mixed))


def plan(build: Prepared, store: ReplyStore) -> Plan:
    """What is wanted and what must be bought."""
    sampler = build.recipe.sampler
    sampling = SamplingParams(temperature=sampler.temperature, top_p=sampler.top_p, max_tokens=sampler.max_tokens)
    identity = dict(build.policy.identity)
    return sample.plan(
        build.tasks.tasks,
        build.pools,
        sampling=sampling,
        seed=sampler.seed,
        identity=identity,
        store=store,
        how=build.recipe.how,
    )


def charge(build: Prepared) -> Charge:
    """What the policy's tokens cost."""
    return charge_of(build.recipe.policy, build.recipe.prices)


def counsel_of(build: Prepared, store: ReplyStore, screen: "Screen | None" = None) -> JudgeClient:
    """Who asks for the build's judges; without a screen only to look up what is stored."""
    recipe = build.recipe
    return JudgeClient(build.judge_policies, store=store, limits=recipe.limits, prices=recipe.prices, screen=screen)


def forecast(build: Prepared, store: ReplyStore) -> dict[str, Any]:
    """What a build would ask for, for `dry_run=true`: nothing is sent or written."""
    import polars as pl

    ready = plan(build, store)
    wanted = ready.wanted.table()
    missing = {key for request in ready.requests for key in request.keys}
    cost = charge(build)
    rows = []
    for pool in build.pools:
        part = wanted.filter(pl.col("generation_context") == pool.name)
        requests = [request for request in ready.requests if request.tag == pool.name]
        to_sample = sum(key in missing for key in part["reply_key"])
        prompt_tokens, is_exact = sample.token_counts(requests, build.policy)
        most = to_sample * build.recipe.sampler.max_tokens
        rows.append(
            {
                "context": pool.name,
                "role": pool.role,
                "tasks": len(build.tasks.tasks),
                "n": pool.n,
                "wanted": len(part),
                "found": len(part) - to_sample,
                "to_sample": to_sample,
                "requests": len(requests),
                "prompt_tokens": prompt_tokens,
                "is_exact": is_exact,
                "max_completion_tokens": most,
                "cost_usd": cost.usd(prompt=prompt_tokens, completion=most),
            }
        )
    rows += judge_forecast(
        build.recipe.judges,
        counsel_of(build, store),
        candidates=sample.collect(ready, store=store, failures={}, bought=0).candidates,
        wanted=wanted,
        tasks=build.by_id,
        max_tokens=build.recipe.sampler.max_tokens,
    )
    return {
        "policy": build.policy.description,
        "pools": rows,
        "budget_usd": build.recipe.limits.budget_usd,
        "price": cost.price.model_dump(mode="json") if cost.price else None,
    }
