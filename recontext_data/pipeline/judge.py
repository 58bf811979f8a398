"""Stage judge: candidates in, judgements out. Judges are blind: they see the task and the text, not the context."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.records import Candidate, Judgement, Task
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.core.tables import JUDGEMENTS, arrow_schema
from recontext_data.judges.base import AnyJudge, Asker, Comparer, Deriver, Reader
from recontext_data.pipeline.selected_rows import ForwardParquetReader

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.pipeline.judge_client import JudgeReplies

BATCH = 4096
"""Candidates handed to a judge at once; bounds memory."""

WORDS = ("label", "score", "unscored_reason")
"""What a judge that goes by another is shown of its judgements."""


def judge(
    candidates: "pl.DataFrame",
    *,
    tasks: Mapping[str, Task],
    judges: Sequence[AnyJudge],
    counsel: "JudgeReplies | None" = None,
    texts: Path | None = None,
) -> "tuple[pl.DataFrame, list[LedgerEntry]]":
    """One judgement per candidate and judge, in the candidates' order, and a ledger entry per context and judge.

    `counsel` buys the replies of judges that ask a model; a build without such judges needs none. Candidates without
    completion and reasoning have them in the table at `texts`, at their `place`, which rises; a batch is held at a time.
    """
    import polars as pl

    tables: dict[str, pl.DataFrame] = {}
    for one in judges:
        if isinstance(one, Deriver):
            tables[one.name] = _derived(one, candidates, tables)
        elif isinstance(one, Asker | Comparer):
            assert counsel is not None, f"judge {one.name!r} asks a model and nobody buys its replies"
            tables[one.name] = _asked(one, candidates, tasks, counsel, texts)
        else:
            tables[one.name] = _read(one, _batches(candidates, tasks, texts))
        _check(one, candidates, tables[one.name])
    contexts = candidates.select("candidate_id", "generation_context")
    entries = [row for one in judges for row in _entries(one.name, tables[one.name], contexts)]
    empty = pl.DataFrame(schema=pl.DataFrame(arrow_schema(JUDGEMENTS).empty_table()).schema)
    return pl.concat([empty, *(tables[one.name] for one in judges)]), entries


def _read(one: Any, batches: Iterator[list[Candidate]]) -> "pl.DataFrame":
    assert isinstance(one, Reader)
    return _table(judgements for batch in batches for judgements in [one.judge(batch)])


def _table(batches: "Iterator[list[Judgement]]") -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    schema = arrow_schema(JUDGEMENTS)
    parts = [
        pa.record_batch({name: [getattr(word, name) for word in words] for name in schema.names}, schema=schema)
        for words in batches
    ]
    table = pl.from_arrow(pa.Table.from_batches(parts, schema=schema))
    assert isinstance(table, pl.DataFrame)
    return table


def _derived(one: Any, candidates: "pl.DataFrame", tables: "Mapping[str, pl.DataFrame]") -> "pl.DataFrame":
    import polars as pl

    words = candidates.select("candidate_id", "reply_key")
    for name in one.reads:
        words = words.with_columns(tables[name][column].alias(f"{name}.{column}") for column in WORDS)
    made: pl.DataFrame = one.derive(words)
    return made.select("candidate_id", pl.lit(one.name).alias("judge"), *WORDS, "raw")


def _asked(
    one: Asker | Comparer, candidates: "pl.DataFrame", tasks: Mapping[str, Task], counsel: "JudgeReplies", texts: Path | None
) -> "pl.DataFrame":
    if isinstance(one, Asker):
        return _table(counsel.judge(one, _batches(candidates, tasks, texts), total=len(candidates)))
    found = _table(counsel.compare(one, groups(candidates, tasks, texts), total=len(candidates)))
    # Groups come in the order of their first answers; what is handed on has the candidates' own.
    return candidates.select("candidate_id").join(found, on="candidate_id", how="left", maintain_order="left")


def _batches(candidates: "pl.DataFrame", tasks: Mapping[str, Task], texts: Path | None) -> Iterator[list[Candidate]]:
    told = _teller(texts)
    for part in candidates.iter_slices(BATCH):
        yield as_judged(told(part), tasks)


def _teller(texts: Path | None) -> "Callable[[pl.DataFrame], pl.DataFrame]":
    """What puts completion and reasoning beside candidates, whose places must rise from one call to the next."""
    if texts is None:
        return lambda part: part
    import polars as pl

    cursor = ForwardParquetReader(texts, ["completion", "reasoning"])

    def told(part: pl.DataFrame) -> pl.DataFrame:
        rows = pl.from_arrow(cursor.rows(part["place"].to_numpy()))
        assert isinstance(rows, pl.DataFrame)
        return part.hstack(rows)

    return told


def groups(candidates: "pl.DataFrame", tasks: Mapping[str, Task], texts: Path | None = None) -> Iterator[list[list[Candidate]]]:
    """Batches of groups: the answers to one task under one context. `texts` as in `judge`."""
    told = _teller(texts)
    batch: list[list[Candidate]] = []
    count = 0
    for _, part in candidates.group_by("generation_context", "task_id", maintain_order=True):
        batch.append(as_judged(told(part), tasks))
        count += len(part)
        if count >= BATCH:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def as_judged(part: "pl.DataFrame", tasks: Mapping[str, Task]) -> list[Candidate]:
    """Rows of the table of candidates as judges see them."""
    return [
        Candidate(
            candidate_id=candidate_id,
            task_id=task_id,
            messages=tasks[task_id].messages,
            completion=completion,
            payload=tasks[task_id].payload,
            reasoning=reasoning,
        )
        for candidate_id, task_id, completion, reasoning in part.select(
            "candidate_id", "task_id", "completion", "reasoning"
        ).iter_rows()
    ]


def _check(one: AnyJudge, candidates: "pl.DataFrame", words: "pl.DataFrame") -> None:
    """A judge that loses a candidate, says nothing without a reason or scores what is not a number is a bug of the judge's."""
    same = words["candidate_id"].equals(candidates["candidate_id"])
    silent = words["label"].is_null() & words["score"].is_null() & words["unscored_reason"].is_null()
    both = words["unscored_reason"].is_not_null() & (words["score"].is_not_null() | words["label"].is_not_null())
    no_number = words["score"].is_not_null() & ~words["score"].is_finite()
    if not same or silent.any() or both.any() or no_number.any():
        raise AssertionError(
            f"judge {one.name!r} must give one judgement per candidate, in order, each with a label, a finite score or a reason"
        )


def _entries(name: str, words: "pl.DataFrame", contexts: "pl.DataFrame") -> Iterator[LedgerEntry]:
    import polars as pl

    placed = words.with_columns(contexts["generation_context"])
    for context in contexts["generation_context"].unique(maintain_order=True):
        here = placed.filter(pl.col("generation_context") == context)
        reasons = here["unscored_reason"].drop_nulls().to_list()
        yield entry("judge", f"{context} / {name}", rows_in=len(here), kept=len(here) - len(reasons), drops=reasons)
