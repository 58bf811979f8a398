"""The ledger of rows: at every stage, in = kept + dropped by reason. Checked when an entry is made."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What one stage did to the rows of one scope (a context, a judge, an arm)."""

    stage: str
    scope: str
    rows_in: int
    kept: int
    dropped: dict[str, int]

    def __post_init__(self) -> None:
        lost = self.rows_in - self.kept - sum(self.dropped.values())
        if lost:
            # Not an error of the user's: a stage lost rows, and no dataset may come of it.
            raise AssertionError(f"ledger of {self.stage} ({self.scope}): {lost} rows of {self.rows_in} are unaccounted for")

    def as_json(self) -> dict[str, Any]:
        """The entry as the manifest has it, with the key `in`."""
        row = asdict(self)
        return {
            "stage": row["stage"],
            "scope": row["scope"],
            "in": row["rows_in"],
            "kept": row["kept"],
            "dropped": row["dropped"],
        }


def entry(stage: str, scope: str, *, rows_in: int, kept: int, drops: Iterable[str] = ()) -> LedgerEntry:
    """An entry from the reasons of the dropped rows, one reason per row."""
    return LedgerEntry(stage, scope, rows_in, kept, dict(sorted(Counter(drops).items())))
