"""Counts beside a list: how many of the rows that are asked for have which value, in one question."""

from dataclasses import dataclass, replace
from typing import Any

from recontext_data.store.labels import QUESTIONS
from recontext_data.viewer.alignment import SCOPES
from recontext_data.viewer.database import Database, name
from recontext_data.viewer.fields import Sql
from recontext_data.viewer.listing import ListingQuery

COUNTED = ("generation_context", "role", "finish_reason", "model", "split", "k", "judge", "label", "arm", "kept", "reason")
"""Columns with few values; others are for filters."""

SHOWN = 12
"""Values of one column that are listed."""

MOST = 1_000_000
"""Rows whose texts are looked through, or whose filters are answered, for counts: the first ones of a larger table."""


@dataclass(frozen=True, slots=True)
class Facet:
    """One column's values with their counts, most frequent first."""

    key: str
    title: str
    values: list[tuple[str | None, int]]
    others: int
    """Values that are not listed."""


@dataclass(frozen=True, slots=True)
class Facets:
    """All of them, and the number of rows that they are of."""

    total: int
    facets: list[Facet]
    among: int | None = None
    """Of the first so many rows alone; None: of all."""


def facets(database: Database, question: ListingQuery) -> Facets:
    """The counts of a view."""
    among = MOST if _is_too_much(question) else None
    sql = _sql(question if among is None else replace(question, window=(0, among - 1)))
    found: dict[str, list[tuple[str | None, int]]] = {}
    for row in database.rows(sql.text, sql.parameters):
        found.setdefault(row["field"], []).append((row["value"], row["n"]))
    total = found.pop("", [(None, 0)])[0][1]
    return Facets(total, [_facet(question, key, found[key]) for key in question.fields if key in found], among)


def _is_too_much(question: ListingQuery) -> bool:
    """Whether the counts of all rows would take too long. Rows of several files have no first ones."""
    look, table = question.look, question.view.table
    is_asked = bool(question.view.where or question.view.search)
    return is_asked and look.counts[table] > MOST and len(look.run.files(table)) == 1


def _facet(question: ListingQuery, key: str, values: list[tuple[str | None, int]]) -> Facet:
    if key == "k":
        ordered = sorted(values, key=lambda pair: int(pair[0] or 0))
    else:
        ordered = sorted(values, key=lambda pair: (-pair[1], pair[0] is None, pair[0] or ""))
    return Facet(key, question.fields[key].title, ordered[:SHOWN], len(ordered[SHOWN:]))


def _sql(question: ListingQuery) -> Sql:
    """One statement: the rows that are asked for, narrow, and their counts by each column."""
    where, look = question.where(), question.look
    own = [column for column in COUNTED if column in look.columns[question.view.table]]
    is_all, is_about = where.text == "true", question.view.table == "candidates"
    keys = ["row", "candidate_id"] if is_about else []
    narrow = ", ".join(f"c.{name(column)}" for column in [*keys, *own]) or "1 AS one"
    parts = ["SELECT '' AS field, NULL AS value, count(*) AS n FROM hits"]
    parts += [_count(repr_(column), name(column), "hits", "true") for column in own]
    if is_about:
        parts += [part for table in SCOPES if table in look.sources for part in _said(question, table, is_all=is_all)]
        asked = ", ".join(repr_(one) for one in QUESTIONS)
        of_hits = "true" if is_all else "candidate_id IN (SELECT candidate_id FROM hits)"
        parts.append(
            _count("question || '@' || reviewer", "label", look.sources["labels"], f"{of_hits} AND question IN ({asked})")
        )
    text = f"WITH hits AS {'NOT ' if is_all else ''}MATERIALIZED (SELECT {narrow} FROM {question.source} c WHERE {where.text}) "
    return Sql(text + " UNION ALL ".join(parts), where.parameters)


_COUNTED_OF = {"judgements": "label", "selection": "kept"}


def _said(question: ListingQuery, table: str, *, is_all: bool) -> list[str]:
    """Counts of what was said about the hits: by places for those who follow the candidates' order, by ids for the rest."""
    look, scope, column = question.look, SCOPES[table], _COUNTED_OF[table]
    field = f"'{column}@' || {scope}"
    if is_all:  # everything is about a hit, and joining a million with a million can be left out
        return [_count(field, column, look.sources[table], "true")]
    names = look.judges if table == "judgements" else look.arms
    spans = {who: span for who in names if (span := look.spans.get((table, who))) is not None}
    parts = [
        _count(
            field,
            column,
            look.sources[table],
            f"{span.within(question.window)} AND row + {span.delta} IN (SELECT row FROM hits)",
        )
        for span in spans.values()
    ]
    others = ", ".join(repr_(who) for who in names if who not in spans)
    if others:
        parts.append(
            _count(
                field, column, look.sources[table], f"{scope} IN ({others}) AND candidate_id IN (SELECT candidate_id FROM hits)"
            )
        )
    return parts


def _count(field: str, column: str, source: str, where: str) -> str:
    return (
        f"SELECT {field} AS field, CAST({column} AS VARCHAR) AS value, count(*) AS n FROM {source} WHERE {where} GROUP BY ALL"
    )


def repr_(text: Any) -> str:
    """A text of our own as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"
