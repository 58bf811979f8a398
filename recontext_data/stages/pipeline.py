"""The build as one list of stages, each a function from tables to tables:

    tasks -> sample -> judge -> select -> recontextualize -> export -> manifest, report

`prepare` spends nothing and writes nothing; `run` does the rest.
"""

import asyncio
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from recontext_data import __version__
from recontext_data.arms import context_or_none, folder_name, kind_of, pools
from recontext_data.contexts import NONE
from recontext_data.environments.base import TaskSet
from recontext_data.errors import BuildStopped, RecipeError
from recontext_data.ledger import Entry
from recontext_data.policies.base import Policy
from recontext_data.prices import Price, price_of
from recontext_data.recipe import Recipe
from recontext_data.records import Sampling, Task, content_hash
from recontext_data.stages import sample
from recontext_data.stages.buying import Purse, buy
from recontext_data.stages.export import Exported, export
from recontext_data.stages.judge import judge
from recontext_data.stages.recontextualize import ArmPlan, training_rows
from recontext_data.stages.sample import Outcome, Plan, Pool
from recontext_data.stages.select import select
from recontext_data.stages.summary import ARITHMETIC_CAVEAT, SCRIPTED_CAVEAT, by_position, label_counts, rates
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen


PAID = ("openai", "openai_batch")
"""Kinds of policy that are paid by the token."""

NOT_IN_ROWS = {"description", "environment", "policy", "limits", "prices", "evaluation", "training"}
"""What of a recipe no row depends on; the environment and the policy are in the fingerprint as tasks and identity."""


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

    @property
    def by_id(self) -> Mapping[str, Task]:
        """The tasks by their id."""
        return {task.task_id: task for task in self.tasks.tasks}


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def prepare(name: str, recipe: Recipe, *, tasks: TaskSet, policy: Policy) -> Prepared:
    """Resolves pools and arms, and names the run by the hash of everything that its rows depend on."""
    identity = dict(policy.identity)
    content = recipe.model_dump(mode="json", exclude=NOT_IN_ROWS)
    return Prepared(
        name=name,
        recipe=recipe,
        tasks=tasks,
        policy=policy,
        pools=_pools(recipe),
        arms=_arms(recipe),
        fingerprint=content_hash([name, content, recipe.environment.kind, tasks.digest, identity]),
    )


def _pools(recipe: Recipe) -> list[Pool]:
    wanted = dict.fromkeys(pools(recipe.arms))
    made = [
        Pool(name=name, context=context_or_none(recipe.contexts, name), n=recipe.sampler.n, role="arms") for name in wanted
    ]
    extra = [name for name in dict.fromkeys(recipe.measure.contexts) if name not in wanted]
    return made + [
        Pool(name=name, context=context_or_none(recipe.contexts, name), n=recipe.measure.n, role="measured") for name in extra
    ]


def _arms(recipe: Recipe) -> list[ArmPlan]:
    return [
        ArmPlan(
            name=folder_name(arm, recipe.contexts),
            kind=kind_of(arm, recipe.contexts),
            generation=arm.generation,
            training=arm.training,
            generation_context=context_or_none(recipe.contexts, arm.generation),
            training_context=context_or_none(recipe.contexts, arm.training),
            n=recipe.sampler.n,
        )
        for arm in recipe.arms
    ]


def plan(build: Prepared, store: ReplyStore) -> Plan:
    """What is wanted and what must be bought."""
    sampler = build.recipe.sampler
    sampling = Sampling(temperature=sampler.temperature, top_p=sampler.top_p, max_tokens=sampler.max_tokens)
    identity = dict(build.policy.identity)
    return sample.plan(build.tasks.tasks, build.pools, sampling=sampling, seed=sampler.seed, identity=identity, store=store)


def run(build: Prepared, *, folder: RunFolder, store: ReplyStore, screen: "Screen", command: str) -> dict[str, Any]:
    """Samples what is missing, judges, selects, recontextualizes and exports; returns the manifest."""
    clock = Clock()
    with clock.stage("sample"):
        outcome, purse = _sample(build, store=store, screen=screen)
    folder.begin()
    folder.write_table("tasks", _tasks_table(build.tasks))
    folder.write_table("candidates", outcome.candidates)
    with clock.stage("judge"):
        judgements, judge_entries = judge(outcome.candidates, tasks=build.by_id, judges=build.recipe.judges)
    folder.write_table("judgements", judgements)
    judged = outcome.candidates.join(judgements, on="candidate_id", how="left", maintain_order="left")
    order = [*build.recipe.contexts, NONE]
    counts = sorted(rates(judged, labels=build.recipe.environment.labels), key=lambda row: order.index(row["context"]))
    _check_invalid(build, counts)
    with clock.stage("arms"):
        arm_entries, exported, selection = _arms_stage(build, judged, folder=folder, screen=screen)
    folder.write_table("selection", selection)
    manifest = _manifest(build, outcome=outcome, judged=judged, counts=counts, exported=exported, purse=purse)
    ledger = [build.tasks.entry, *outcome.entries, *judge_entries, *arm_entries]
    manifest |= {"ledger": [entry.as_json() for entry in ledger], "command": command, "timings_seconds": dict(clock.seconds)}
    return _finish(build, manifest, exported=exported, folder=folder)


