"""Counts beside a list: how many of the rows that are asked for have which value, in one question."""

from dataclasses import dataclass
from typing import Any

from recontext_data.store.labels import QUESTIONS
from recontext_data.viewer.database import Database, name
from recontext_data.viewer.fields import Sql
from recontext_data.viewer.listing import Question

COUNTED = ("generation_context", "role", "finish_reason", "model", "split", "k", "judge", "label", "arm", "kept", "reason")
"""Columns with few values; others are for filters."""

SHOWN = 12
"""Values of one column that are listed."""


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


def facets(database: Database, question: Question) -> Facets:
    """The counts of a view."""
    sql = _sql(question)
    found: dict[str, list[tuple[str | None, int]]] = {}
    for row in database.rows(sql.text, sql.parameters):
        found.setdefault(row["field"], []).append((row["value"], row["n"]))
    total = found.pop("", [(None, 0)])[0][1]
    return Facets(total, [_facet(question, key, found[key]) for key in question.fields if key in found])


def _facet(question: Question, key: str, values: list[tuple[str | None, int]]) -> Facet:
    if key == "k":
        ordered = sorted(values, key=lambda pair: int(pair[0] or 0))
    else:
        ordered = sorted(values, key=lambda pair: (-pair[1], pair[0] is None, pair[0] or ""))
    return Facet(key, question.fields[key].title, ordered[:SHOWN], len(ordered[SHOWN:]))


def _sql(question: Question) -> Sql:
    """One statement: the rows that are asked for, narrow, and their counts by each column."""
    where, look = question.where(), question.look
    own = [column for column in COUNTED if column in look.columns[question.view.table]]
    is_all = where.text == "true"
    ids = ["candidate_id"] if question.view.table == "candidates" else []
    narrow = ", ".join(f"c.{name(column)}" for column in [*ids, *own]) or "1 AS one"
    parts = ["SELECT '' AS field, NULL AS value, count(*) AS n FROM hits"]
    parts += [_count(repr_(column), name(column), "hits", "true") for column in own]
    if question.view.table == "candidates":
        # Without a condition everything is about a hit, and joining a million with a million can be left out.
        about = "true" if is_all else "candidate_id IN (SELECT candidate_id FROM hits)"
        parts += [_count(text, column, look.sources[table], about) for table, text, column in _SAID if table in look.sources]
        asked = ", ".join(repr_(one) for one in QUESTIONS)
        parts.append(
            _count("question || '@' || reviewer", "label", look.sources["labels"], f"{about} AND question IN ({asked})")
        )
    text = f"WITH hits AS {'NOT ' if is_all else ''}MATERIALIZED (SELECT {narrow} FROM {question.source} c WHERE {where.text}) "
    return Sql(text + " UNION ALL ".join(parts), where.parameters)


_SAID = (
    ("judgements", "'label@' || judge", "label"),
    ("selection", "'kept@' || arm", "kept"),
)


def _count(field: str, column: str, source: str, where: str) -> str:
    return (
        f"SELECT {field} AS field, CAST({column} AS VARCHAR) AS value, count(*) AS n FROM {source} WHERE {where} GROUP BY ALL"
    )


def repr_(text: Any) -> str:
    """A text of our own as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"
