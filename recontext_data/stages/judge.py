"""Stage judge: candidates in, judgements out. Judges are blind: they see the task and the text, not the context."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from recontext_data.judges.base import Judge
from recontext_data.ledger import Entry, entry
from recontext_data.records import Candidate, Judgement, Task
from recontext_data.tables import JUDGEMENTS, arrow_schema

if TYPE_CHECKING:
    import polars as pl

BATCH = 4096
"""Candidates handed to a judge at once; bounds memory."""


def judge(
    candidates: "pl.DataFrame", *, tasks: Mapping[str, Task], judges: Sequence[Judge]
) -> "tuple[pl.DataFrame, list[Entry]]":
    """One judgement per candidate and judge, in the candidates' order, and a ledger entry per context and judge."""
    import polars as pl
    import pyarrow as pa

    contexts = dict(candidates.select("candidate_id", "generation_context").iter_rows())
    schema = arrow_schema(JUDGEMENTS)
    names = schema.names
    batches, entries = [], []
    for one in judges:
        unscored: dict[str, list[str]] = {context: [] for context in dict.fromkeys(contexts.values())}
        for batch in _batches(candidates, tasks):
            judgements = one.judge(batch)
            _check(one, batch, judgements)
            for judgement in judgements:
                if judgement.unscored_reason is not None:
                    unscored[contexts[judgement.candidate_id]].append(judgement.unscored_reason)
            columns = {name: [getattr(judgement, name) for judgement in judgements] for name in names}
            batches.append(pa.record_batch(columns, schema=schema))
        for context, reasons in unscored.items():
            total = sum(other == context for other in contexts.values())
            entries.append(entry("judge", f"{context} / {one.name}", rows_in=total, kept=total - len(reasons), drops=reasons))
    table = pl.from_arrow(pa.Table.from_batches(batches, schema=schema))
    assert isinstance(table, pl.DataFrame)
    return table, entries


def _batches(candidates: "pl.DataFrame", tasks: Mapping[str, Task]) -> Iterator[list[Candidate]]:
    for part in candidates.select("candidate_id", "task_id", "completion").iter_slices(BATCH):
        yield [
            Candidate(
                candidate_id=candidate_id,
                task_id=task_id,
                messages=tasks[task_id].messages,
                completion=completion,
                payload=tasks[task_id].payload,
            )
            for candidate_id, task_id, completion in part.iter_rows()
        ]


def _check(one: Judge, batch: Sequence[Candidate], judgements: Sequence[Judgement]) -> None:
    """A judge that loses a candidate or says nothing without a reason is a bug of the judge's."""
    same = [judgement.candidate_id for judgement in judgements] == [candidate.candidate_id for candidate in batch]
    silent = any(j.label is None and j.score is None and j.unscored_reason is None for j in judgements)
    if not same or silent:
        raise AssertionError(
            f"judge {one.name!r} must give one judgement per candidate, in order, each scored or with a reason"
        )
