"""The tables of a run and their columns: the one place where they are documented. See docs/design.md for the files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its Arrow type, the stage that writes it, and what it holds."""

    name: str
    type: str
    writer: str
    meaning: str
    nullable: bool = False

    @property
    def in_words(self) -> str:
        """The type for a reader: `float64 or null`."""
        type_ = {"messages": "list of {role, content}", "judgements": "list of judgements"}.get(self.type, self.type)
        return f"{type_} or null" if self.nullable else type_


_IDS = (
    Column("candidate_id", "string", "sample", "hash of task, generation context, rank and reply key; unique in a run"),
    Column("task_id", "string", "tasks", "the environment's id of the task"),
)

TASKS = (
    Column("task_id", "string", "tasks", "the environment's id of the task; unique"),
    Column("split", "string", "tasks", "the split of the source that the task comes from"),
    Column("messages", "messages", "tasks", "the task without any context"),
    Column("payload", "string", "tasks", "JSON: what the judges need (options, tests ...)"),
)

CANDIDATES = (
    *_IDS,
    Column(
        "generation_context",
        "string",
        "sample",
        "the context it was sampled under; `none` is the bare task; or `data.<file>`",
    ),
    Column("role", "string", "sample", "`arms`; `measured` when sampled for the report alone; `given` when read from a file"),
    Column("k", "int64", "sample", "rank among the n completions of one prompt, from 0"),
    Column("seed", "int64", "sample", "the seed it was drawn with; null for given data", nullable=True),
    Column("reply_key", "string", "sample", "hash of what was sent; finds the reply in the store"),
    Column("completion", "string", "sample", "the text"),
    Column("reasoning", "string", "sample", "reasoning that came beside the text", nullable=True),
    Column("finish_reason", "string", "sample", "`stop`, `length` or the server's word", nullable=True),
    Column("model", "string", "sample", "the model that answered, in its own words"),
    Column("prompt_tokens", "int64", "sample", "prompt tokens billed; on one reply of each request", nullable=True),
    Column("completion_tokens", "int64", "sample", "completion tokens billed; as prompt_tokens", nullable=True),
    Column("details", "string", "sample", "JSON: cached tokens, log-probabilities and what else came with it", nullable=True),
)

JUDGEMENTS = (
    Column("candidate_id", "string", "judge", "the candidate"),
    Column("judge", "string", "judge", "the judge's name"),
    Column("label", "string", "judge", "the label it gave", nullable=True),
    Column("score", "float64", "judge", "the score it gave; null is no score, never 0", nullable=True),
    Column("unscored_reason", "string", "judge", "why there is neither label nor score", nullable=True),
    Column("raw", "string", "judge", "the words the verdict was read from"),
)

SELECTION = (
    Column("arm", "string", "select", "the arm"),
    Column("candidate_id", "string", "select", "the candidate"),
    Column("kept", "bool", "select", "whether it becomes a training row"),
    Column("reason", "string", "select", "why it was kept or dropped"),
)

VIOLATIONS = (
    Column("arm", "string", "export", "the arm"),
    Column("gate", "string", "export", "the gate that the row fails"),
    Column("candidate_id", "string", "export", "the row"),
    Column("where", "string", "export", "where in it"),
)

TRAINING_ROWS = (
    Column("prompt", "messages", "recontextualize", "the task under the training context"),
    Column("completion", "messages", "recontextualize", "one assistant turn: the answer given under the generation context"),
    Column("task_id", "string", "tasks", "the task; all its answers are in the same split"),
    Column("candidate_id", "string", "sample", "the answer; the same in every arm that shares the pool"),
    Column("arm", "string", "recontextualize", "this arm's name"),
    Column("generation_context", "string", "sample", "name of the context that the answer was sampled under, or `data.<file>`"),
    Column("training_context", "string", "recontextualize", "name of the context in `prompt`"),
    Column("k", "int64", "sample", "rank of the answer among the task's, 0 to n - 1"),
    Column("n", "int64", "sample", "answers sampled for the task"),
    Column("score", "float64", "judge", "the selecting judge's score; null is no score, never 0", nullable=True),
    Column("judgements", "judgements", "judge", "each judge's word: judge, label, score, why unscored, raw words"),
    Column("finish_reason", "string", "sample", "why the answer ended: `stop`, `length` or the server's word", nullable=True),
    Column("model", "string", "sample", "the model that answered, in its own words"),
    Column("seed", "int64", "sample", "the seed that the answer was drawn with; null for given data", nullable=True),
    Column("recipe_fingerprint", "string", "export", "hash of the recipe and its inputs: the run it belongs to"),
)

LABELS = (
    Column("reviewer", "string", "view", "who labelled"),
    Column("candidate_id", "string", "view", "the candidate; the same in every run that shares its reply"),
    Column("question", "string", "view", "`behaviour` (hack, not_hack, unsure) or `use` (keep, drop)"),
    Column("label", "string", "view", "the reviewer's latest word on that question"),
    Column("note", "string", "view", "the reviewer's note on the candidate", nullable=True),
    Column("time", "string", "view", "when, UTC, ISO 8601"),
)


def arrow_schema(columns: tuple[Column, ...]) -> "pa.Schema":
    """The Arrow schema of a table."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    judgement = pa.struct(
        [
            ("judge", pa.string()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("unscored_reason", pa.string()),
            ("raw", pa.string()),
        ]
    )
    types: dict[str, Any] = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "messages": pa.list_(message),
        "judgements": pa.list_(judgement),
    }
    return pa.schema([pa.field(column.name, types[column.type]) for column in columns])