def _sample(build: Prepared, *, store: ReplyStore, screen: "Screen") -> tuple[Outcome, Purse]:
    ready = plan(build, store)
    missing = sum(len(request.ks) for request in ready.requests)
    failures: dict[str, str] = {}
    purse = _purse(build, ready, store)
    if missing:
        limit = int(build.recipe.limits.max_failure_rate * len(ready.wanted))
        with screen.stage("sample", missing, unit="completions") as tracker:
            failures = asyncio.run(_buy(build.policy, ready, store=store, tracker=tracker, max_failures=limit, purse=purse))
    return sample.collect(ready, store=store, failures=failures, bought=missing - len(failures)), purse


async def _buy(policy: Policy, ready: Plan, *, store: ReplyStore, **how: Any) -> dict[str, str]:
    try:
        return await buy(ready.requests, policy=policy, store=store, **how)
    finally:
        await policy.close()


def _purse(build: Prepared, ready: Plan, store: ReplyStore) -> Purse:
    """The run's money: what its stored replies cost, and what more may be spent.

    Raises:
        RecipeError: there is a budget and no price to hold it against.
    """
    price, factor = _price(build)
    budget = build.recipe.limits.budget_usd
    if budget is not None and price is None:
        model = getattr(build.recipe.policy, "model", build.recipe.policy.kind)
        raise RecipeError(f"limits.budget_usd: no price is known for {model}; set prices.{model}='{{input: ..., output: ...}}'")
    spent = sample.cost_usd(store.find(ready.wanted["reply_key"]), price, factor=factor) if price else 0.0
    return Purse(price=price, factor=factor, budget_usd=budget, spent_usd=spent)


def _price(build: Prepared) -> tuple[Price | None, float]:
    """The policy's price and the share of it that is charged; None for a model that is not paid by the token."""
    policy = build.recipe.policy
    if policy.kind not in PAID:
        return None, 1.0
    return price_of(policy.model, build.recipe.prices), getattr(build.policy, "price_factor", 1.0)


def _tasks_table(tasks: TaskSet) -> "pl.DataFrame":
    import orjson
    import polars as pl

    return pl.DataFrame({
        "task_id": [task.task_id for task in tasks.tasks],
        "split": [task.split for task in tasks.tasks],
        "messages": [list(task.messages) for task in tasks.tasks],
        "payload": [orjson.dumps(dict(task.payload), option=orjson.OPT_SORT_KEYS).decode() for task in tasks.tasks],
    })


def _check_invalid(build: Prepared, counts: list[dict[str, Any]]) -> None:
    limit = build.recipe.limits.max_invalid_rate
    for row in counts:
        unread = row["counts"].get("invalid", 0) + sum(row["unscored"].values())
        if row["total"] and unread / row["total"] > limit:
            raise BuildStopped(
                f"limits.max_invalid_rate: {unread} of {row['total']} answers under {row['context']} are invalid or unscored "
                f"and {limit:.0%} may be; read some in candidates.parquet before raising it"
            )


def _arms_stage(
    build: Prepared, judged: "pl.DataFrame", *, folder: RunFolder, screen: "Screen"
) -> "tuple[list[Entry], dict[str, tuple[Exported, pl.DataFrame]], pl.DataFrame]":
    """Select, recontextualize and export, arm by arm; all arms are there at once or none is."""
    import polars as pl

    judge_name = build.recipe.selecting_judge.name
    scored = judged.filter(pl.col("judge") == judge_name)
    words = _judgements_by_candidate(judged)
    entries: list[Entry] = []
    tables: list[pl.DataFrame] = []
    exported: dict[str, tuple[Exported, pl.DataFrame]] = {}
    with folder.staged_arms() as staging, screen.stage("arms", len(build.arms), unit="arms") as tracker:
        for arm in build.arms:
            pool = scored.filter(pl.col("generation_context") == arm.generation)
            table, selected = select(pool, config=build.recipe.select, arm=arm.name)
            kept = pool.join(table.filter("kept").select("candidate_id"), on="candidate_id", how="semi", maintain_order="left")
            rows = training_rows(kept, arm=arm, tasks=build.by_id, judgements=words, fingerprint=build.fingerprint)
            done = export(rows, staging / arm.name, arm=arm, tasks=build.by_id, config=build.recipe.export)
            entries += [selected, done.entry]
            tables.append(table)
            exported[arm.name] = (done, kept)
            tracker.advance()
    return entries, exported, pl.concat(tables)


def _judgements_by_candidate(judged: "pl.DataFrame") -> dict[str, list[dict[str, Any]]]:
    names = ["judge", "label", "score", "unscored_reason", "raw"]
    words: dict[str, list[dict[str, Any]]] = {}
    for candidate_id, *values in judged.select("candidate_id", *names).iter_rows():
        words.setdefault(candidate_id, []).append(dict(zip(names, values, strict=True)))
    return words


