"""Pages of rows: first which rows, from the narrow columns that the question needs; then the texts of those few rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recontext_data.errors import InputError
from recontext_data.viewer.database import Database, name
from recontext_data.viewer.fields import SEARCHED, Field, Sql, View, condition, field_of, searching
from recontext_data.viewer.look import Look

PAGE = 50
"""Rows of a page."""

EXCERPT = 300
"""Characters of a text that a list reads."""

_DEFAULT_SEARCH = {"candidates": SEARCHED, "tasks": ("task_id", "messages", "payload")}


@dataclass(frozen=True)
class Page:
    """Some rows, and where the next page begins."""

    rows: list[dict[str, Any]]
    after: int | None
    """The last row's `row` when there are more."""


@dataclass(frozen=True)
class Question:
    """A view of a table, with all that is needed to ask it."""

    look: Look
    view: View
    fields: Mapping[str, Field]

    def conditions(self) -> list[Sql]:
        """What holds of every row asked for, the page's beginning aside."""
        table, columns = self.view.table, self.look.columns[self.view.table]
        found = [condition(one, self.fields, self._sources()) for one in self.view.where]
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

    def _sources(self) -> dict[str, str]:
        # What is not written yet says nothing about any candidate.
        nothing = "(SELECT NULL::VARCHAR candidate_id, NULL::VARCHAR judge, NULL::VARCHAR arm WHERE false)"
        return {"judgements": nothing, "selection": nothing} | self.look.sources


def page(database: Database, question: Question, *, size: int = PAGE) -> Page:
    """One page of rows.

    Raises:
        InputError: a column, an operator or a value is none.
    """
    keys = _keys(database, question, size + 1)
    more = len(keys) > size
    rows = _texts(database, question, keys[:size])
    if question.view.table == "candidates":
        _add_what_was_said(database, question.look, rows)
    return Page(rows, keys[size - 1] if more else None)


def neighbour(database: Database, question: Question, row: int, *, back: bool = False) -> int | None:
    """The `row` that comes after a row in a view, or before it; None at the end."""
    sort = _Sort(question, back=back)
    found = _ask(database, question, sort, [sort.beyond(database, row)], 1)
    return found[0] if found else None


def _keys(database: Database, question: Question, limit: int) -> list[int]:
    sort, after = _Sort(question), question.view.after
    return _ask(database, question, sort, [sort.beyond(database, after)] if after is not None else [], limit)


def _ask(database: Database, question: Question, sort: "_Sort", extra: list[Sql], limit: int) -> list[int]:
    where = question.where(extra)
    sql = f"SELECT c.row FROM {question.source} c {sort.join.text} WHERE {where.text} ORDER BY {sort.order} LIMIT {limit}"
    return [row["row"] for row in database.rows(sql, [*sort.join.parameters, *where.parameters])]


class _Sort:
    """The order of a view: by a column, empty values last, then by place on disk; or the same backwards."""

    def __init__(self, question: Question, *, back: bool = False) -> None:
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
        inner = f"SELECT candidate_id, {name(field.column)} AS value FROM {source} WHERE {scope} = ?"
        return "s.value", Sql(f"LEFT JOIN ({inner}) s USING (candidate_id)", (field.scope,))

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


def _texts(database: Database, question: Question, keys: list[int]) -> list[dict[str, Any]]:
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


def _add_what_was_said(database: Database, look: Look, rows: list[dict[str, Any]]) -> None:
    ids = [row["candidate_id"] for row in rows]
    judged = about(database, look, "judgements", ids)
    selected = about(database, look, "selection", ids)
    for row in rows:
        row["judgements"] = judged.get(row["candidate_id"], [])
        row["selection"] = selected.get(row["candidate_id"], [])


def about(database: Database, look: Look, table: str, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a table about these candidates; none where the table is not written yet."""
    found: dict[str, list[dict[str, Any]]] = {}
    if table not in look.sources or not ids:
        return found
    marks = ", ".join("?" * len(ids))
    shown = ", ".join(
        f"substring({name(column)}, 1, {20 * EXCERPT}) AS {name(column)}" if type_ == "VARCHAR" else name(column)
        for column, type_ in look.columns[table].items()
    )
    for row in database.rows(f"SELECT {shown} FROM {look.sources[table]} WHERE candidate_id IN ({marks}) ORDER BY row", ids):
        found.setdefault(row["candidate_id"], []).append(row)
    return found
