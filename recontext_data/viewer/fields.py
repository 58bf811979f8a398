"""The columns that rows can be filtered, searched and sorted by, and the SQL of doing it. Every value is a parameter.

A candidate has, beside its own columns, what was said about it: `label@choice`, `score@choice` (a judge), `kept@standard...`
(an arm), `behaviour@alice`, `use@alice` (a reviewer).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from recontext_data.core.errors import InputError, did_you_mean
from recontext_data.viewer.alignment import Span
from recontext_data.viewer.database import name

Type = Literal["text", "number", "bool"]

OPERATORS = {
    "is": "is",
    "not": "is not",
    "has": "contains",
    "lt": "<",
    "le": "≤",
    "gt": ">",
    "ge": "≥",
    "empty": "is empty",
    "filled": "is not empty",
}
"""What a link says, and what the page says."""

_SIGNS = {"is": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

SEARCHED = ("completion", "reasoning")
"""What full-text search of candidates reads."""

_WORDS = re.compile(r'"([^"]+)"|(\S+)')


@dataclass(frozen=True, slots=True)
class Field:
    """One column."""

    key: str
    type: Type
    column: str
    about: Literal["own", "judgements", "selection", "labels"] = "own"
    scope: str = ""
    """The judge, the arm or the reviewer."""

    @property
    def title(self) -> str:
        """For a reader."""
        return f"{self.column} ({self.scope})" if self.scope else self.column


@dataclass(frozen=True, slots=True)
class Where:
    """One condition."""

    key: str
    operator: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.key}~{self.operator}~{self.value}"


@dataclass(frozen=True, slots=True)
class View:
    """Which rows, in which order."""

    table: str = "candidates"
    where: tuple[Where, ...] = ()
    search: str = ""
    sort: str = ""
    """A column, `-column` for descending; empty for the order on disk."""
    after: int | None = None
    """The `row` behind which the page begins."""


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and its parameters."""

    text: str
    parameters: tuple[Any, ...] = ()


def parse_where(text: str) -> Where:
    """`column~operator~value`, as a link has it.

    Raises:
        InputError: it is no such thing.
    """
    key, _, rest = text.partition("~")
    operator, _, value = rest.partition("~")
    if operator not in OPERATORS:
        raise InputError(f"where={text!r}: write column~operator~value with one of {', '.join(OPERATORS)}")
    return Where(key, operator, value)


def field_of(key: str, fields: Mapping[str, Field]) -> Field:
    """The column of that key.

    Raises:
        InputError: there is none.
    """
    if key not in fields:
        raise InputError(f"column {key!r}: is not there; {did_you_mean(key, fields)}")
    return fields[key]


@dataclass(frozen=True, slots=True)
class Places:
    """Where what was said about candidates is to be looked for."""

    sources: Mapping[str, str]
    """SQL of judgements, selection and labels by name."""
    spans: Mapping[tuple[str, str], Span] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    """The first and the last candidate that is asked about, by their rows; None: all."""


def condition(where: Where, fields: Mapping[str, Field], places: Places) -> Sql:
    """The condition as SQL over a table called `c`."""
    field = field_of(where.key, fields)
    if field.about == "own":
        return _compare(f"c.{name(field.column)}", field, where)
    scope = (field.scope, field.column) if field.about == "labels" else (field.scope,)
    column = "label" if field.about == "labels" else field.column
    # Nothing said about a candidate is empty, and is not whatever was asked for.
    negative = where.operator in ("not", "empty")
    asked = Where(where.key, {"not": "is", "empty": "filled"}[where.operator], where.value) if negative else where
    inner = _compare(name(column), field, asked)
    span = places.spans.get((field.about, field.scope))
    key, of = ("row", f"row + {span.delta}") if span else ("candidate_id", "candidate_id")
    near = f" AND {span.within(places.window)}" if span else ""
    inside = f"SELECT {of} FROM {places.sources[field.about]} WHERE {_SCOPES[field.about]}{near}"
    text = f"c.{key} {'NOT IN' if negative else 'IN'} ({inside} AND {inner.text})"
    return Sql(text, (*scope, *inner.parameters))


_SCOPES = {"judgements": "judge = ?", "selection": "arm = ?", "labels": "reviewer = ? AND question = ?"}


def _compare(column: str, field: Field, where: Where) -> Sql:
    match where.operator:
        case "empty":
            return Sql(f"{column} IS NULL")
        case "filled":
            return Sql(f"{column} IS NOT NULL")
        case "has":
            return Sql(f"CAST({column} AS VARCHAR) ILIKE ? ESCAPE '\\'", (_pattern(where.value),))
        case "not":
            return Sql(f"{column} IS DISTINCT FROM ?", (_value(where, field),))
        case operator:
            return Sql(f"{column} {_SIGNS[operator]} ?", (_value(where, field),))


def _value(where: Where, field: Field) -> Any:
    if field.type == "bool":
        if where.value not in ("true", "false"):
            raise InputError(f"{field.title}: {where.value!r} is not accepted; write true or false")
        return where.value == "true"
    if field.type == "number":
        try:
            return int(where.value) if re.fullmatch(r"-?\d+", where.value) else float(where.value)
        except ValueError:
            raise InputError(f"{field.title}: {where.value!r} is not a number") from None
    return where.value


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def words(search: str) -> list[str]:
    """What must all occur: words, and "whole phrases"."""
    return [phrase or word for phrase, word in _WORDS.findall(search)]


def searching(search: str, columns: Sequence[str]) -> list[Sql]:
    """One condition per word, case ignored: it must stand in one of the columns."""
    return [
        Sql(
            "(" + " OR ".join(f"CAST(c.{name(column)} AS VARCHAR) ILIKE ? ESCAPE '\\'" for column in columns) + ")",
            (_pattern(word),) * len(columns),
        )
        for word in words(search)
    ]
