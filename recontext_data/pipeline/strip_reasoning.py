"""Stage completion: kept candidates in, the same with their reasoning kept, dropped or rewritten out.

Stands between select and recontextualize. A completion whose answer cannot be told from its reasoning is dropped with that
reason, as is one for which the rewriter gave nothing that can be used. Rewritten reasoning is bought as completions are: it is
on disk before it counts, and never paid for twice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Completion, Limits, Recipe, Rewriter
from recontext_data.core.budget import Budget, PaidByToken, charge_of
from recontext_data.core.completions import after_thinking, joined, split_reasoning
from recontext_data.core.records import Message, SamplingParams, Task
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.pipeline import sample
from recontext_data.pipeline.purchase import buy
from recontext_data.pipeline.sample import Pool
from recontext_data.pipeline.selected_rows import BATCH, CompletionTransform, ForwardParquetReader
from recontext_data.policies.base import Policy
from recontext_data.policies.openai.http import read_key
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from recontext_data.reports.screen import Screen

UNREADABLE = "the answer cannot be told from the reasoning"
UNUSABLE = "the rewritten reasoning is empty, cut off or hides the answer"
POOL = "rewriter"
"""What a rewriter's requests are tagged with, for the screen and for a scripted one."""


@dataclass(kw_only=True)
class ReasoningRewriter:
    """The rewriter of a build, its store and its money; one for all arms, so that what they share is bought once."""

    config: Rewriter
    limits: Limits
    store: ReplyStore
    screen: "Screen"
    purse: Budget
    policy: Policy
    seen: set[str] = field(default_factory=set)
    """Keys of the replies that some arm has asked for."""
    counts: dict[str, int] = field(default_factory=lambda: {"wanted": 0, "found": 0, "sampled": 0, "failed": 0})

    def spend_after(self, purse: Budget) -> None:
        """Leaves it what the completions left of the budget."""
        if self.purse.budget_usd is not None:
            self.purse.budget_usd = max(0.0, self.purse.budget_usd - purse.spent_usd)

    def texts(self, answers: Mapping[str, str], tasks: Mapping[str, Task]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Candidate id -> reasoning (None: cut off), and candidate id -> why there is none.

        Args:
            answers: candidate id -> answer.
            tasks: candidate id -> its task.

        Raises:
            BuildStopped: too many failed, or the budget is spent; what came is kept.
        """
        prompts = [
            Task(task_id=name, messages=_prompt(self.config, tasks[name], answer), payload={}, split="")
            for name, answer in answers.items()
        ]
        how = SamplingParams(temperature=self.config.temperature, max_tokens=self.config.max_tokens)
        pool = Pool(name=POOL, context=None, n=1, role="arms")
        identity = dict(self.policy.identity)
        plan = sample.plan(prompts, [pool], sampling=how, seed=0, identity=identity, store=self.store)
        failures = self._buy(plan)
        found = sample.collect(plan, store=self.store, failures=failures, bought=0).candidates
        rows = found.select("task_id", "completion", "finish_reason").iter_rows()
        texts = {name: None if finish == "length" else text for name, text, finish in rows}
        lost = plan.wanted.table().join(found, on="candidate_id", how="anti").select("task_id", "reply_key").iter_rows()
        return texts, {name: failures.get(key, "no reply") for name, key in lost}

    def _buy(self, plan: sample.Plan) -> dict[str, str]:
        """What failed and why, by key. Replies of an earlier build cost what they cost; another arm's are counted there."""
        import polars as pl

        missing = {key for request in plan.requests for key in request.keys}
        wanted = {key for part in plan.wanted for key in part["reply_key"]}
        found = wanted - missing - self.seen
        self.seen |= wanted
        if self.purse.price is not None:
            stored = self.store.find(pl.Series(sorted(found), dtype=pl.String))
            self.purse.spent_usd += sample.cost_usd(stored, self.purse.price, factor=self.purse.factor)
        failures: dict[str, str] = {}
        if missing:
            if isinstance(self.config.policy, PaidByToken):
                read_key(self.config.policy.api_key_env)
            self.screen.note(f"rewriter: {self.policy.description}")
            limit = int(self.limits.max_failure_rate * len(wanted))
            with self.screen.stage("rewrite", len(missing), unit="completions") as tracker:
                how: dict[str, Any] = {"tracker": tracker, "max_failures": limit, "purse": self.purse}
                failures = asyncio.run(self._ask(plan, **how))
        parts = (len(found | missing), len(found), len(missing) - len(failures), len(failures))
        for name, number in zip(self.counts, parts, strict=True):
            self.counts[name] += number
        return failures

    async def _ask(self, plan: sample.Plan, **how: Any) -> dict[str, str]:
        policy = self.config.policy.build()  # one per arm: a policy's connections do not outlive its event loop
        try:
            return await buy(plan.requests, policy=policy, store=self.store, **how)
        finally:
            await policy.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What was asked and spent, for the manifest."""
        spent = self.purse.spent_usd if self.purse.price else None
        return {"policy": {"description": self.policy.description}, "requests": dict(self.counts), "cost_usd": spent}


def rewriting(recipe: Recipe, *, store: ReplyStore, screen: "Screen") -> ReasoningRewriter | None:
    """The rewriter of a recipe, or None; made before anything is sampled, since what it lacks must not be found out after.

    Raises:
        RecipeError: there is a budget and no price of the rewriter's model.
        PolicyError, SetupError: it cannot be sampled.
    """
    config = recipe.completion.rewriter
    if config is None:
        return None
    cost, purse = charge_of(config.policy, recipe.prices), Budget(budget_usd=recipe.limits.budget_usd)
    cost.require_price(purse.budget_usd)
    purse.charge(cost)
    return ReasoningRewriter(
        config=config, limits=recipe.limits, store=store, screen=screen, purse=purse, policy=config.policy.build()
    )


def complete(
    kept: "pl.DataFrame",
    *,
    candidates: Path,
    config: Completion,
    arm: str,
    tasks: Mapping[str, Task],
    rewriter: ReasoningRewriter | None,
) -> "tuple[pl.DataFrame, list[LedgerEntry], CompletionTransform | None]":
    """The kept candidates of which there is a completion to train on, a ledger entry, and what makes that completion of the
    one in `candidates`, the table of candidates; `kept` has their places in it. No entry where all stay as they are.

    Without a rewriter texts are held batch by batch; rewritten reasoning is held.
    """
    import polars as pl

    if config.reasoning == "keep":
        return kept, [], None
    cursor = ForwardParquetReader(candidates, ["candidate_id", "completion"])
    answers: dict[str, str] = {}
    is_told = []
    for part in kept.iter_slices(BATCH):
        rows = cursor.rows(part["place"].to_numpy())
        told = _answers(rows, config)
        is_told += [answer is not None for answer in told]
        if rewriter is not None:
            answers |= {
                name: text for name, text in zip(rows["candidate_id"].to_pylist(), told, strict=True) if text is not None
            }
    drops = [UNREADABLE] * is_told.count(False)
    made, retold = kept.filter(pl.Series(is_told, dtype=pl.Boolean)), partial(_stripped, config=config)
    if rewriter is not None:
        texts, lost = _rewritten_all(answers, rewriter, config, tasks=tasks, owners=made)
        made, retold = made.filter(pl.col("candidate_id").is_in(list(texts))), partial(_looked_up, texts=texts)
        drops += lost
    return made, [entry("completion", arm, rows_in=len(kept), kept=len(made), drops=drops)], retold


def _answers(rows: "pa.Table", config: Completion) -> list[str | None]:
    """What stands after the reasoning; None where that cannot be told."""
    parts = [split_reasoning(text, marks=config.marks) for text in rows["completion"].to_pylist()]
    return [None if part is None else part[1] for part in parts]


def _stripped(rows: "pa.Table", *, config: Completion) -> "pa.Array":
    import pyarrow as pa

    return pa.array(_answers(rows, config), type=pa.string())


def _looked_up(rows: "pa.Table", *, texts: Mapping[str, str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array([texts[name] for name in rows["candidate_id"].to_pylist()], type=pa.string())


def _rewritten_all(
    answers: Mapping[str, str],
    rewriter: ReasoningRewriter,
    config: Completion,
    *,
    tasks: Mapping[str, Task],
    owners: "pl.DataFrame",
) -> tuple[dict[str, str], list[str]]:
    """The completions with rewritten reasoning by candidate id, and why the others are dropped."""
    own = {name: tasks[task] for name, task in owners.select("candidate_id", "task_id").iter_rows()}
    reasonings, lost = rewriter.texts(answers, own)
    texts, drops = {}, []
    for name, reasoning in reasonings.items():
        text = _rewritten(reasoning, answers[name], config)
        if text is None:
            drops.append(UNUSABLE)
        else:
            texts[name] = text
    return texts, drops + [f"rewriter: {why}" for why in lost.values()]


def _rewritten(reasoning: str | None, answer: str, config: Completion) -> str | None:
    """The completion with its new reasoning; None where it cannot be used."""
    thought = (after_thinking(reasoning) or "").strip() if reasoning is not None else ""
    if not thought:
        return None
    text = joined(thought, answer, marks=config.marks)
    parts = split_reasoning(text, marks=config.marks)
    # An open fence or tag in the reasoning would swallow the answer.
    return text if parts is not None and parts[1].strip() == answer.strip() else None


def _prompt(config: Rewriter, task: Task, answer: str) -> list[Message]:
    asked = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in task.messages)
    text = f"Task:\n\n{asked}\n\nAnswer:\n\n{answer}"
    return [{"role": "system", "content": config.instruction}, {"role": "user", "content": text}]
