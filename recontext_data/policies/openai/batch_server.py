"""What is asked of a server that has OpenAI's Batch API, through the openai package, with its failures turned into words.

Creating a batch is what costs money, and there is no idempotency key: it is tried without the client's own retries, and
when the answer is lost the batch is looked for among the server's before it is created again. Everything else may be
repeated.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import PolicyError, SetupError
from recontext_data.policies.openai.batch_lines import ENDPOINT
from recontext_data.policies.openai.reply import words

if TYPE_CHECKING:
    from openai import APIError
    from openai.types import Batch

log = logging.getLogger(__name__)

CONTENT, POLICY = "recontext_content", "recontext_policy"
"""Names in a batch's metadata: the hash of its input file, and of the policy's identity."""
LIVE = ("validating", "in_progress", "finalizing", "cancelling")
UPLOAD_SECONDS = 900.0
"""For 200 MB over a slow line."""
CREATIONS = 4
MAX_POLL_FAILURES = 3
DOWNLOADS = 5
LONGEST_ERROR = 500
NO_KEY = "none"
"""Sent to servers that need no key: the client insists on one, and the environment's must not go to strangers."""


class BatchServer:
    """One server, spoken to by one event loop."""

    def __init__(self, base_url: str, *, key: str, timeout_seconds: float, name: str) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise SetupError("policy.kind=openai_batch needs the openai client: pip install openai") from error
        self._key = key
        self._name = name
        self._client = AsyncOpenAI(api_key=key or NO_KEY, base_url=base_url, timeout=timeout_seconds, max_retries=4)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def batches(self, policy: str) -> "list[Batch]":
        """The batches that were created for this policy, newest first."""
        with self._in_words("batches cannot be listed"):
            return [batch async for batch in self._client.batches.list(limit=100) if metadata(batch).get(POLICY) == policy]

    async def create(self, data: bytes, *, content: str, policy: str, window: str) -> "Batch":
        """Uploads an input file and creates its batch.

        Raises:
            PolicyError: the server refuses it, or cannot be reached.
        """
        before = {batch.id for batch in await self.batches(policy)}
        upload = self._client.with_options(timeout=UPLOAD_SECONDS)
        with self._in_words("the input file cannot be uploaded"):
            file = await upload.files.create(file=(f"{content[:16]}.jsonl", data), purpose="batch")
        fields = {"endpoint": ENDPOINT, "completion_window": window, "metadata": {CONTENT: content, POLICY: policy}}
        for attempt in range(CREATIONS):
            batch, lost = await self._create_once(file.id, fields, last=attempt == CREATIONS - 1)
            if batch is None and lost:
                batch = await self._find(content, policy, before=before)
            if batch is not None:
                return batch
            await asyncio.sleep(2.0**attempt)
        raise PolicyError(f"{self._name}: the batch was neither created nor refused; run again, and it is found if it exists")

    async def look(self, batch_id: str) -> "Batch | None":
        """The batch as it stands; None where the server could not say just now."""
        from openai import APIConnectionError, InternalServerError, RateLimitError

        with self._in_words(f"batch {batch_id} cannot be read"):
            try:
                return await self._client.batches.retrieve(batch_id)
            except (APIConnectionError, InternalServerError, RateLimitError):
                # A batch takes hours: waiting for it must outlive a server's bad hour.
                log.warning("%s does not say how batch %s is; asking again", self._name, batch_id)
                return None

    async def lines(self, file_id: str | None) -> AsyncIterator[Mapping[str, Any]]:
        """The lines of an output or error file, held on disk; none if there is no such file (any more)."""
        if not file_id:
            return
        with tempfile.TemporaryFile() as file:
            if not await self._download(file_id, file):
                return
            file.seek(0)
            for raw in file:
                try:
                    line = orjson.loads(raw)
                except orjson.JSONDecodeError:
                    continue  # what it was about is missed by key
                if isinstance(line, dict):
                    yield line

    async def _create_once(self, file_id: str, fields: Mapping[str, Any], *, last: bool) -> "tuple[Batch | None, bool]":
        """The batch if it was created, and whether it may have been although the answer was lost."""
        from openai import APIConnectionError, InternalServerError, RateLimitError

        once = self._client.with_options(max_retries=0)
        with self._in_words("the batch cannot be created"):
            try:
                return await once.batches.create(input_file_id=file_id, **fields), False
            except RateLimitError as error:
                if last or getattr(error, "code", None) == "insufficient_quota":
                    raise
                return None, False
            except (APIConnectionError, InternalServerError):
                return None, True

    async def _find(self, content: str, policy: str, *, before: set[str]) -> "Batch | None":
        for look in range(MAX_POLL_FAILURES):
            await asyncio.sleep(0.3 * 3**look)  # a list may lag behind what was created
            for batch in await self.batches(policy):
                if batch.id not in before and metadata(batch).get(CONTENT) == content:
                    return batch
        return None

    async def _download(self, file_id: str, file: IO[bytes]) -> bool:
        import httpx2
        from openai import NotFoundError

        for attempt in range(DOWNLOADS):
            file.seek(0)
            file.truncate()
            with self._in_words(f"file {file_id} cannot be read"):
                try:
                    async with self._client.files.with_streaming_response.content(file_id) as response:
                        async for part in response.iter_bytes():
                            file.write(part)
                    return True
                except NotFoundError:
                    return False
                except httpx2.HTTPError:  # broken off half-way, which the client does not repeat
                    await asyncio.sleep(0.5 * 2**attempt)
        raise PolicyError(f"{self._name}: file {file_id} broke off {DOWNLOADS} times: run again, and it is read again")

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        from openai import APIError

        try:
            yield
        except APIError as error:
            # From None: the client's errors carry the request, and with it the key.
            raise PolicyError(self._words(what, error)) from None

    def _words(self, what: str, error: "APIError") -> str:
        status = getattr(error, "status_code", None)
        told = words(error.body if error.body is not None else error.message)
        return self.line(f"{self._name}: {what}: {f'status {status}: ' if status else ''}{told}")

    def line(self, text: str) -> str:
        """Words for an error: without the key, and not endless. In this order, since half a key is a key too."""
        text = text.replace(self._key, "[key]") if self._key else text
        return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + " ..."


def metadata(batch: "Batch") -> Mapping[str, str]:
    """A batch's metadata; empty where the server keeps none."""
    return batch.metadata or {}
