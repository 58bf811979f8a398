"""What the batches of all builds were created for, in a folder: a file per batch, named by the hash of its input.

It is what lets a build that was killed half-way through storing a batch's replies take the rest from the same batch. Only
hashes are kept, no prompts. Without a folder, nothing is remembered.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from recontext_data.policies.openai.batch_lines import Content
from recontext_data.store.files import replace_file, writing

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

Keys = Mapping[str, Sequence[str]]
"""custom_id -> the reply keys of its line."""


class BatchState:
    """Which replies each batch was created for."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str) -> Keys:
        """What the batch with this input was created for; nothing where that is not known."""
        path = self._path(name)
        if path is None or not path.is_file():
            return {}
        keys: Keys = orjson.loads(path.read_bytes())
        return keys

    def write(self, content: Content) -> None:
        """Remembers a batch that is about to be created; on disk when this returns."""
        path = self._path(content.name)
        if path is not None:
            replace_file(path, lambda temporary: temporary.write_bytes(orjson.dumps(content.keys)))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """One build at a time looks and creates, so that two at once do not buy the same."""
        if self._folder is None:
            yield
            return
        from filelock import FileLock

        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / "creating.lock", thread_local=False)
        while not await asyncio.to_thread(_taken, lock):
            log.info("another build is creating batches")
        try:
            yield
        finally:
            lock.release()

    def _path(self, name: str) -> Path | None:
        # The name comes from a server: only a hash may become a path.
        known = len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)
        return self._folder / f"{name}.json" if self._folder is not None and known else None


def _taken(lock: "FileLock") -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=5)
    except Timeout:
        return False
    return True
