"""Compares the replies that a recipe needs with those that are stored, and says why the others are missing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recontext_data.config.loading import Loaded
from recontext_data.contexts.context import render
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import SamplingParams, content_hash
from recontext_data.pipeline.preparation import Prepared, prepared
from recontext_data.pipeline.preparation import plan as plan_of
from recontext_data.pipeline.purchase import asked_for
from recontext_data.reports import modes
from recontext_data.reports.replies import counted, minute, print_folded, print_table, print_warnings, show_result
from recontext_data.reports.text import one_line
from recontext_data.store.asked import flat, why
from recontext_data.store.replies import ReplyStore
from recontext_data.store.upkeep import asked_of

SHOWN = 8
"""Replies that are shown in full."""

EXPLAINED = 1000
"""Missing replies that are compared with stored ones."""


@dataclass(frozen=True)
class _Wanted:
    """A recipe's plan beside the store."""

    job: Prepared
    sampling: SamplingParams
    rows: pl.DataFrame
    """The plan's rows, with `there`."""

    def asked(self, row: dict[str, Any]) -> dict[str, Any]:
        """What goes into the key of one row."""
        contexts = {pool.name: pool.context for pool in self.job.pools}
        name = row["generation_context"]
        prompt = content_hash(render(self.job.by_id[row["task_id"]], contexts[name], name=name, how=self.job.recipe.how))
        return asked_for(prompt, dict(self.job.policy.identity), self.sampling, seed=row["seed"], k=row["k"])


def find_replies(
    loaded: Loaded, *, output: Path = Path(), task: str | None = None, context: str | None = None, k: int | None = None
) -> None:
    """Prints the replies that a recipe needs and which are stored; with task, context or k those replies one by one.

    Raises:
        RecipeError: the recipe needs no such reply.
    """
    given = {"task": task, "context": context, "k": None if k is None else str(k)}
    chosen = {key: value for key, value in given.items() if value is not None}
    store = ReplyStore(output / "replies")
    wanted = _wanted(loaded, output, store)
    rows = _choose(wanted.rows, chosen)
    if modes.mode() == "json":
        for row in rows.iter_rows(named=True):
            show_result("reply", row)
    elif chosen:
        _print_each(wanted, rows, store)
    else:
        _print_contexts(rows)
        _print_reasons(wanted, rows, store)
    print_warnings(store)


CHOICES = {"task": "task_id", "context": "generation_context", "k": "k"}
"""Options of `find` and the columns of the plan that they choose by."""


def _wanted(loaded: Loaded, output: Path, store: ReplyStore) -> _Wanted:
    """Plans the recipe as a build does; nothing is sampled."""
    sampler = loaded.recipe.sampler
    job = prepared(loaded.name, loaded.recipe, output=output)
    plan = plan_of(job, store)
    missing = [key for request in plan.requests for key in request.keys]
    rows = plan.wanted.table().with_columns(there=~pl.col("reply_key").is_in(missing))
    sampling = SamplingParams(temperature=sampler.temperature, top_p=sampler.top_p, max_tokens=sampler.max_tokens)
    return _Wanted(job, sampling, rows)


def _choose(rows: pl.DataFrame, chosen: dict[str, str]) -> pl.DataFrame:
    for option, value in chosen.items():
        known = [str(one) for one in rows[CHOICES[option]].unique(maintain_order=True)]
        if value not in known:
            more = did_you_mean(value, known if len(known) <= SHOWN or option == "task" else known[:SHOWN])
            hint = more if len(more) < 200 else f"the first is {known[0]!r}"
            raise RecipeError(f"{option}={value}: the recipe wants no such reply; {hint}")
        rows = rows.filter(pl.col(CHOICES[option]).cast(pl.String) == value)
    return rows


def _print_contexts(rows: pl.DataFrame) -> None:
    there = int(rows["there"].sum())
    print(f"{counted(len(rows), 'completion')} wanted, {there:,} there, {len(rows) - there:,} missing\n")
    table = rows.group_by("generation_context", maintain_order=True).agg(wanted=pl.len(), there=pl.col("there").sum())
    lines = [(name, f"{wanted:,}", f"{there:,}", f"{wanted - there:,}") for name, wanted, there in table.iter_rows()]
    print_table(["context", "wanted", "there", "missing"], lines)


def _print_reasons(wanted: _Wanted, rows: pl.DataFrame, store: ReplyStore) -> None:
    missing = rows.filter(~pl.col("there"))
    reasons = Counter(reason for _, _, reason in _reasons(wanted, missing.head(EXPLAINED), store))
    if reasons:
        print("\nwhy" + (f" (of the first {EXPLAINED:,})" if len(missing) > EXPLAINED else ""))
    for reason, number in reasons.most_common():
        print_folded(f"  {number:>9,}  ", reason)


def _reasons(wanted: _Wanted, rows: pl.DataFrame, store: ReplyStore) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """(row, what it asks for, how the nearest stored reply differs) of rows that are missing."""
    pairs = [(row, wanted.asked(row)) for row in rows.iter_rows(named=True)]
    stored = asked_of(store, {asked["prompt"] for _, asked in pairs}) if pairs else {}
    for row, asked in pairs:
        yield row, asked, why(asked, stored.get(asked["prompt"], []))


def _print_each(wanted: _Wanted, rows: pl.DataFrame, store: ReplyStore) -> None:
    shown = rows.head(SHOWN)
    missing = {row["reply_key"]: reason for row, _, reason in _reasons(wanted, shown.filter(~shown["there"]), store)}
    replies = {reply["key"]: reply for reply in store.find(shown["reply_key"]).iter_rows(named=True)}
    for row in shown.iter_rows(named=True):
        key = row["reply_key"]
        print(f"task {row['task_id']}, context {row['generation_context']}, k {row['k']}")
        print_folded("  there        ", _there(replies[key]) if key in replies else f"no: {missing[key]}")
        print_folded("  key          ", key)
        _print_asked(wanted.asked(row))
        print()
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN:,} more; narrow it with task=, context= and k=")


def _print_asked(asked: dict[str, Any]) -> None:
    for name, value in flat(asked):
        print_folded(f"  {name:12} ", str(value))


def _there(reply: dict[str, Any]) -> str:
    return f"yes: by {one_line(reply['model'], limit=40) or '?'}, written {minute(reply['written'])}"
