"""Pages of rows: first which rows, from the narrow columns that the question needs; then the texts of those few rows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from recontext_data.core.errors import InputError
from recontext_data.viewer.database import Database, name
from recontext_data.viewer.fields import SEARCHED, Field, Places, Sql, View, condition, field_of, searching
from recontext_data.viewer.look import RunSnapshot

PAGE = 50
"""Rows of a page."""

WINDOW = 2**19
"""Rows that are looked through at a time, at first: two row groups of a build's tables, one for each thread."""

SECONDS = 2.5
"""After which a page shows what it has found."""

EXCERPT = 300
"""Characters of a text that a list reads."""

_DEFAULT_SEARCH = {"candidates": SEARCHED, "tasks": ("task_id", "messages", "payload")}


@dataclass(frozen=True)
class Page:
    """Some rows, and where the next page begins."""

    rows: list[dict[str, Any]]
    after: int | None
    """The last row's `row` when there are more, or the last one that was looked at."""
    searched: int | None = None
    """How many rows of the table have been looked through, where time was up before the page was full."""


@dataclass(frozen=True)
class ListingQuery:
    """A view of a table, with all that is needed to ask it."""

    look: RunSnapshot
    view: View
    fields: Mapping[str, Field]
    window: tuple[int, int] | None = None
    """The first and the last row that is asked about; None: all."""

    def conditions(self) -> list[Sql]:
        """What holds of every row asked for, the page's beginning aside."""
        table, columns = self.view.table, self.look.columns[self.view.table]
        places = Places(self._sources(), self.look.spans, self.window)
        found = [condition(one, self.fields, places) for one in self.view.where]
        if self.window is not None:
            found.insert(0, Sql(f"c.row BETWEEN {self.window[0]} AND {self.window[1]}"))
        if self.view.search:
            searched = [
                column for column in _DEFAULT_SEARCH.get(table, tuple(columns)) if column in columns and column != "row"
            ]
            found += searching(self.view.search, searched)
        return found

    def where(self, extra: list[Sql] | None = None) -> Sql:
        """All conditions as one."""
        all_ = [*self.conditions(), *(extra or [])]
        return Sql(" AND ".join(one.text for one in all_) or "true", tuple(p for one in all_ for p in one.parameters))

    @property
    def source(self) -> str:
        """The table's SQL."""
        return self.look.sources[self.view.table]

    @property
    def has_places(self) -> bool:
        """Whether its rows can be asked for window by window: in the order on disk, and nothing needs a table of ids."""
        said = [field_of(one.key, self.fields) for one in self.view.where]
        return not self.view.sort and all(
            field.about in ("own", "labels") or (field.about, field.scope) in self.look.spans for field in said
        )

    def _sources(self) -> dict[str, str]:
        # What is not written yet says nothing about any candidate.
        nothing = "(SELECT NULL::VARCHAR candidate_id, NULL::VARCHAR judge, NULL::VARCHAR arm WHERE false)"
        return {"judgements": nothing, "selection": nothing} | self.look.sources


def page(database: Database, question: ListingQuery, *, size: int = PAGE, seconds: float | None = None) -> Page:
    """One page of rows; of a large table after `seconds` (`SECONDS` unless set) what was found by then.

    Raises:
        InputError: a column, an operator or a value is none.
    """
    searched = None
    is_asked = question.view.where or question.view.search
    if is_asked and question.has_places and len(question.look.run.files(question.view.table)) == 1:
        keys, searched = _by_windows(database, question, size + 1, SECONDS if seconds is None else seconds)
    else:
        keys = _keys(database, question, size + 1)
    more = len(keys) > size
    rows = _texts(database, question, keys[:size])
    if question.view.table == "candidates":
        _add_what_was_said(database, question.look, rows)
    if searched is not None:
        return Page(rows, searched - 1, searched)
    return Page(rows, keys[size - 1] if more else None)


def _by_windows(database: Database, question: ListingQuery, limit: int, seconds: float) -> tuple[list[int], int | None]:
    """The first rows that match, looked for a stretch at a time, and how far it came where time was up first."""
    end, total = time.monotonic() + seconds, question.look.counts[question.view.table]
    start = 0 if question.view.after is None else question.view.after + 1
    size, keys = WINDOW, list[int]()
    while start < total and len(keys) < limit:
        began = time.monotonic()
        near = replace(question, view=replace(question.view, after=None), window=(start, min(start + size, total) - 1))
        keys += _keys(database, near, limit - len(keys))
        start += size
        now = time.monotonic()
        if now > end and start < total and len(keys) < limit:
            return keys, start
        # Twice as much at a time while that is quick: each question costs something by itself.
        size = 2 * size if now - began < seconds / 8 else size
    return keys, None


def neighbour(database: Database, question: ListingQuery, row: int, *, back: bool = False) -> int | None:
    """The `row` that comes after a row in a view, or before it; None at the end."""
    sort = _Sort(question, back=back)
    found = _ask(database, question, sort, [sort.beyond(database, row)], 1)
    return found[0] if found else None


def _keys(database: Database, question: ListingQuery, limit: int) -> list[int]:
    sort, after = _Sort(question), question.view.after
    return _ask(database, question, sort, [sort.beyond(database, after)] if after is not None else [], limit)


def _ask(database: Database, question: ListingQuery, sort: "_Sort", extra: list[Sql], limit: int) -> list[int]:
    where = question.where(extra)
    sql = f"SELECT c.row FROM {question.source} c {sort.join.text} WHERE {where.text} ORDER BY {sort.order} LIMIT {limit}"
    return [row["row"] for row in database.rows(sql, [*sort.join.parameters, *where.parameters])]


