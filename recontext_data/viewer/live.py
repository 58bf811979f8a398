"""What can be seen of a run before its tables are there: the newest replies in the journals that its build appends to."""

from pathlib import Path
from typing import Any

import orjson

from recontext_data.reports.text import LIMIT
from recontext_data.store import segments
from recontext_data.viewer.runs import RunTables

TAIL_BYTES = 512 * 1024
"""Of each journal, from its end: a page that looks every two seconds must not read gigabytes."""

SHOWN = 20


def newest(run: RunTables) -> list[dict[str, Any]]:
    """The newest replies that are not sealed yet, newest first. The store is shared: another build's may be among them."""
    if run.replies is None:
        return []
    rows = [row for path in segments.listing(run.replies, "journal-*.jsonl") for row in _tail(path)]
    return sorted(rows, key=lambda row: row["written"], reverse=True)[:SHOWN]


def _tail(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as handle:
            start = max(handle.seek(0, 2) - TAIL_BYTES, 0)
            handle.seek(start)
            lines = handle.read(TAIL_BYTES).split(b"\n")
    except FileNotFoundError:
        return []  # sealed a moment ago
    found = []
    # The first line may begin before what was read, and the last one may be unfinished.
    for line in lines[1 if start else 0 : -1][-SHOWN:]:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # damage is for `recontext replies check`
        found.append({key: row.get(key) for key in ("key", "model", "written")} | {"completion": row["completion"][:LIMIT]})
    return found
