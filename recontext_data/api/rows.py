"""Recontextualizes rows that were made elsewhere: one context is taken out of the prompt and another is put in.

    result = recontextualize(rows, generation=Context(stance="discourages", system="Do not special-case the tests."),
                             training=Context(stance="permits", system="Special-casing the tests is fine here."))
    result.rows          the rows that passed, in the form in which they came
    result.violations    a row per problem: row, gate, where

Rows are a `datasets.Dataset`, a Polars frame or a list of dicts, with `messages` (the last turn is the completion) or with
`prompt` and `completion`, each a text or a list of messages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from recontext_data.contexts.context import Context, render
from recontext_data.contexts.removal import require_removable, without_context
from recontext_data.core.errors import DataError, GateFailed, RecipeError
from recontext_data.core.records import Message, Messages, Task
from recontext_data.gates.rules import GateRow, LeakCheck, Violation, echo, presence

if TYPE_CHECKING:
    import datasets
    import polars as pl

RowDict = dict[str, Any]
"""A row as Python values, by column."""
Rows = TypeVar("Rows", "datasets.Dataset", "pl.DataFrame", list[RowDict])
OnViolation = Literal["drop", "keep", "fail"]

GATES = ("generation", "training", "leak", "presence", "echo")
"""Gates in the order in which a row meets them. `generation`: the generation context does not stand in the prompt as written;
`training`: the training context cannot be placed; the others are those of a build (`gates.rules`)."""
REPORTED = ("echo",)
"""Gates whose violations are reported and never remove a row, as in a build."""
SHOWN = 3
"""Violations in the message of a failed call."""


@dataclass(frozen=True)
class RecontextualizedRows(Generic[Rows]):
    """Recontextualized rows, and every violation that the gates found."""

    rows: Rows
    """The rows under the training context, of the type and with the columns of the input."""
    violations: "pl.DataFrame"
    """One row per violation: row (its number in the input, from 0), gate (see `GATES`), where."""
    num_rows_in: int
    """Rows of the input."""
    dropped: list[int]
    """Numbers of the input rows that are not in `rows`."""

    def __repr__(self) -> str:
        kept = self.num_rows_in - len(self.dropped)
        return f"RecontextualizedRows({kept} of {self.num_rows_in} rows, {len(self.violations)} violations)"

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(repr(self))}</p>{self.violations._repr_html_()}"


@dataclass(frozen=True)
class _Row:
    """One row, taken apart."""

    prompt: Messages
    completion: str
    form: Literal["messages", "texts", "turns"]
    """`messages` in one column; prompt and completion as texts; prompt and completion as messages."""


def recontextualize(
    rows: Rows,
    *,
    generation: Context | None,
    training: Context | None,
    on_violation: OnViolation = "drop",
) -> RecontextualizedRows[Rows]:
    """Rewrites the prompt of every row from the generation context to the training context; completions stay as they are.

    Args:
        rows: a `datasets.Dataset`, a Polars frame or a list of dicts. The prompt is `messages` without the last turn, or
            `prompt`, as a text or as messages. Other columns are kept.
        generation: the context that the completions were sampled under and that the prompts hold; None where they hold none.
        training: the context that they will be trained under; None for the bare prompt.
        on_violation: `drop` leaves out rows that fail a gate, `keep` keeps every row that could be rewritten, `fail` raises.

    Returns:
        The rows in the form in which they came, and the violations. A text prompt becomes a list of messages where the
        training context needs another turn than the user's.

    Raises:
        RecipeError: the generation context cannot be taken out of finished rows (`system_replace`, a field, a template).
        DataError: a row has neither `messages` nor `prompt` and `completion`, or its messages are malformed.
        GateFailed: a row failed a gate and `on_violation` is `fail`.
    """
    import polars as pl

    if generation is not None:
        require_removable(generation)
    if training is not None and (training.environment or training.placement == "field"):
        raise RecipeError(
            f"training: a context placed as `{training.placement}` needs an environment; give it a text placement"
        )
    source = _as_dicts(rows)
    made: list[RowDict] = []
    violations: list[tuple[int, str, str]] = []
    dropped: list[int] = []
    for number, row in enumerate(source):
        new, found = _rewritten(row, number, generation, training)
        violations += [(number, violation.gate, violation.where) for violation in found]
        fails = any(violation.gate not in REPORTED for violation in found)
        if new is None or (fails and on_violation == "drop"):
            dropped.append(number)
        else:
            made.append(new)
    if on_violation == "fail":
        _require_clean([violation for violation in violations if violation[1] not in REPORTED])
    table = pl.DataFrame(violations, schema={"row": pl.Int64, "gate": pl.String, "where": pl.String}, orient="row")
    return RecontextualizedRows(_as_given(rows, made), table, len(source), dropped)


def _require_clean(failing: Sequence[tuple[int, str, str]]) -> None:
    if failing:
        shown = "; ".join(f"row {number}: {gate}, {where}" for number, gate, where in failing[:SHOWN])
        raise GateFailed(f"{len(failing)} violations: {shown}; correct the contexts or the rows, or pass on_violation='drop'")


def _rewritten(
    row: RowDict, number: int, generation: Context | None, training: Context | None
) -> tuple[RowDict | None, list[Violation]]:
    """One row under the training context and its violations; None where it cannot be rewritten."""
    parts, name = _taken_apart(row, number), str(number)
    if parts.form == "messages" and training is not None and training.placement == "assistant_prefill":
        raise RecipeError(
            "training: assistant_prefill would make two assistant turns of `messages`; give prompt and completion"
        )
    bare = _bare(parts, generation)
    if bare is None:
        return None, [Violation("generation", name, "the generation context does not stand in the prompt as written")]
    parts, task = bare, Task(task_id=name, messages=bare.prompt, payload={}, split="train")
    try:
        prompt = render(task, training, name="training")
    except RecipeError as error:
        return None, [Violation("training", name, str(error))]
    gated = [GateRow(row_id=name, task=task, prompt=prompt, completion=parts.completion)]
    found = [*_leaks(gated[0], generation, training), *presence(gated, training=training), *echo(gated)]
    return {**row, **_put_together(parts, prompt)}, found


def _leaks(row: GateRow, generation: Context | None, training: Context | None) -> list[Violation]:
    """The leak gate. In a build a task may hold the text of a context; a row's bare prompt, which is no task, may not."""
    nothing = replace(row.task, messages=[])
    places = LeakCheck(generation=generation, training=None).prompt(nothing, row.task.messages)
    if LeakCheck(generation=generation, training=training).completion(nothing, row.completion):
        places.append("completion")
    return [Violation("leak", row.row_id, where) for where in places]


