"""What must not leave this machine: the values of its keys. Looked for in every text and every row before they go up.

A server's error may quote a key, and the ledger keeps errors in the server's words; so it is not enough to write no key.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from recontext_data.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?(_|$)", re.IGNORECASE)
LEAST = 12
"""Characters of a value that can be looked for; a shorter one is found by chance."""


class KnownSecrets:
    """The keys of this machine, by where they come from."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value.encode() for name, value in values.items() if len(value) >= LEAST}

    @classmethod
    def here(cls, *, more: Mapping[str, str] | None = None) -> "KnownSecrets":
        """The environment's keys, by the names of their variables, and `more` (such as a stored login)."""
        named = {name: value.strip() for name, value in os.environ.items() if _NAMES.search(name)}
        paths = {name for name, value in named.items() if value.startswith(("/", "~", ".")) or os.path.exists(value)}
        return cls({name: value for name, value in named.items() if name not in paths} | dict(more or {}))

    def check(self, texts: Iterable[tuple[str, bytes]]) -> None:
        """Raises DataError where a text holds a key; the message names the key, never its value."""
        for path, text in texts:
            for name, value in self._values.items():
                if value in text:
                    raise DataError(f"{path}: holds the value of {name}; nothing was sent; take it out of the run, revoke it")

    def check_rows(self, batch: "pa.RecordBatch", *, where: str) -> None:
        """The same for the text columns of a batch, through their buffers."""
        if not self._values:
            return
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            texts = [(f"{where}, column {name}", buffer.to_pybytes()) for buffer in column.buffers() if buffer is not None]
            self.check(texts)

    def hide(self, text: str) -> str:
        """A text to show, with `***` in place of every key."""
        for value in self._values.values():
            text = text.replace(value.decode(), "***")
        return text
