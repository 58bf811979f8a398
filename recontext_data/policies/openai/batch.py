"""OpenAI's Batch API: the same models at half the price, within a day.

    policy: {kind: openai_batch, model: gpt-4.1-mini}

Everything that is wanted goes up in one file (or as few as the limits allow), a line per prompt; the batch is polled until
it ends, and its lines are matched to what was asked by content. Nothing is bought twice: before anything is created, the
server's batches are looked through, and those that hold wanted replies are waited for or read. Killing the build leaves a
batch running, and the same command finds it again.

The replies are the same as those of `kind: openai` with the same model, server and extra_body, under the same keys, so a
build may be switched from one to the other half-way.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.core.errors import PolicyError
from recontext_data.core.records import Messages, Reply, Request, content_hash
from recontext_data.policies.openai.batch_lines import Content, contents, errors, lines_for, read_line
from recontext_data.policies.openai.batch_server import CONTENT, LIVE, BatchServer, metadata
from recontext_data.policies.openai.batch_state import BatchState, Keys
from recontext_data.policies.openai.chat import OPENAI, OpenAIConfig
from recontext_data.policies.openai.http import read_key

if TYPE_CHECKING:
    from openai.types import Batch

log = logging.getLogger(__name__)


class OpenAIBatchConfig(Config):
    """A model behind OpenAI's Batch API."""

    price_factor: ClassVar[float] = 0.5
    """Of the price of the same tokens asked for one request at a time."""
    stops_in_time: ClassVar[bool] = False

    kind: Literal["openai_batch"] = "openai_batch"
    model: str
    """The model's name at the server."""
    base_url: str = OPENAI
    """The server, its path included; taken from the recipe alone, never from the environment."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for a server that needs none."""
    poll_seconds: float = Field(default=30.0, gt=0)
    """How often to ask how far a batch is."""
    completion_window: str = "24h"
    """How long the server may take; what it has not done by then comes back as failed and is asked for by the next build."""
    max_requests_per_file: int = Field(default=50_000, ge=1)
    """Prompts in one batch."""
    max_bytes_per_file: int = Field(default=200_000_000, ge=1)
    """Bytes in one batch's input file."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one call may take; uploads have 15 minutes, batches have their window."""
    max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = "auto"
    """Name of the limit in the body; `auto` is max_completion_tokens for OpenAI itself, max_tokens for others."""
    extra_body: dict[str, Any] = Field(default={})
    """More body fields, which win over ours; null leaves ours out (`temperature: null` for models that refuse it)."""

    @model_validator(mode="after")
    def _as_for_chat(self) -> Self:
        self.chat()
        return self

    def chat(self) -> OpenAIConfig:
        """The same model asked one request at a time: its identity is ours, and what it refuses is refused here."""
        return OpenAIConfig(
            model=self.model, base_url=self.base_url, api_key_env=self.api_key_env,
            max_tokens_field=self.max_tokens_field, extra_body=self.extra_body,
        )  # fmt: skip

    def build(self, state: Path | None = None) -> "OpenAIBatchPolicy":
        """The policy. Nothing is sent and no key is needed yet, so that a dry run works without one.

        `state`: a folder, shared by all builds, that remembers which replies each batch was created for. With it, a build
        that was killed while it stored a batch's replies takes the rest from the same batch; without it, only a batch for
        exactly the same replies is found again.
        """
        return OpenAIBatchPolicy(self, state=state)