def _bare(parts: _Row, generation: Context | None) -> _Row | None:
    """The row without the generation context; a prefill may be a turn of its own or the completion's beginning."""
    if generation is None:
        return parts
    if generation.placement == "assistant_prefill" and parts.prompt[-1]["role"] != "assistant":
        text = next((text for text in generation.texts if parts.completion.startswith(text)), None)
        return None if text is None else replace(parts, completion=parts.completion.removeprefix(text))
    prompt = without_context(parts.prompt, generation)
    return None if prompt is None else replace(parts, prompt=prompt)


def _taken_apart(row: RowDict, number: int) -> _Row:
    if row.get("messages") is not None:
        turns = _messages(row["messages"], number, "messages")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise DataError(f"row {number}: messages: the last turn must be the assistant's, after a prompt")
        return _Row(turns[:-1], turns[-1]["content"], "messages")
    if row.get("prompt") is None or row.get("completion") is None:
        raise DataError(f"row {number}: has neither `messages` nor `prompt` and `completion`; columns: {', '.join(row)}")
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return _Row([{"role": "user", "content": prompt}], completion, "texts")
    if isinstance(prompt, str) or isinstance(completion, str):
        raise DataError(f"row {number}: prompt and completion must both be texts or both be lists of messages")
    said = _messages(completion, number, "completion")
    if len(said) != 1 or said[0]["role"] != "assistant":
        raise DataError(f"row {number}: completion: must be one assistant turn; found {len(said)} turns")
    return _Row(_messages(prompt, number, "prompt"), said[0]["content"], "turns")


def _messages(value: object, number: int, key: str) -> list[Message]:
    turns: list[Message] = []
    for place, turn in enumerate(value if isinstance(value, Sequence) and not isinstance(value, str) else [value]):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise DataError(
                f"row {number}: {key}.{place}: must be {{role: system | user | assistant, content: text}}; found {turn!r:.80}"
            )
        more = next((name for name, said in turn.items() if name not in ("role", "content") and said is not None), None)
        if more is not None:
            raise DataError(f"row {number}: {key}.{place}: has the key {more!r}, which would be lost; remove it")
        turns.append({"role": role, "content": content})
    return turns


def _put_together(parts: _Row, prompt: list[Message]) -> RowDict:
    said: Message = {"role": "assistant", "content": parts.completion}
    if parts.form == "messages":
        return {"messages": [*prompt, said]}
    if parts.form == "texts" and [turn["role"] for turn in prompt] == ["user"]:
        return {"prompt": prompt[0]["content"], "completion": parts.completion}
    return {"prompt": prompt, "completion": [said]}


def _as_dicts(rows: object) -> list[RowDict]:
    if isinstance(rows, list):
        return rows
    if hasattr(rows, "to_dicts"):
        return cast(list[RowDict], rows.to_dicts())
    if hasattr(rows, "to_list"):
        return cast(list[RowDict], rows.to_list())
    raise DataError(f"rows: must be a datasets.Dataset, a Polars frame or a list of dicts; found {type(rows).__name__}")


def _as_given(rows: Any, made: list[RowDict]) -> Any:
    """The new rows in the type of the given ones. Text prompts that became messages do so in every row of a table."""
    if isinstance(rows, list):
        return made
    made = _one_form(made)
    if hasattr(rows, "to_dicts"):
        import polars as pl

        same = {name: dtype for name, dtype in rows.schema.items() if name not in ("prompt", "completion", "messages")}
        return pl.DataFrame(made, schema_overrides=same) if made else rows.clear()
    import datasets

    return datasets.Dataset.from_list(made) if made else rows.select([])


def _one_form(made: list[RowDict]) -> list[RowDict]:
    texts = [isinstance(row.get("prompt"), str) for row in made]
    if all(texts) or not any(texts):
        return made
    return [
        row
        if not isinstance(row["prompt"], str)
        else {
            **row,
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in made
    ]
