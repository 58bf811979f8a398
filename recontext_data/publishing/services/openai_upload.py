"""Files at the server: each content once, found by its name before it is sent, and looked for before it is sent again.

Small files go up in one piece, large ones in parts. A killed upload in parts goes on with the parts that the ledger has.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import md5
from pathlib import Path
from typing import TypeVar

from recontext_data.core.errors import PublishError
from recontext_data.publishing.services.ledger import Entry, Ledger
from recontext_data.publishing.services.openai_api import Lost, NotAllowed, Server, ServerBusy, parts_of
from recontext_data.publishing.services.openai_config import MEGABYTE, Endpoint
from recontext_data.publishing.services.openai_files import DataFile

T = TypeVar("T")

TRIES = 5
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever a server wishes."""
FIRST_LOOK = 0.3
WORKING = ("pending", "running", "uploading")
READY_SECONDS = 1800.0
"""How long a server may work on a file."""


async def looked_for(find: Callable[[], Awaitable[T | None]], *, until: float) -> T | None:
    """What `find` gives, asked more and more rarely until the Unix time `until`; at least once. A list may lag behind."""
    pause = FIRST_LOOK
    while True:
        found = await find()
        left = until - time.time()
        if found is not None or left <= 0:
            return found
        await asyncio.sleep(min(pause, left))
        pause *= 2


async def pause_for(attempt: int, wish: float | None) -> None:
    """Waits before the next try, where there is one: as long as the server wishes, else twice as long each time."""
    if attempt == TRIES - 1:
        return
    await asyncio.sleep(min(LONGEST_WAIT, 0.5 * 2**attempt if wish is None else wish))


class Uploader:
    """Brings files to a server."""

    def __init__(self, server: Server, ledger: Ledger, endpoint: Endpoint) -> None:
        self._server, self._ledger, self._endpoint = server, ledger, endpoint
        self._locks: dict[str, asyncio.Lock] = {}
        self._ids: dict[str, str] = {}

    async def file_id(self, file: DataFile) -> str:
        """The file's id at the server; sends it where it is not there. Equal files of several arms are one.

        Raises:
            PublishError: the server refuses it, or does not take it after several tries.
        """
        name = file.server_name
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._ids:
                file_id = await self._find(file) or await self._send(file)
                await self._ready(file_id, name)
                self._ids[name] = file_id
            return self._ids[name]

    async def _ready(self, file_id: str, name: str) -> None:
        """Waits while the server works on a file: Azure refuses jobs on one that is not processed yet."""
        began, pause, status = time.monotonic(), FIRST_LOOK, ""
        while time.monotonic() - began < READY_SECONDS:
            status = await self._server.file_status(file_id) or "missing"
            if status not in WORKING:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)
        if status in (*WORKING, "error", "missing"):
            raise PublishError(f"{self._server.name}: file {file_id} ({name}) is {status}; look at it there, then run again")

    async def _find(self, file: DataFile) -> str | None:
        name = file.server_name
        begun = self._ledger.open_since("upload", "uploaded", name=name)
        # Begun and not ended: what a killed process had sent may show up in the list only now.
        until = begun["time"] + self._endpoint.lookup_seconds if begun else 0.0
        found = await looked_for(lambda: self._listed(file), until=until)
        known = self._ledger.last("uploaded", name=name)
        if found is None and known and await self._server.file_status(known["file"]) not in (None, "error"):
            found = str(known["file"])
        if found is not None and begun is not None:
            self._ledger.add("uploaded", name=name, file=found, found=True)
        return found

    async def _listed(self, file: DataFile) -> str | None:
        listed = (await self._server.files()).get(file.server_name)
        return listed.id if listed is not None and listed.bytes == file.num_bytes else None

    async def _send(self, file: DataFile) -> str:
        name = file.server_name
        assert file.path is not None
        whole = file.num_bytes <= self._endpoint.single_file_mb * MEGABYTE
        told = ""
        for attempt in range(TRIES):
            entry = self._ledger.last("upload", name=name)
            if entry is None or self._ledger.open_since("upload", "uploaded", name=name) is None:
                self._ledger.add("upload", name=name, bytes=file.num_bytes, arm=file.arm, split=file.split)
            wish = None
            try:
                sent = await (self._server.upload(file.path, name) if whole else self._in_parts(file, file.path))
            except Lost as error:
                told = str(error)
                found = await looked_for(lambda: self._listed(file), until=time.time() + self._endpoint.lookup_seconds)
                sent = found or ""
            except ServerBusy as error:
                told, sent, wish = str(error), "", error.seconds
            if sent:
                self._ledger.add("uploaded", name=name, file=sent)
                return sent
            await pause_for(attempt, wish)
        raise PublishError(f"{told}; tried {TRIES} times; run again, and what is there is found")

    async def _in_parts(self, file: DataFile, path: Path) -> str:
        """Goes on with an upload that was begun, else begins one; the parts are the same bytes as long as the part size is."""
        name, size = file.server_name, int(self._endpoint.part_mb * MEGABYTE)
        begun = self._ledger.last("parts", name=name)
        if begun and begun["size"] == size and not self._ledger.last("parts_gone", upload=begun["upload"]):
            try:
                return await self._parts(begun, path, size)
            except NotAllowed:
                raise
            except PublishError:  # it has expired, or is complete and its file deleted
                self._ledger.add("parts_gone", upload=begun["upload"])
        upload = await self._server.begin_upload(name, file.num_bytes)
        self._ledger.add("parts", name=name, upload=upload, size=size)
        return await self._parts(self._ledger.entries[-1], path, size)

    async def _parts(self, begun: Entry, path: Path, size: int) -> str:
        upload = begun["upload"]
        sent = {
            entry["part"]: entry["id"] for entry in self._ledger.entries if entry.get("upload") == upload and "part" in entry
        }
        checksum = md5(usedforsecurity=False)
        with path.open("rb") as handle:
            for number, data in enumerate(parts_of(handle, size)):
                checksum.update(data)
                if number not in sent:
                    sent[number] = await self._part(upload, data)
                    self._ledger.add("part", upload=upload, part=number, id=sent[number])
        return await self._server.complete_upload(upload, [sent[i] for i in range(len(sent))], md5=checksum.hexdigest())

    async def _part(self, upload: str, data: bytes) -> str:
        told = ""
        for attempt in range(TRIES):
            try:
                return await self._server.add_part(upload, data)
            except Lost as error:
                told, wish = str(error), None
            except ServerBusy as error:
                told, wish = str(error), error.seconds
            await pause_for(attempt, wish)
        raise Lost(told)