class OpenAIBatchPolicy:
    """Samples a model through batches."""

    def __init__(self, config: OpenAIBatchConfig, *, state: Path | None = None) -> None:
        self._config = config
        self._chat = config.chat()
        self._state = BatchState(state)
        self._server: tuple[asyncio.AbstractEventLoop, BatchServer] | None = None
        self.progress = ""
        self.on_progress: Callable[[str], object] = log.info
        """Is told of each change: hours may lie between two replies."""
        """How far the batches are, for the screen."""

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        return f"{self._config.model} at {urlsplit(self._chat.base_url).netloc}, in batches at half price"

    @property
    def identity(self) -> Mapping[str, Any]:
        """That of `kind: openai`: how a reply was paid for changes nothing of what it says."""
        return self._chat.build().identity

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies, batch by batch. All requests are collected first; leaving early leaves the batches running.

        Raises:
            SetupError: the openai client is not installed.
            PolicyError: no key, a refused key, or a batch that the server refuses or that failed its validation.
        """
        wanted = list(requests)
        server = self._connect()
        open_keys = {key: None for request in wanted for key in request.keys}
        if not open_keys:
            return
        watched: list[_Watched] = []
        async with self._state.locked():
            async for reply in self._resume(server, wanted, open_keys, watched):
                yield reply
            await self._create(server, wanted, open_keys, watched)
        while watched:
            for item in list(watched):
                batch = await server.look(item.batch_id)
                if batch is None or not self._ended(batch, server):
                    continue
                watched.remove(item)
                async for reply in self._finish(server, batch, item.keys, open_keys):
                    yield reply
            if watched:
                await asyncio.sleep(self._config.poll_seconds)

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """None: only the server knows its tokenizer and template."""
        return None

    async def close(self) -> None:
        """Closes the connections. Batches under way go on."""
        if self._server is not None and self._server[0] is asyncio.get_running_loop():
            await self._server[1].close()
        self._server = None

    def _connect(self) -> BatchServer:
        loop, config = asyncio.get_running_loop(), self._config
        if self._server is None or self._server[0] is not loop:  # connections belong to the loop that opened them
            key = read_key(config.api_key_env)
            server = BatchServer(
                self._chat.base_url, key=key, timeout_seconds=config.timeout_seconds, name=self.description
            )  # fmt: skip
            self._server = (loop, server)
        return self._server[1]

    async def _resume(
        self, server: BatchServer, wanted: Sequence[Request], open_keys: dict[str, None], watched: "list[_Watched]"
    ) -> AsyncIterator[Reply]:
        """Reads batches that have ended, and watches those under way, where they hold replies that are wanted.

        What failed in a batch that had ended before is asked for again: it was reported by the build that saw the end, or
        nobody saw it. What it did answer is kept.
        """
        known = {content.name: content.keys for content in self._contents(wanted, open_keys)}
        claimed: set[str] = set()
        for batch in await server.batches(self._policy):
            name = metadata(batch).get(CONTENT, "")
            keys = known.get(name) or self._state.read(name)
            if not any(key in open_keys and key not in claimed for line in keys.values() for key in line):
                continue
            if batch.status in LIVE:
                claimed.update(key for line in keys.values() for key in line)
                watched.append(_Watched(batch.id, keys))
                log.info("batch %s is found again: %s", batch.id, batch.status)
                continue
            async for reply in self._replies(server, batch, keys, open_keys):
                if reply.completion is not None:
                    del open_keys[reply.key]
                    yield reply

    async def _create(
        self, server: BatchServer, wanted: Sequence[Request], open_keys: dict[str, None], watched: "list[_Watched]"
    ) -> None:
        claimed = {key for item in watched for line in item.keys.values() for key in line}
        for content in self._contents(wanted, open_keys.keys() - claimed):
            # Remembered before it is created: a batch that nobody remembers would be bought again.
            self._state.write(content)
            batch = await server.create(
                content.encode(self._body),
                content=content.name, policy=self._policy, window=self._config.completion_window,
            )  # fmt: skip
            watched.append(_Watched(batch.id, content.keys))
            log.info("batch %s is created: %d prompts", batch.id, len(content.lines))

    def _ended(self, batch: "Batch", server: BatchServer) -> bool:
        counts = batch.request_counts
        done = f", {counts.completed} of {counts.total} prompts done, {counts.failed} failed" if counts else ""
        news = f"batch {batch.id}: {batch.status}{done}"
        if news != self.progress:
            self.on_progress(news)
        self.progress = news
        if batch.status == "failed":
            told = "; ".join(_told(error) for error in (batch.errors.data or [] if batch.errors else []))
            raise PolicyError(
                server.line(f"{self.description}: batch {batch.id} failed: {told or 'the server gave no reason'}")
            )
        return batch.status in ("completed", "expired", "cancelled")

    async def _finish(
        self, server: BatchServer, batch: "Batch", keys: Keys, open_keys: dict[str, None]
    ) -> AsyncIterator[Reply]:  # fmt: skip
        """All replies of a batch that has just ended; each key that is still open gets one, if only an error."""
        failed: dict[str, Reply] = {}
        async for reply in self._replies(server, batch, keys, open_keys):
            if reply.completion is None:
                failed[reply.key] = reply  # the other file, or another line, may have it
            else:
                del open_keys[reply.key]
                yield reply
        left = [key for line in keys.values() for key in line if key in open_keys]
        missing = f"batch {batch.status}" if batch.status != "completed" else "the batch's files have no line for this prompt"
        for key, lost in zip(left, errors(left, missing, model=self._config.model), strict=True):
            del open_keys[key]
            yield failed.get(key, lost)

    async def _replies(
        self, server: BatchServer, batch: "Batch", keys: Keys, open_keys: Mapping[str, None]
    ) -> AsyncIterator[Reply]:  # fmt: skip
        for file_id in (batch.output_file_id, batch.error_file_id):
            async for line in server.lines(file_id):
                for reply in read_line(line, keys=keys.get(str(line.get("custom_id")), ()), model=self._config.model):
                    if reply.key in open_keys:
                        yield reply if reply.error is None else _hidden(reply, server)

    @property
    def _policy(self) -> str:
        return content_hash(self.identity)

    def _contents(self, wanted: Iterable[Request], keys: Mapping[str, Any] | set[str]) -> Iterator[Content]:
        config = self._config
        lines = lines_for(wanted, keys=keys, body=self._body)
        return contents(lines, self._body, max_lines=config.max_requests_per_file, max_bytes=config.max_bytes_per_file)

    def _body(self, request: Request) -> dict[str, Any]:
        config, sampling = self._chat, request.sampling
        limit = config.max_tokens_field
        if limit == "auto":
            openai = (urlsplit(config.base_url).hostname or "").endswith("api.openai.com")
            limit = "max_completion_tokens" if openai else "max_tokens"
        body = {
            "model": config.model,
            "messages": request.messages,
            "n": len(request.ks),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            limit: sampling.max_tokens,
            # 31 bits, since some servers keep a seed in 32; the reply's key has all of it
            "seed": request.seeds[0] & 0x7FFFFFFF,
            **config.extra_body,
        }
        return {name: value for name, value in body.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Watched:
    """A batch under way, and what it was created for."""

    batch_id: str
    keys: Keys


def _hidden(reply: Reply, server: BatchServer) -> Reply:
    from dataclasses import replace

    return replace(reply, error=server.line(reply.error or ""))


def _told(error: Any) -> str:
    return f"{error.message or error.code}" + (f" (line {error.line})" if error.line else "")
