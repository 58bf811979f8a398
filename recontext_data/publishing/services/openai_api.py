"""What is asked of a server with OpenAI's fine-tuning API, through the openai package, its failures turned into words.

Uploading a file and creating a job are tried once per call, without the client's own retries, and say when the answer was
lost: the caller then looks the thing up before it tries again. Reading may be repeated, and the client does. Keys go into
the client and nowhere else; where a server echoes one, it is blotted out.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from recontext_data.core.errors import PolicyError, PublishError, SetupError
from recontext_data.policies.openai.http import read_key, retry_after
from recontext_data.policies.openai.reply import words
from recontext_data.publishing.services.openai_config import Endpoint

if TYPE_CHECKING:
    from openai import APIError, APIStatusError
    from openai.types import FileObject
    from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
    from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

PURPOSE: Literal["fine-tune"] = "fine-tune"
UPLOAD_SECONDS = 900.0
"""For 512 MB over a slow line."""
LONGEST_ERROR = 500
NO_KEY = "none"
"""Sent to servers that need no key: the client insists on one, and the environment's must not go to strangers."""
SPENT = "insufficient_quota"


class Lost(Exception):
    """The answer to something that may have been done did not come."""


class ServerBusy(Exception):
    """The server wants to be asked later; nothing was done."""

    def __init__(self, told: str, seconds: float | None) -> None:
        super().__init__(told)
        self.seconds = seconds


class NotAllowed(PublishError):
    """The organisation may not do this at all."""

    exit_code = 2