def _manifest(
    build: Prepared, *, outcome: Outcome, judged: "pl.DataFrame", counts: list[dict[str, Any]], exported: Mapping[str, Any], purse: Purse
) -> dict[str, Any]:
    recipe, environment = build.recipe, build.recipe.environment
    scripted = recipe.policy.kind == "fake"
    return {
        "recipe_name": build.name,
        "fingerprint": build.fingerprint,
        "recipe": recipe.model_dump(mode="json"),
        "versions": {
            "recontext_data": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("polars", "pyarrow")},
        },
        "policy": {"description": build.policy.description, "identity": dict(build.policy.identity)},
        "environment": {
            "kind": environment.kind,
            "labels": list(environment.labels),
            "misbehaviour": environment.misbehaviour,
            "licence": build.tasks.licence,
        },
        "contexts": {
            name: {"stance": context.stance, "placement": context.placement, "text": context.text}
            for name, context in recipe.contexts.items()
        },
        "tasks": len(build.tasks.tasks),
        "rates": counts,
        "position": by_position(judged, build.by_id, misbehaviour=environment.misbehaviour),
        "arms": [_arm_facts(build, arm, *exported[arm.name]) for arm in build.arms],
        "gates": [gate for done, _ in exported.values() for gate in done.gates],
        "requests": {
            "wanted": sum(entry.rows_in for entry in outcome.entries),
            "found": sum(entry.kept for entry in outcome.entries) - outcome.bought,
            "sampled": outcome.bought,
            "failed": outcome.failed,
        },
        "tokens": {
            "prompt": int(outcome.candidates["prompt_tokens"].sum()),
            "completion": int(outcome.candidates["completion_tokens"].sum()),
        },
        "cost_usd": sample.cost_usd(outcome.candidates, purse.price, factor=purse.factor) if purse.price else None,
        "caveats": [SCRIPTED_CAVEAT] if scripted else [ARITHMETIC_CAVEAT],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _arm_facts(build: Prepared, arm: ArmPlan, done: Exported, kept: "pl.DataFrame") -> dict[str, Any]:
    return {
        "name": arm.name,
        "kind": arm.kind,
        "generation_context": arm.generation,
        "training_context": arm.training,
        "rows": done.rows,
        "labels": label_counts(kept, build.recipe.environment.labels),
        "select": build.recipe.select.keep,
    }


def _finish(
    build: Prepared, manifest: dict[str, Any], *, exported: Mapping[str, tuple[Exported, Any]], folder: RunFolder
) -> dict[str, Any]:
    """Cards, report, and then the manifest, which says that the rest is there."""
    from recontext_data.reports.card import dataset_card
    from recontext_data.reports.html import write_report
    from recontext_data.store.files import replace_file

    for arm in manifest["arms"]:
        text = dataset_card(manifest, arm)
        replace_file(folder.path / "arms" / arm["name"] / "README.md", lambda path, text=text: path.write_text(text, encoding="utf-8"))
    samples = {name: _samples(build, done) for name, (done, _) in exported.items()}
    write_report(folder.path, manifest, samples=samples)
    return folder.finish(manifest)


def _samples(build: Prepared, done: Exported) -> list[dict[str, Any]]:
    """The first rows of an arm beside the prompt that they were sampled under."""
    from recontext_data.contexts import render

    arms = {arm.name: arm for arm in build.arms}
    tasks = build.by_id
    return [
        {
            "task_id": row["task_id"],
            "candidate_id": row["candidate_id"],
            "k": row["k"],
            "label": row["judgements"][0]["label"],
            "generation_prompt": render(tasks[row["task_id"]].messages, arms[row["arm"]].generation_context),
            "training_prompt": row["prompt"],
            "completion": row["completion"][0]["content"],
        }
        for row in done.first_rows
    ]


def as_found(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a finished run as the screen shows it to a build that had nothing to do."""
    wanted = manifest["requests"]["wanted"]
    return manifest | {"requests": {"wanted": wanted, "found": wanted, "sampled": 0, "failed": 0}, "timings_seconds": {}}


def forecast(build: Prepared, store: ReplyStore) -> dict[str, Any]:
    """What a build would ask for, for `dry_run=true`: nothing is sent or written."""
    import polars as pl

    ready = plan(build, store)
    missing = {key for request in ready.requests for key in request.keys}
    price, factor = _price(build)
    rows = []
    for pool in build.pools:
        part = ready.wanted.filter(pl.col("generation_context") == pool.name)
        requests = [request for request in ready.requests if request.tag == pool.name]
        to_sample = sum(key in missing for key in part["reply_key"])
        prompt_tokens, is_exact = sample.token_counts(requests, build.policy)
        most = to_sample * build.recipe.sampler.max_tokens
        rows.append({
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
            "cost_usd": factor * price.usd(prompt=prompt_tokens, completion=most) if price else _free(build),
        })
    return {
        "policy": build.policy.description,
        "pools": rows,
        "budget_usd": build.recipe.limits.budget_usd,
        "price": price.model_dump(mode="json") if price else None,
    }


def _free(build: Prepared) -> float | None:
    """0 for a model that is not paid by the token; None where a price is missing."""
    return None if build.recipe.policy.kind in PAID else 0.0
