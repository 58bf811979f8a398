"""Which rows of judgements and selection are about which candidates, told by their places and not by their ids.

A build writes a judge's words in the candidates' order, and an arm's selection in that of its pool. Where that holds, a
candidate's row is a judgement's row and a number; and numbers skip row groups, need no table of ids in memory, and can be
asked for window by window. It is checked and not believed: the hashes of (id, place) of both sides must add up to the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recontext_data.viewer.database import Database

SCOPES = {"judgements": "judge", "selection": "arm"}
"""Tables about candidates, and the column that says who speaks."""


@dataclass(frozen=True, slots=True)
class Span:
    """The rows that one judge or one arm has in a table."""

    first: int
    """Of them in the table."""
    start: int
    """The candidate that the first is about, by its row; the rest follow one by one."""
    count: int

    @property
    def delta(self) -> int:
        """What is added to a row of the table to have the candidate's."""
        return self.start - self.first

    def within(self, window: tuple[int, int] | None = None) -> str:
        """SQL: the span's rows, or those of them that are about candidates of a window (first, last)."""
        low, high = self.first, self.first + self.count - 1
        if window is not None:
            low, high = max(low, window[0] - self.delta), min(high, window[1] - self.delta)
        return f"row BETWEEN {low} AND {high}"


def scopes(database: Database, table: str, sql: str) -> dict[str, tuple[int, int, int]]:
    """Who speaks in a table: its name with its first row, its last row and how many it has."""
    column = SCOPES[table]
    found = database.rows(
        f"SELECT {column} AS scope, min(row) AS first, max(row) AS last, count(*) AS n FROM {sql} GROUP BY 1 ORDER BY 1"
    )
    return {row["scope"]: (row["first"], row["last"], row["n"]) for row in found}


def aligned(
    database: Database, sources: Mapping[str, str], speakers: Mapping[str, Mapping[str, tuple[int, int, int]]]
) -> dict[tuple[str, str], Span]:
    """The spans of those whose rows follow the candidates', by (table, scope); the others must be looked up by id."""
    sums: dict[tuple[int, int], int | None] = {}
    found = {}
    for table, known in speakers.items():
        for scope, (first, last, count) in known.items():
            start = _start(database, sources, table, first) if last - first + 1 == count else None
            if start is None:
                continue
            span = Span(first, start, count)
            key = (start, count)
            if key not in sums:
                sums[key] = _sum(database, sources["candidates"], start, count)
            if sums[key] is not None and sums[key] == _sum(database, sources[table], first, count):
                found[table, scope] = span
    return found


def _start(database: Database, sources: Mapping[str, str], table: str, first: int) -> int | None:
    """The row of the candidate that a row of a table is about."""
    one = f"SELECT candidate_id FROM {sources[table]} WHERE row = {first}"
    found = database.rows(f"SELECT row FROM {sources['candidates']} WHERE candidate_id = ({one})")
    return int(found[0]["row"]) if len(found) == 1 else None


def _sum(database: Database, sql: str, first: int, count: int) -> int | None:
    """A number that ids in their order give, and others do not."""
    inside = f"row BETWEEN {first} AND {first + count - 1}"
    asked = f"SELECT sum(hash(candidate_id, row - {first})::HUGEINT) AS total, count(*) AS n FROM {sql} WHERE {inside}"
    (row,) = database.rows(asked)
    return int(row["total"]) if row["n"] == count else None
