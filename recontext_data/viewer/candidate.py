"""One candidate, whole: its prompts under both contexts, its text, what was said about it, what it cost, where it came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from recontext_data.contexts.context import NONE
from recontext_data.contexts.stored_prompts import prompt_under
from recontext_data.core.budget import charge_of
from recontext_data.core.prices import Price
from recontext_data.policies.kinds import POLICIES
from recontext_data.reports.difference import ComparedTurn, compare_turns
from recontext_data.reports.text import LIMIT
from recontext_data.viewer.database import Database, name, source
from recontext_data.viewer.listing import about
from recontext_data.viewer.look import RunSnapshot
from recontext_data.viewer.runs import RunTables

TEXTS = ("completion", "reasoning")
"""Columns whose texts may be endless; they are read a piece at a time."""

PIECE = 100_000
"""Characters that `show more` adds."""


@dataclass(frozen=True)
class Text:
    """A stretch of a long text."""

    column: str
    part: str
    start: int
    length: int
    """Of the whole text, in characters."""

    @property
    def rest(self) -> int:
        """Characters behind this part."""
        return self.length - self.start - len(self.part)


@dataclass(frozen=True)
class ArmView:
    """What one arm makes of a candidate."""

    arm: str
    kept: bool | None
    reason: str
    training: str
    """The context of its row in this arm; the arm's own where it has none; empty where that is not known yet."""
    turns: list[ComparedTurn]
    """The generation prompt against the training prompt; empty where one is not known yet."""
    is_stored: bool
    """Whether the training prompt is read from the dataset, and not rendered anew."""


@dataclass(frozen=True)
class CandidatePage:
    """All of a candidate that its page needs."""

    row: dict[str, Any]
    texts: list[Text]
    messages: list[dict[str, str]]
    """The task without any context."""
    prompt: list[ComparedTurn]
    """What was sampled under; a context that is not known yet is missing from it."""
    knows_context: bool
    rewritings: list[ArmView]
    judgements: list[dict[str, Any]]
    siblings: list[dict[str, Any]]
    """All candidates of its task: candidate_id, generation_context, k."""
    cost_usd: float | None
    task: dict[str, Any]


def find(database: Database, look: RunSnapshot, candidate_id: str) -> CandidatePage | None:
    """The candidate of that id, if this run has it."""
    if "candidates" not in look.sources:
        return None
    row = _row(database, look, candidate_id)
    if row is None:
        return None
    task = _task(database, look, row["task_id"])
    generation = _rendered(look, task, row["generation_context"])
    siblings = (
        f"SELECT candidate_id, generation_context, k, row FROM {look.sources['candidates']} WHERE task_id = ? ORDER BY row"
    )
    return CandidatePage(
        row=row,
        texts=[_text(row, column) for column in TEXTS if row.get(column) is not None],
        messages=task["messages"],
        prompt=compare_turns(generation or task["messages"], generation or task["messages"]),
        knows_context=generation is not None,
        rewritings=list(_rewritings(database, look, row, task)),
        judgements=about(database, look, "judgements", [row]).get(candidate_id, []),
        siblings=database.rows(siblings, [row["task_id"]]),
        cost_usd=_cost(look, row),
        task=task,
    )


def text(database: Database, look: RunSnapshot, candidate_id: str, column: str, start: int) -> Text | None:
    """The next piece of one text; None where there is none."""
    if column not in TEXTS or "candidates" not in look.sources:
        return None
    sql = (
        f"SELECT substring({name(column)}, {int(start) + 1}, {PIECE}) AS part, length({name(column)}) AS length "
        f"FROM {look.sources['candidates']} WHERE candidate_id = ?"
    )
    found = database.rows(sql, [candidate_id])
    if not found or found[0]["part"] is None:
        return None
    return Text(column, found[0]["part"], start, found[0]["length"])