class _Sort:
    """The order of a view: by a column, empty values last, then by place on disk; or the same backwards."""

    def __init__(self, question: ListingQuery, *, back: bool = False) -> None:
        self.question, self.back = question, back
        key = question.view.sort
        self.is_descending = key.startswith("-") != back
        self.value, self.join = "c.row", Sql("")
        self.field = field_of(key.removeprefix("-"), question.fields) if key else None
        self.order = "c.row DESC" if back else "c.row"
        if self.field is not None:
            self.value, self.join = self._value(self.field)
            direction, nulls = "DESC" if self.is_descending else "ASC", "FIRST" if back else "LAST"
            self.order = f"{self.value} {direction} NULLS {nulls}, {self.order}"

    def _value(self, field: Field) -> tuple[str, Sql]:
        if field.about == "own":
            return f"c.{name(field.column)}", Sql("")
        if field.about == "labels":
            raise InputError(f"sort={field.key}: labels cannot be sorted by; filter by them")
        scope = {"judgements": "judge", "selection": "arm"}[field.about]
        source = self.question.look.sources[field.about]
        span = self.question.look.spans.get((field.about, field.scope))
        key, of = ("row", f"row + {span.delta} AS row") if span else ("candidate_id", "candidate_id")
        near = f" AND {span.within()}" if span else ""
        inner = f"SELECT {of}, {name(field.column)} AS value FROM {source} WHERE {scope} = ?{near}"
        return "s.value", Sql(f"LEFT JOIN ({inner}) s USING ({key})", (field.scope,))

    def beyond(self, database: Database, row: int) -> Sql:
        """What comes after a row. Its value is looked up: a link then needs no more than the row's number."""
        further = f"c.row {'<' if self.back else '>'} ?"
        if self.field is None:
            return Sql(further, (row,))
        sql = f"SELECT {self.value} AS value FROM {self.question.source} c {self.join.text} WHERE c.row = ?"
        found = database.rows(sql, [*self.join.parameters, row])
        value = found[0]["value"] if found else None
        if value is None:
            empty = f"{self.value} IS NULL AND {further}"
            return Sql(f"({empty} OR {self.value} IS NOT NULL)" if self.back else f"({empty})", (row,))
        sign = "<" if self.is_descending else ">"
        last = "" if self.back else f" OR {self.value} IS NULL"
        return Sql(f"({self.value} {sign} ? OR ({self.value} = ? AND {further}){last})", (value, value, row))


def _texts(database: Database, question: ListingQuery, keys: list[int]) -> list[dict[str, Any]]:
    """The rows of these keys, in their order, texts cut to an excerpt."""
    if not keys:
        return []
    columns = question.look.columns[question.view.table]
    shown = ", ".join(_excerpt(column, type_) for column, type_ in columns.items())
    # Written out and not as parameters: only numbers in the text of a question skip row groups.
    numbers = ", ".join(str(int(key)) for key in keys)
    found = database.rows(f"SELECT {shown} FROM {question.source} c WHERE c.row IN ({numbers})")
    by_row = {row["row"]: row for row in found}
    return [by_row[key] for key in keys if key in by_row]


def _excerpt(column: str, type_: str) -> str:
    if type_ == "VARCHAR":
        return f"substring(c.{name(column)}, 1, {EXCERPT}) AS {name(column)}"
    if "[" in type_ or "STRUCT" in type_:
        last = f"c.{name(column)}[-1].content" if type_.endswith("[]") and "content" in type_ else f"c.{name(column)}::VARCHAR"
        return f"substring({last}, 1, {EXCERPT}) AS {name(column)}"
    return f"c.{name(column)}"


def _add_what_was_said(database: Database, look: RunSnapshot, rows: list[dict[str, Any]]) -> None:
    judged = about(database, look, "judgements", rows)
    selected = about(database, look, "selection", rows)
    for row in rows:
        row["judgements"] = judged.get(row["candidate_id"], [])
        row["selection"] = selected.get(row["candidate_id"], [])


def about(
    database: Database, look: RunSnapshot, table: str, candidates: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of a table about these candidates (`candidate_id` and `row`); none where the table is not written yet."""
    found: dict[str, list[dict[str, Any]]] = {}
    if table not in look.sources or not candidates:
        return found
    shown = ", ".join(
        f"substring({name(column)}, 1, {20 * EXCERPT}) AS {name(column)}" if type_ == "VARCHAR" else name(column)
        for column, type_ in look.columns[table].items()
    )
    where = _of_candidates(look, table, candidates)
    for row in database.rows(f"SELECT {shown} FROM {look.sources[table]} WHERE {where.text} ORDER BY row", where.parameters):
        found.setdefault(row["candidate_id"], []).append(row)
    return found


def _of_candidates(look: RunSnapshot, table: str, candidates: list[dict[str, Any]]) -> Sql:
    """By places where all who speak in the table follow the candidates' order, else by ids."""
    scopes = look.judges if table == "judgements" else look.arms
    spans = [look.spans.get((table, scope)) for scope in scopes]
    if None in spans:
        ids = [row["candidate_id"] for row in candidates]
        return Sql(f"candidate_id IN ({', '.join('?' * len(ids))})", tuple(ids))
    places = [
        row["row"] - span.delta
        for span in spans
        if span is not None
        for row in candidates
        if span.start <= row["row"] < span.start + span.count
    ]
    # Written out and not as parameters: only numbers in the text of a question skip row groups.
    return Sql(f"row IN ({', '.join(map(str, places))})") if places else Sql("false")
