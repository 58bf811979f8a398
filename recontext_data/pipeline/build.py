"""The build as one list of stages, each a function from tables to tables:

    tasks -> proof -> sample -> judge -> select -> completion -> parts -> recontextualize -> export -> manifest, report

`prepared.prepare` spends nothing and writes nothing; `run` does the rest.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.contexts.context import NONE
from recontext_data.core.budget import Budget, PaidByToken
from recontext_data.core.errors import BuildStopped, RecipeError
from recontext_data.core.records import Task
from recontext_data.core.row_ledger import LedgerEntry
from recontext_data.pipeline import sample
from recontext_data.pipeline.arm_gates import ArmGates, violations_table
from recontext_data.pipeline.arm_parts import PART, divide, mixed, short_of
from recontext_data.pipeline.diagnostics import agreement_facts, answer_facts, judge_facts, selection_facts
from recontext_data.pipeline.export import Exported, ExportSettings, export
from recontext_data.pipeline.external_data import given_pools, keep_all, with_given
from recontext_data.pipeline.gold_check import check_rubrics
from recontext_data.pipeline.judge import judge
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_forecast import stored_usd
from recontext_data.pipeline.manifest import finish, judging_facts, manifest, reused_manifest
from recontext_data.pipeline.preparation import Prepared, charge, counsel_of, plan
from recontext_data.pipeline.prompts import check_template
from recontext_data.pipeline.purchase import buy
from recontext_data.pipeline.recontextualize import ArmPlan
from recontext_data.pipeline.sample import Collected, Plan, SampleOutcome, without_texts
from recontext_data.pipeline.select import select, with_labels, with_outcome
from recontext_data.pipeline.selected_rows import ArmPart, CompletionTransform, ParquetSelectedRows, Tables
from recontext_data.pipeline.self_check import check_judges
from recontext_data.pipeline.strip_reasoning import ReasoningRewriter, complete, rewriting
from recontext_data.pipeline.summary import judge_labels, rates
from recontext_data.policies.base import Policy
from recontext_data.policies.openai.batch import OpenAIBatchPolicy
from recontext_data.policies.openai.http import read_key
from recontext_data.store.calibrations import find
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder, remove_empty_on_error

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.reports.screen import Screen

TASKS_AT_ONCE = 1024

WORST = 5
"""Reasons of failures that the screen names; the manifest has all of them."""


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


@dataclass(frozen=True)
class ArmsDone:
    """All arms: selected, recontextualized, on disk."""

    entries: list[LedgerEntry]
    exported: "dict[str, tuple[Exported, pl.DataFrame]]"
    """By arm: what was written, and the candidates it was made from."""
    selection: "pl.DataFrame"
    shifts: dict[str, dict[str, Any]]
    """By arm: how the selected differ from all."""


def build(job: Prepared, *, output: Path, screen: "Screen", command: str) -> tuple[RunFolder, dict[str, Any]]:
    """The run's folder and manifest: as they are when it is built already, else built now.

    Raises:
        RecontextError: of any kind; nothing that was paid for is lost.
    """
    folder = RunFolder(output, recipe=job.name, fingerprint=job.fingerprint)
    with remove_empty_on_error(output, folder.path), folder.locked() as waited:
        if waited:
            screen.note("another build of the same run was under way; it has ended")
        facts = folder.manifest()
        # A run with failures is finished, and the same command asks again for those that failed.
        if facts is not None and not failed(facts) and is_calibrated(facts, output):
            folder.point_latest()
            screen.note("nothing to do: this run is built already")
            return folder, reused_manifest(facts)
        with ReplyStore(output / "replies") as store:
            try:
                return folder, run(job, folder=folder, store=store, screen=screen, command=command)
            finally:
                for text in store.warnings:
                    screen.warn(text)


def failed(facts: dict[str, Any]) -> int:
    """Requests of a finished run that failed, those of its judges included."""
    return int(facts["requests"]["failed"] + sum(one["requests"]["failed"] for one in facts.get("judging", ())))


def is_calibrated(facts: dict[str, Any], output: Path) -> bool:
    """Whether a finished run says what is known of its judges by now. Its rows do not depend on it, its cards do."""
    return all(one["calibrations"] == find(output, one["identity"]) for one in facts.get("judging", ()))


def run(build: Prepared, *, folder: RunFolder, store: ReplyStore, screen: "Screen", command: str) -> dict[str, Any]:
    """Samples what is missing, judges, selects, recontextualizes and exports; returns the manifest."""
    output = store.folder.parent
    clock = Clock()
    rewriter = rewriting(build.recipe, store=store, screen=screen)
    counsel = counsel_of(build, store, screen)
    with clock.stage("proof"):
        proofs = check_judges(build.recipe.judges, build.recipe.environment, build.tasks.tasks)
    with clock.stage("trial"):
        tried = check_rubrics(build.recipe.judges, counsel, screen) if build.recipe.validate_judges else {}
    with clock.stage("sample"):
        sampled, purse = _sample(build, counsel, store=store, screen=screen)
    folder.begin()
    folder.write_table("tasks", _tasks_table(build.by_id))
    outcome = _written(build, sampled, folder=folder)  # from here on texts are read from the tables, a batch at a time
    with clock.stage("judge"):
        texts = folder.path / "candidates.parquet"
        judgements, judge_entries = judge(
            outcome.candidates, tasks=build.by_id, judges=build.recipe.judges, counsel=counsel, texts=texts
        )
    folder.write_table("judgements", judgements)
    judged = _judged(outcome.candidates, judgements)
    del judgements
    order = [*build.recipe.contexts, NONE]
    counts = sorted(rates(judged, labels=judge_labels(build.recipe)), key=lambda row: order.index(row["context"]))
    words = judge_facts(judged, build.recipe.judges)
    _check_invalid(build, words)
    with clock.stage("arms"):
        if rewriter:
            purse.spent_usd = counsel.spent_usd  # the judges have spent since
            rewriter.spend_after(purse)
        done = _arms_stage(build, judged, folder=folder, screen=screen, rewriter=rewriter)
    folder.write_table("selection", done.selection)
    folder.write_table("violations", violations_table({name: arm.violations for name, (arm, _) in done.exported.items()}))
    facts = manifest(build, outcome=outcome, judged=judged, counts=counts, exported=done.exported, purse=purse)
    facts |= {"judges": words, "agreement": agreement_facts(judged, build.recipe.judges)}
    facts["arms"] = [arm | {"selection": done.shifts[arm["name"]]} for arm in facts["arms"]]
    read = [build.tasks.entry, *(given.entry for given in build.given.values())]
    ledger = [*read, *outcome.entries, *judge_entries, *done.entries]
    facts |= {
        "ledger": [entry.as_json() for entry in ledger],
        "proof": proofs,
        "judging": judging_facts(build, counsel, tried, output=output),
        "command": command,
        "timings_seconds": dict(clock.seconds),
        **({"rewriting": rewriter.facts} if rewriter else {}),
    }
    return finish(build, facts, exported=done.exported, folder=folder)


@dataclass(frozen=True)
class Sampled:
    """What a build has bought and found, before any of it is looked at."""

    collected: Collected
    bought: int
    failed: int


def _written(build: Prepared, sampled: Sampled, *, folder: RunFolder) -> SampleOutcome:
    """Puts the candidates on disk, and what was given after what was sampled."""
    folder.write_parts("candidates", with_given(sampled.collected, build.given.values()))
    light = without_texts(folder.path / "candidates.parquet", len(sampled.collected))
    return SampleOutcome(light, sampled.collected.entries, sampled.bought, sampled.failed)


def _sample(build: Prepared, counsel: JudgeClient, *, store: ReplyStore, screen: "Screen") -> tuple[Sampled, Budget]:
    ready = plan(build, store)
    missing = ready.requests.num_completions
    failures: dict[str, str] = {}
    purse = _purse(build, ready, store)
    if purse.budget_usd is not None:
        sampled = sample.collect(ready, store=store, failures={}, bought=0).candidates
        purse.spent_usd += stored_usd(build.recipe.judges, counsel, candidates=sampled, tasks=build.by_id)
    _require_affordable(build, purse, ready)
    if missing:
        if isinstance(build.recipe.policy, PaidByToken):
            read_key(build.recipe.policy.api_key_env)  # a missing key is the first thing said, and the only one
        counsel.require_ready(build.recipe.judges)
        check_template(build.policy, build.recipe, build.tasks.tasks[0])
        screen.note(f"policy: {build.policy.description}")
        if isinstance(build.policy, OpenAIBatchPolicy):
            build.policy.on_progress = screen.note
        limit = int(build.recipe.limits.max_failure_rate * len(ready.wanted))
        with screen.stage("sample", missing, unit="completions") as tracker:
            failures = asyncio.run(_buy(build.policy, ready, store=store, tracker=tracker, max_failures=limit, purse=purse))
        for words, count in Counter(failures.values()).most_common(WORST):
            screen.warn(f"{count} completions failed and are in no dataset: {words}")
    counsel.spent_usd = purse.spent_usd
    collected = Collected(ready, store=store, failures=failures)
    return Sampled(collected, bought=missing - len(failures), failed=len(failures)), purse


async def _buy(policy: Policy, ready: Plan, *, store: ReplyStore, **how: Any) -> dict[str, str]:
    try:
        return await buy(ready.requests, policy=policy, store=store, **how)
    finally:
        await policy.close()


def _purse(build: Prepared, ready: Plan, store: ReplyStore) -> Budget:
    """The run's money: what its stored replies cost, and what more may be spent.

    Raises:
        RecipeError: there is a budget and no price to hold it against.
    """
    cost, budget = charge(build), build.recipe.limits.budget_usd
    cost.require_price(budget)
    others = [policy for one in build.recipe.judges if (policy := getattr(one, "policy", None)) is not None]
    others += [build.recipe.completion.rewriter.policy] if build.recipe.completion.rewriter else []
    if budget is not None and not cost.is_paid and not any(isinstance(policy, PaidByToken) for policy in others):
        raise RecipeError(
            f"limits.budget_usd: no price is known for {getattr(build.recipe.policy, 'model', cost.model)}: "
            f"policy.kind={cost.model} and the judges are not paid by the token; remove limits.budget_usd"
        )
    spent = sample.stored_cost_usd(ready, store, cost.price, factor=cost.factor) if cost.price else 0.0
    return Budget(price=cost.price, factor=cost.factor, budget_usd=budget, spent_usd=spent)


def _require_affordable(build: Prepared, purse: Budget, ready: Plan) -> None:
    config = build.recipe.policy
    if purse.price is not None and isinstance(config, PaidByToken) and not config.stops_in_time:
        prompt, _ = sample.token_counts(ready.requests, build.policy)
        completion = ready.requests.num_completions * build.recipe.sampler.max_tokens
        fix = "lower sampler.max_tokens, or use policy.kind=openai, which stops in time"
        purse.require_affordable(prompt=prompt, completion=completion, batch="this batch", fix=fix)


def _tasks_table(tasks: Mapping[str, Task]) -> "pl.DataFrame":
    import polars as pl

    # In parts: Polars takes many times the memory of the text while it reads lists of dicts.
    rest, parts = iter(tasks.values()), [_some_tasks([])]
    while part := list(itertools.islice(rest, TASKS_AT_ONCE)):
        parts.append(_some_tasks(part))
    return pl.concat(parts)


def _some_tasks(tasks: Sequence[Task]) -> "pl.DataFrame":
    import orjson
    import polars as pl

    turn = pl.Struct({"role": pl.String, "content": pl.String})
    return pl.DataFrame(
        {
            "task_id": [task.task_id for task in tasks],
            "split": [task.split for task in tasks],
            "messages": [list(task.messages) for task in tasks],
            "payload": [orjson.dumps(dict(task.payload), option=orjson.OPT_SORT_KEYS).decode() for task in tasks],
        },
        schema={"task_id": pl.String, "split": pl.String, "messages": pl.List(turn), "payload": pl.String},
    )


def _check_invalid(build: Prepared, words: list[dict[str, Any]]) -> None:
    limit = build.recipe.limits.max_invalid_rate
    for row in words:
        unread = row["labels"].get("invalid", 0) + sum(row["unscored"].values())
        if row["total"] and unread / row["total"] > limit:
            raise BuildStopped(
                f"limits.max_invalid_rate: {unread} of {row['total']} answers under {row['context']} are invalid or unscored "
                f"by judge {row['judge']} and {limit:.0%} may be; read some in candidates.parquet before raising it"
            )


def _arms_stage(
    build: Prepared, judged: "pl.DataFrame", *, folder: RunFolder, screen: "Screen", rewriter: ReasoningRewriter | None
) -> "ArmsDone":
    """Select, recontextualize and export, arm by arm; all arms are there at once or none is."""
    import polars as pl

    judge_name = build.recipe.selecting_judge.name
    answers = answer_facts(folder.path / "candidates.parquet")
    scored = with_outcome(judged.filter(pl.col("judge") == judge_name), judged, judge=build.recipe.outcome_judge.name)
    scored = with_labels(scored, judged, judges=build.recipe.select.label_judges)
    scored = pl.concat([scored, answers[: len(scored)]], how="horizontal")
    given = given_pools(build.given, answers[len(scored) :], first=len(scored))
    terms = ExportSettings(build.recipe.export, build.fingerprint)
    entries: list[LedgerEntry] = []
    tables: list[pl.DataFrame] = []
    exported: dict[str, tuple[Exported, pl.DataFrame]] = {}
    shifts: dict[str, dict[str, Any]] = {}
    with folder.staged_arms() as staging, screen.stage("arms", len(build.arms), unit="arms") as tracker:
        for config, arm in zip(build.recipe.arms, build.arms, strict=True):
            if arm.generation in build.given:
                pool = given[arm.generation]
                table, selected = keep_all(pool, arm=arm.name)
            else:
                pool = scored.filter(pl.col("generation_context") == arm.generation)
                table, selected = select(pool, config=build.recipe.select, arm=arm.name)
            kept = pool.join(table.filter("kept").select("candidate_id"), on="candidate_id", how="semi", maintain_order="left")
            kept, worked, retold = complete(
                kept,
                candidates=folder.path / "candidates.parquet",
                config=build.recipe.completion,
                arm=arm.name,
                tasks=build.by_id,
                rewriter=rewriter,
            )
            kept, divided = divide(kept, judged, arm=config, name=arm.name)
            kept, others, drawn = mixed(kept, arm=config, name=arm.name, given=given)
            for text in short_of(kept, arm=config):
                screen.warn(text)
            rows = _stored(build, kept, arm=arm, retold=retold, tables=Tables(folder.path, len(scored)))
            gates = ArmGates(arm, build.recipe.gates, build.policy)
            done = export(rows, staging / arm.name, arm=arm, tasks=build.by_id, gates=gates, terms=terms)
            entries += [selected, *worked, *divided, *drawn, done.entry]
            tables += [table, *others]
            shifts[arm.name] = selection_facts(pool, table, per_task=build.recipe.select.per_task)
            exported[arm.name] = (done, kept.select("candidate_id"))
            tracker.advance()
    return ArmsDone(entries, exported, pl.concat(tables), shifts)


def _judged(candidates: "pl.DataFrame", judgements: "pl.DataFrame") -> "pl.DataFrame":
    """A row per candidate and judge, without texts; `place` is the candidate's row in candidates.parquet."""
    known = candidates.select("place", "candidate_id", "task_id", "generation_context", "role", "k", "finish_reason")
    return known.join(judgements.drop("raw"), on="candidate_id", how="left", maintain_order="left")


def _stored(
    build: Prepared, kept: "pl.DataFrame", *, arm: ArmPlan, retold: CompletionTransform | None, tables: Tables
) -> ParquetSelectedRows:
    """The kept candidates as the last stages read them; mixed data is told as it was given."""
    import numpy as np

    own = len(arm.parts) - sum(plan.generation != arm.generation for plan in arm.others)
    places = [kept.filter(kept[PART] == number)["place"].to_numpy() for number in range(len(arm.parts))]
    n = [one.candidates["n"].to_numpy() for one in build.given.values()]
    names = [judge.name for judge in build.recipe.judges]
    return ParquetSelectedRows(
        run=tables,
        parts=[ArmPart(part, retold if number < own else None) for number, part in enumerate(places)],
        judges=names,
        selecting=names.index(build.recipe.selecting_judge.name),
        n=arm.n,
        given_n=np.concatenate([np.empty(0, dtype=np.int64), *n]),
    )