def of_task(database: Database, look: RunSnapshot, task_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A task and all its candidates, by context and rank, with their judgements; texts cut at `LIMIT`."""
    sql = f"SELECT {_columns(look)} FROM {look.sources['candidates']} c WHERE task_id = ? ORDER BY generation_context, k, row"
    rows = database.rows(sql, [task_id])
    judged = about(database, look, "judgements", rows)
    for row in rows:
        row["texts"] = [_text(row, column) for column in TEXTS if row.get(column) is not None]
        row["judgements"] = judged.get(row["candidate_id"], [])
    return _task(database, look, task_id), rows


def history(database: Database, run: RunTables, reply_key: str) -> dict[str, Any] | None:
    """What the reply store knows of a reply: when it was written and what was asked; None where it is not there."""
    from recontext_data.store import journal, segments

    if run.replies is None:
        return None
    paths = segments.listing(run.replies)
    if paths:
        found = database.rows(f"SELECT written, asked FROM {source(paths)} WHERE key = ? ORDER BY written LIMIT 1", [reply_key])
        if found:
            return _asked(found[0])
    for path in segments.listing(run.replies, "journal-*.jsonl"):
        for lines in journal.batches(path):
            for row in lines.rows:
                if row["key"] == reply_key:
                    return _asked(row)
    return None


def _asked(row: Mapping[str, Any]) -> dict[str, Any]:
    from recontext_data.store.asked import flat

    asked = orjson.loads(row["asked"]) if row["asked"] else {}
    return {"written": row["written"], "asked": [(key, str(value)) for key, value in flat(asked)]}


def _columns(look: RunSnapshot) -> str:
    """Every column, long texts cut, and the lengths of those."""
    columns = look.columns["candidates"]
    shown = [f"substring(c.{name(c)}, 1, {LIMIT}) AS {name(c)}" if c in TEXTS else f"c.{name(c)}" for c in columns]
    return ", ".join(shown + [f"length(c.{name(c)}) AS {name(f'length of {c}')}" for c in TEXTS if c in columns])


def _row(database: Database, look: RunSnapshot, candidate_id: str) -> dict[str, Any] | None:
    sql = f"SELECT {_columns(look)} FROM {look.sources['candidates']} c WHERE c.candidate_id = ?"
    return next(iter(database.rows(sql, [candidate_id])), None)


def _text(row: Mapping[str, Any], column: str) -> Text:
    return Text(column, row[column], 0, row[f"length of {column}"])


def _task(database: Database, look: RunSnapshot, task_id: str) -> dict[str, Any]:
    """The task's row; empty messages where tasks are not written yet."""
    if "tasks" in look.sources:
        found = database.rows(f"SELECT * FROM {look.sources['tasks']} WHERE task_id = ?", [task_id])
        if found:
            return found[0] | {"messages": [dict(turn) for turn in found[0]["messages"] or []]}
    return {"task_id": task_id, "split": None, "messages": [], "payload": None}


def _rendered(look: RunSnapshot, row: Mapping[str, Any], context: str) -> list[Any] | None:
    """A task's prompt under a context; None where it is not known: the context's text is in the manifest, which comes last."""
    if look.manifest is None and context != NONE:
        return None
    return prompt_under((look.manifest or {}).get("recipe", {}), row, context)


def _rewritings(database: Database, look: RunSnapshot, row: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[ArmView]:
    generation = _rendered(look, task, row["generation_context"])
    arms = {arm["name"]: arm for arm in (look.manifest or {}).get("arms", ())}
    selected = about(database, look, "selection", [dict(row)]).get(row["candidate_id"], [])
    for said in selected:
        stored, under = _stored_prompt(look.run, said["arm"], row["candidate_id"]) if said["kept"] else (None, "")
        under = under or _would_be_under(arms.get(said["arm"]), row["generation_context"])
        after = stored or _rendered(look, task, under)
        turns = compare_turns(generation, after) if generation is not None and after is not None else []
        yield ArmView(said["arm"], said["kept"], said["reason"], under, turns, stored is not None)


def _would_be_under(arm: Mapping[str, Any] | None, generation: str) -> str:
    """The context that an arm trains answers of this origin on under; the first where that hangs on judgements."""
    own = [part["training_context"] for part in (arm or {}).get("parts", ()) if part["generation_context"] == generation]
    return str(own[0] if own else (arm or {}).get("training_context", ""))


def _stored_prompt(run: RunTables, arm: str, candidate_id: str) -> tuple[list[dict[str, str]] | None, str]:
    """The prompt of the training row as it stands in the dataset, and the name of its context; None where it is not there.

    The file is mapped into memory, not read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    folder = next((path for path in (run.path / "arms").glob("*") if path.name == arm), None)
    for file in sorted(folder.glob("*/data-*.arrow")) if folder else ():
        with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as reader:
            for batch in reader:
                place = pc.index(batch.column("candidate_id"), candidate_id).as_py()
                if place >= 0:
                    under = batch.column("training_context")[place].as_py()
                    return [dict(turn) for turn in batch.column("prompt")[place].as_py()], str(under)
    return None, ""


def _cost(look: RunSnapshot, row: Mapping[str, Any]) -> float | None:
    """What the reply cost at list price; None where it was not paid by the token or no price is known."""
    recipe = (look.manifest or {}).get("recipe", {})
    policy = recipe.get("policy", {})
    if policy.get("kind") not in POLICIES.homes:
        return None
    own = {model: Price.model_validate(price, strict=False) for model, price in recipe.get("prices", {}).items()}
    cost = charge_of(POLICIES.config(policy["kind"]).model_construct(**policy), own)
    cached = orjson.loads(row["details"]).get("cached_tokens") if row.get("details") else None
    if cost.price is None:
        return None
    return cost.usd(
        prompt=row["prompt_tokens"] or 0,
        completion=row["completion_tokens"] or 0,
        cached=cached if isinstance(cached, int) else 0,
    )
