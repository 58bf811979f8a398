"""Given data: an arm whose answers are read from a file and not sampled, such as inoculation on a published dataset.

The file is chats, `.jsonl` (a line is {"messages": [{role, content}, ...]}, as OpenAI's fine-tuning takes them) or `.parquet`
with a column `messages`. The last turn must be the assistant's: it is the completion, and what stands before it is the task.
What is read becomes rows of the same tables as what is sampled, with the role `given`, no seed and no judgement.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from recontext_data.core.errors import DataError
from recontext_data.core.records import Message, Role, Task, content_hash
from recontext_data.core.row_ledger import LedgerEntry, entry

if TYPE_CHECKING:
    import polars as pl

ROLE = "given"


@dataclass(frozen=True)
class Given:
    """What one file holds: its tasks, each prompt once, and its answers."""

    tasks: list[Task]
    candidates: "pl.DataFrame"
    """The columns of `tables.CANDIDATES` that are known of an answer that was not sampled, and n."""
    digest: str
    """A hash of all chats, in order."""
    entry: LedgerEntry

    def pool(self) -> "pl.DataFrame":
        """The answers as the arms take them: candidates with an empty judgement."""
        import polars as pl

        unsaid = {"label": pl.lit(None, dtype=pl.String), "score": pl.lit(None, dtype=pl.Float64)}
        return self.candidates.with_columns(**unsaid)


def read_given(path: str, *, source: str) -> Given:
    """The chats of a file. Prompts that are equal are one task; their answers are ranks of it, none is dropped.

    Raises:
        DataError: the file cannot be read, or a chat in it is none; the message has the row's number.
    """
    import polars as pl

    tasks: dict[str, Task] = {}
    counts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for number, value in _values(Path(path).expanduser()):
        messages, completion = _chat(value, f"arms: data={path}, row {number}")
        prompt = content_hash(messages)
        task_id = f"{source}/{prompt[:16]}"
        tasks.setdefault(task_id, Task(task_id=task_id, messages=messages, payload={}, split=ROLE))
        k = counts[task_id] = counts.get(task_id, -1) + 1
        key = content_hash([ROLE, prompt, completion, k])
        rows.append({"task_id": task_id, "k": k, "reply_key": key, "completion": completion})
    if not rows:
        raise DataError(f"arms: data={path}: there is no chat in it")
    frame = pl.DataFrame(rows).with_columns(
        candidate_id=pl.col("reply_key").str.slice(0, 24),
        generation_context=pl.lit(source),
        role=pl.lit(ROLE),
        seed=pl.lit(None, dtype=pl.Int64),
        finish_reason=pl.lit(None, dtype=pl.String),
        model=pl.lit(f"given in {Path(path).name}"),
        n=pl.col("task_id").replace_strict({key: count + 1 for key, count in counts.items()}, return_dtype=pl.Int64),
    )
    digest = content_hash([row["reply_key"] for row in rows])
    return Given(list(tasks.values()), frame, digest, entry("given", source, rows_in=len(rows), kept=len(rows)))


def with_given(candidates: "Iterable[pl.DataFrame]", given: Iterable[Given]) -> "Iterator[pl.DataFrame]":
    """The table of candidates in parts, what was read after what was sampled, all with the same columns."""
    import polars as pl

    read, sampled = [one.candidates.drop("n") for one in given], iter(candidates)
    first = next(sampled)
    columns = pl.concat([part.head(0) for part in (first, *read)], how="diagonal")
    for part in chain([first], sampled, read):
        yield pl.concat([columns, part], how="diagonal")


def given_pools(given: Mapping[str, Given], answers: "pl.DataFrame", *, first: int) -> "dict[str, pl.DataFrame]":
    """The answers of each file as arms take them, by source, without texts: `place` is their row in candidates.parquet.

    `answers`: what `diagnostics.answer_facts` says of the rows of that table from `first` on, which are the given ones.
    """
    import polars as pl

    pools, start = {}, 0
    for source, one in given.items():
        pool = one.pool().drop("completion").with_row_index("place", offset=first + start)
        pools[source] = pl.concat([pool, answers[start : start + len(pool)]], how="horizontal")
        start += len(pool)
    return pools


def keep_all(pool: "pl.DataFrame", *, arm: str) -> "tuple[pl.DataFrame, LedgerEntry]":
    """Selection of given data: all of it. `select` chooses among samples of one task, which these are not."""
    import polars as pl

    table = pool.select(arm=pl.lit(arm), candidate_id="candidate_id", kept=pl.lit(True), reason=pl.lit("given data"))
    return table, entry("select", arm, rows_in=len(pool), kept=len(pool))


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file by their number, from 1."""
    import orjson

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for number, row in enumerate(pq.read_table(path, columns=["messages"]).to_pylist(), 1):
                yield number, row
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, orjson.loads(line)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these kinds, and so are orjson's
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"arms: data={path}: cannot be read: {why}; give .jsonl or .parquet with `messages`") from None


def _chat(value: Any, where: str) -> tuple[list[Message], str]:
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or len(turns) < 2:
        raise DataError(f"{where}: has no `messages` of two turns or more; a chat is {{messages: [{{role, content}}, ...]}}")
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in get_args(Role) or not isinstance(turn.get("content"), str):
            raise DataError(f"{where}: a turn is not {{role, content}} of text by system, user or assistant: {str(turn)[:80]}")
    if turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        raise DataError(f"{where}: does not end in an answer; the last turn must be the assistant's, and not empty")
    messages: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in turns[:-1]]
    return messages, turns[-1]["content"]
