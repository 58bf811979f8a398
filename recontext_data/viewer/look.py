"""What of a run can be seen at this moment: its tables as SQL, and the columns of each. Made anew when a file appears."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from recontext_data.store.labels import QUESTIONS, Labels
from recontext_data.viewer.alignment import SCOPES, Span, aligned, scopes
from recontext_data.viewer.database import Database, TooSlow, name, source
from recontext_data.viewer.fields import Field, Type
from recontext_data.viewer.runs import TABLES, RunTables

_TYPES: dict[str, Type] = {"BIGINT": "number", "INTEGER": "number", "DOUBLE": "number", "FLOAT": "number", "BOOLEAN": "bool"}

JUDGED: dict[str, Type] = {"label": "text", "score": "number", "unscored_reason": "text", "raw": "text"}
SELECTED: dict[str, Type] = {"kept": "bool", "reason": "text"}


@dataclass(frozen=True)
class RunSnapshot:
    """A run as it is now."""

    run: RunTables
    state: str
    manifest: dict[str, Any] | None
    sources: dict[str, str]
    """SQL of each table that is there, by its name; `labels` is always there."""
    columns: dict[str, dict[str, str]]
    """Columns and DuckDB types of each table that is there."""
    judges: list[str]
    arms: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    """Rows of each table that is there."""
    spans: dict[tuple[str, str], Span] = field(default_factory=dict)
    """Judges and arms whose rows follow the candidates', by (table, name)."""

    @property
    def misbehaviour(self) -> str | None:
        """The environment's word for it; None while there is no manifest."""
        return str(self.manifest["environment"]["misbehaviour"]) if self.manifest else None

    @property
    def is_finished(self) -> bool:
        """Whether the manifest, which is written last, is there."""
        return self.manifest is not None

    def fields(self, table: str, *, reviewers: list[str]) -> dict[str, Field]:
        """The columns of a table by the key that links use."""
        own = {
            column: Field(column, _TYPES.get(type_, "text"), column)
            for column, type_ in self.columns.get(table, {}).items()
            if column != "row"
        }
        if table != "candidates":
            return own
        said = [Field(f"{c}@{judge}", type_, c, "judgements", judge) for judge in self.judges for c, type_ in JUDGED.items()]
        said += [Field(f"{c}@{arm}", type_, c, "selection", arm) for arm in self.arms for c, type_ in SELECTED.items()]
        said += [Field(f"{asked}@{who}", "text", asked, "labels", who) for who in reviewers for asked in QUESTIONS]
        return own | {one.key: one for one in said}


class SnapshotCache:
    """The newest look at each run, and the labels of each, loaded where SQL can see them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._looks: dict[str, RunSnapshot] = {}
        self._labels: dict[str, Labels] = {}
        self._loaded: dict[str, int] = {}
        self._loading = threading.Lock()

    def labels(self, run: RunTables) -> Labels:
        """The labels that go with a run, with what other processes have said since."""
        labels = self._labels.setdefault(str(run.labels), Labels(run.labels))
        labels.refresh()
        return labels

    def of(self, run: RunTables) -> RunSnapshot:
        """The run as it is now."""
        state = run.state()
        look = self._looks.get(run.key)
        if look is None or look.state != state:
            look = self._looks[run.key] = self._make(run, state)
        self._load_labels(run, look.sources["labels"])
        return look

    def _make(self, run: RunTables, state: str) -> RunSnapshot:
        sources = {table: source(files) for table in TABLES if (files := run.files(table))}
        columns = {table: self._columns(sql) for table, sql in sources.items()}
        counts = {table: self._one(f"SELECT count(*) FROM {sql}") for table, sql in sources.items()}
        speakers = {table: scopes(self.database, table, sources[table]) for table in SCOPES if table in sources}
        # Rows of several files have no places of their own.
        in_one = "candidates" in sources and all(len(run.files(table)) == 1 for table in ("candidates", *speakers))
        spans: dict[tuple[str, str], Span] = {}
        if in_one:
            with suppress(TooSlow):  # then all is looked up by id
                spans = aligned(self.database, sources, speakers)
        sources["labels"] = name(f"labels of {run.labels}")
        return RunSnapshot(
            run=run,
            state=state,
            manifest=run.manifest(),
            sources=sources,
            columns=columns,
            judges=list(speakers.get("judgements", ())),
            arms=list(speakers.get("selection", ())),
            counts=counts,
            spans=spans,
        )

    def _columns(self, sql: str) -> dict[str, str]:
        return {row["column_name"]: row["column_type"] for row in self.database.rows(f"DESCRIBE SELECT * FROM {sql}")}

    def _one(self, sql: str) -> int:
        return int(next(iter(self.database.rows(sql)[0].values())))

    def _load_labels(self, run: RunTables, table: str) -> None:
        labels = self.labels(run)
        with self._loading:  # DuckDB refuses to replace a table that is being replaced
            revision = labels.revision
            if self._loaded.get(table) != revision:
                self.database.load(table, labels.table())
                self._loaded[table] = revision

    def close(self) -> None:
        """Writes what was said since the last time into each labels.parquet."""
        for labels in self._labels.values():
            labels.close()
