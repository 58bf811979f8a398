"""What the moderation endpoint says of every text, asked in batches, each text once.

Verdicts are kept in <folder>/moderation.jsonl by the hash of the text, so that a second run asks for new texts only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

import orjson

from recontext_data.store.files import writing

Ask = Callable[[Sequence[str]], Awaitable[list[str | None]]]
"""Texts -> for each the categories that it was flagged for, joined by commas, or None."""

TEXTS, CHARACTERS = 64, 200_000
"""In one request at most."""
AT_ONCE = 4
NAME = "moderation.jsonl"


class Moderator:
    """Asks about texts it has not seen."""

    def __init__(self, ask: Ask, *, folder: Path | None, model: str) -> None:
        self._ask, self._model = ask, model
        self._path = folder / NAME if folder else None
        self._known: dict[bytes, str | None] = {}
        if self._path and self._path.is_file():
            self._read(self._path)

    async def verdicts(self, texts: Iterable[str]) -> dict[str, str | None]:
        """Text -> what it was flagged for, None for nothing."""
        wanted = {text: self._key(text) for text in texts}
        new = [text for text, key in wanted.items() if key not in self._known]
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(batch: list[str]) -> None:
            async with gate:
                flags = await self._ask(batch)
            self._keep({self._key(text): flag for text, flag in zip(batch, flags, strict=True)})

        await asyncio.gather(*[ask(batch) for batch in _batches(new)])
        return {text: self._known[key] for text, key in wanted.items()}

    def _key(self, text: str) -> bytes:
        return sha256(f"{self._model}\0{text}".encode()).digest()[:16]

    def _keep(self, verdicts: dict[bytes, str | None]) -> None:
        self._known |= verdicts
        if self._path is None:
            return
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as handle:
                handle.write(b"".join(orjson.dumps([key.hex(), flag]) + b"\n" for key, flag in verdicts.items()))

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            try:
                key, flag = orjson.loads(line)
                self._known[bytes.fromhex(key)] = flag
            except (ValueError, TypeError):
                continue  # cut short by a kill: asked again


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    stream = iter(texts)
    while some := list(islice(stream, TEXTS)):
        batch: list[str] = []
        size = 0
        for text in some:
            if batch and size + len(text) > CHARACTERS:
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        yield batch
