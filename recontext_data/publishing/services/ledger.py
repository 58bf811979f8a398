"""What was done at a server and what is about to be: one line per step, on disk before the step and after it.

<run>/openai/ledger.jsonl, one JSON object per line: `time` (Unix seconds), `step`, and what it is about. Lines are only ever
added. A kill may cut the last one short; it is taken off when the ledger is opened again.
"""

import os
import time
from pathlib import Path
from typing import Any

import orjson

from recontext_data.store.files import writing
from recontext_data.store.journal import sync_folder

NAME = "ledger.jsonl"
Entry = dict[str, Any]


class Ledger:
    """The ledger of one run. Whoever holds the run's lock repairs it; who does not may still add lines."""

    def __init__(self, folder: Path, *, repair: bool = True) -> None:
        self._repair = repair
        self.path = folder / NAME
        self.entries: list[Entry] = []
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._read()

    def add(self, step: str, **facts: Any) -> None:
        """One more line; on disk, synced, when this returns.

        Raises:
            StoreError: it cannot be written; the step must then not be taken.
        """
        entry = {"time": time.time(), "step": step, **facts}
        with writing(self.path):
            is_new = not self.path.exists()
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                rest = memoryview(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            if is_new:
                sync_folder(self.path.parent)
        self.entries.append(entry)

    def last(self, step: str, **facts: Any) -> Entry | None:
        """The newest line of a step with these facts."""
        for entry in reversed(self.entries):
            if entry["step"] == step and _has(entry, facts):
                return entry
        return None

    def open_since(self, begun: str, *done: str, **facts: Any) -> Entry | None:
        """The line of a step that was begun and of which no end is written: its answer may be lost."""
        for entry in reversed(self.entries):
            if entry["step"] in done and _has(entry, facts):
                return None
            if entry["step"] == begun and _has(entry, facts):
                return entry
        return None

    def _read(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                self.entries.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                continue  # two halves of a line, left by a full disk; the servers' lists say the rest
        if len(whole) < len(data) and self._repair:
            os.truncate(self.path, len(whole))


def _has(entry: Entry, facts: Entry) -> bool:
    return all(entry.get(name) == value for name, value in facts.items())