class Server:
    """One server, spoken to by one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise SetupError("to=openai needs the openai client: pip install openai") from error
        self.name = urlsplit(endpoint.base_url).netloc
        self._key = key_of(endpoint.api_key_env)
        self._client = AsyncOpenAI(
            api_key=self._key or NO_KEY, base_url=endpoint.base_url, timeout=endpoint.timeout_seconds, max_retries=4
        )

    async def close(self) -> None:
        """Closes the connections. Jobs go on."""
        await self._client.close()

    async def files(self) -> "dict[str, FileObject]":
        """The fine-tuning files at the server by name; those that it found faulty are left out."""
        with self._in_words("files cannot be listed"):
            listed = [file async for file in self._client.files.list(purpose=PURPOSE)]
        return {file.filename: file for file in listed if file.status != "error"}

    async def file_status(self, file_id: str) -> str | None:
        """The server's word on a file; None where there is none of this id."""
        from openai import NotFoundError

        with self._in_words(f"file {file_id} cannot be read"):
            try:
                return str((await self._client.files.retrieve(file_id)).status)
            except NotFoundError:
                return None

    async def upload(self, path: Path, name: str) -> str:
        """Sends a file in one piece, read as it goes; returns its id.

        Raises:
            Lost, Busy, PublishError
        """
        once = self._client.with_options(max_retries=0, timeout=UPLOAD_SECONDS)
        with self._once(f"{name} cannot be uploaded"), path.open("rb") as handle:
            return (await once.files.create(file=(name, handle), purpose=PURPOSE)).id

    async def begin_upload(self, name: str, num_bytes: int) -> str:
        """Begins an upload in parts; returns its id. One that is never completed becomes no file."""
        with self._once(f"{name} cannot be uploaded in parts"):
            upload = await self._client.uploads.create(
                filename=name, bytes=num_bytes, purpose=PURPOSE, mime_type="application/jsonl"
            )
            return upload.id

    async def add_part(self, upload_id: str, data: bytes) -> str:
        """Sends one part; returns its id. A part whose answer is lost may be sent again: only named parts count."""
        once = self._client.with_options(max_retries=0, timeout=UPLOAD_SECONDS)
        with self._once(f"a part of upload {upload_id} cannot be sent"):
            return (await once.uploads.parts.create(upload_id, data=("part", data))).id

    async def complete_upload(self, upload_id: str, part_ids: Sequence[str], *, md5: str) -> str:
        """Makes a file of the parts; returns its id."""
        once = self._client.with_options(max_retries=0, timeout=UPLOAD_SECONDS)
        with self._once(f"upload {upload_id} cannot be completed"):
            upload = await once.uploads.complete(upload_id, part_ids=list(part_ids), md5=md5)
        if upload.file is None:
            raise Lost(f"upload {upload_id} was completed without a file")
        return upload.file.id

    async def jobs(self) -> "list[FineTuningJob]":
        """Every fine-tuning job that the key may see."""
        with self._in_words("jobs cannot be listed"):
            return [job async for job in self._client.fine_tuning.jobs.list(limit=100)]

    async def create_job(self, request: Mapping[str, Any]) -> "FineTuningJob":
        """Creates a job, which costs money; asked once, without a retry.

        Raises:
            Lost, Busy, NotAllowed, PublishError
        """
        once = self._client.with_options(max_retries=0)
        with self._once("the job cannot be created"):
            return await once.fine_tuning.jobs.create(**request)

    async def job(self, job_id: str) -> "FineTuningJob | None":
        """The job as it stands; None where the server cannot say just now.

        Raises:
            PublishError: there is no such job, or the key may not see it.
        """
        from openai import APIConnectionError, InternalServerError, RateLimitError

        with self._in_words(f"job {job_id} cannot be read"):
            try:
                return await self._client.fine_tuning.jobs.retrieve(job_id)
            except (APIConnectionError, InternalServerError, RateLimitError):
                return None  # a job takes hours: waiting for it must outlive a server's bad hour

    async def events(self, job_id: str, seen: set[str]) -> "list[FineTuningJobEvent]":
        """Events that are not in `seen`, oldest first; none where the server cannot say just now."""
        from openai import APIError

        found: list[FineTuningJobEvent] = []
        try:
            async for event in self._client.fine_tuning.jobs.list_events(job_id, limit=100):
                if event.id in seen:  # the server has the newest first
                    break
                found.append(event)
        except APIError:
            return []  # they are news, not results
        return found[::-1]

    async def checkpoints(self, job_id: str) -> "list[FineTuningJobCheckpoint]":
        """The checkpoints of a job; none where the server has no such thing."""
        from openai import APIError

        try:
            return [one async for one in self._client.fine_tuning.jobs.checkpoints.list(job_id, limit=10)]
        except APIError:
            return []  # they are extra: the job's own model is known

    async def cancel(self, job_id: str) -> "FineTuningJob":
        """Cancels a job."""
        with self._in_words(f"job {job_id} cannot be cancelled"):
            return await self._client.fine_tuning.jobs.cancel(job_id)

    async def moderate(self, texts: Sequence[str], *, model: str) -> list[str | None]:
        """For each text what it is flagged for, or None."""
        with self._in_words("texts cannot be moderated"):
            told = await self._client.moderations.create(input=list(texts), model=model)
        if len(told.results) != len(texts):
            raise PublishError(f"{self.name}: moderation gave {len(told.results)} verdicts for {len(texts)} texts")
        return [_flags(result) for result in told.results]

    @contextmanager
    def _once(self, what: str) -> Iterator[None]:
        """For what must not be repeated blindly: was the answer lost, is it refused for now, or for good?"""
        from openai import APIConnectionError, InternalServerError, PermissionDeniedError, RateLimitError

        with self._in_words(what):
            try:
                yield
            except RateLimitError as error:
                if error.code == SPENT:
                    raise
                wish = retry_after(error.response.headers, now=time.time())
                raise ServerBusy(self._words(what, error), wish) from None
            except (APIConnectionError, InternalServerError) as error:
                raise Lost(self._words(what, error)) from None
            except PermissionDeniedError as error:
                raise NotAllowed(self._words(what, error)) from None

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        from openai import APIError

        try:
            yield
        except APIError as error:
            # From None: the client's errors carry the request, and with it the key.
            raise PublishError(self._words(what, error)) from None

    def _words(self, what: str, error: "APIError | APIStatusError") -> str:
        status = getattr(error, "status_code", None)
        told = words(error.body if error.body is not None else error.message)
        return self.line(f"{self.name}: {what}: {f'status {status}: ' if status else ''}{told}")

    def line(self, text: str) -> str:
        """Words for a person: without the key, and not endless. In this order, since half a key is a key too."""
        text = text.replace(self._key, "[key]") if self._key else text
        return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + " ..."


def key_of(variable: str) -> str:
    """The key in an environment variable; "" where none is needed.

    Raises:
        SetupError: it is not set, or is not a key.
    """
    try:
        return read_key(variable)
    except PolicyError as error:
        raise SetupError(str(error).replace("policy.", "server.")) from None


def parts_of(handle: IO[bytes], size: int) -> Iterator[bytes]:
    """A file in pieces of so many bytes."""
    while data := handle.read(size):
        yield data


def _flags(result: Any) -> str | None:
    if not result.flagged:
        return None
    named = [name for name, flagged in result.categories.model_dump(by_alias=True).items() if flagged]
    return ", ".join(sorted(named)) or "flagged"
