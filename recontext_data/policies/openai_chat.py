"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Groq and so on.

    policy: {kind: openai, model: gpt-4.1-mini}
    policy: {kind: openai, model: my-model, base_url: "http://127.0.0.1:8000/v1", api_key_env: ""}

Several completions of one prompt are asked for in one request, so that the prompt is billed once. Servers differ: some
honour `n`, some ignore it and send one choice, some refuse it. So the choices are counted, the missing ones are asked for
again, and a server that gives one at a time is asked for one at a time. The key is read from the environment when the
first request is sent; it is in no recipe, identity, reply or error.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from recontext_data.config import Config
from recontext_data.errors import PolicyError, SetupError
from recontext_data.policies.openai_reply import failure, read_choices, words
from recontext_data.records import Messages, Reply, Request

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

OPENAI = "https://api.openai.com/v1"
OWN_FIELDS = ("model", "messages", "n", "stream")
"""Body fields that the policy must set itself."""
NO_KEY = "none"
"""Sent to servers that need no key: the client insists on one, and the environment's must not go to strangers."""
LONGEST_ERROR = 500
"""Characters kept of a server's own words: some send whole pages of HTML."""


class OpenAIConfig(Config):
    """A model behind OpenAI's chat completions interface."""

    kind: Literal["openai"] = "openai"
    model: str
    """The model's name at the server."""
    base_url: str = Field(default=OPENAI, pattern=r"^https?://[^/]+")
    """The server, its path included; taken from the recipe alone, never from the environment."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for a server that needs none."""
    max_concurrency: int = Field(default=64, ge=1)
    """Requests under way at once."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """How long the server may be silent in one attempt; time in our queue does not count."""
    max_retries: int = Field(default=5, ge=0)
    """Further attempts after 408, 409, 429, 5xx, timeouts and broken connections."""
    max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = "auto"
    """Name of the limit in the body; `auto` is max_completion_tokens for OpenAI itself, max_tokens for others."""
    extra_body: dict[str, Any] = Field(default={})
    """More body fields, which win over ours; null leaves ours out (`temperature: null` for models that refuse it)."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("policy.base_url must not carry a user or password: it is stored with the replies")
        return url.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _no_own_fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in OWN_FIELDS if name in body]:
            raise ValueError(f"policy.extra_body must not set {taken[0]}: the policy sets it from the recipe")
        return body

    def build(self) -> "OpenAIPolicy":
        """The policy. Nothing is sent and no key is needed yet, so that a dry run works without one."""
        return OpenAIPolicy(self)


class OpenAIPolicy:
    """Samples a model behind OpenAI's chat completions interface."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._client: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._key = ""
        self._answered = False
        """Whether the server was ever reached: until then a failed connection is a wrong address."""
        self._several: bool | None = None
        """Whether the server gives several choices per request; None until it has shown."""

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        return f"{self._config.model} at {urlsplit(self._config.base_url).netloc}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server, model and extra body fields."""
        config = self._config
        return {"kind": "openai", "base_url": config.base_url, "model": config.model, "extra_body": config.extra_body}

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[Reply]:
        """Replies as they come.

        Raises:
            SetupError: the openai client is not installed.
            PolicyError: no key, a refused key, no such model, no quota, or nobody at the address; raised after the
                replies that were already under way.
        """
        client = self._connect()
        jobs = deque(_Job(request=request, places=range(len(request.ks))) for request in requests if request.ks)
        pending: set[asyncio.Task[_Outcome]] = set()
        fatal: str | None = None
        try:
            while pending or (jobs and fatal is None):
                while jobs and fatal is None and len(pending) < self._config.max_concurrency:
                    pending.add(asyncio.create_task(self._ask(client, jobs.popleft())))
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for outcome in [task.result() for task in done]:
                    fatal = fatal or outcome.fatal
                    jobs.extendleft(reversed(outcome.again))
                    for reply in outcome.replies:
                        yield reply
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        if fatal is not None:
            raise PolicyError(fatal)

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """None: only the server knows its tokenizer and template."""
        return None

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.close()
        self._client = None

    def _connect(self) -> "AsyncOpenAI":
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop that opened them
            try:
                from openai import AsyncOpenAI
            except ImportError as error:
                raise SetupError("policy.kind=openai needs the openai client: pip install openai") from error
            config = self._config
            self._key = _read_key(config.api_key_env)
            self._loop = loop
            self._client = AsyncOpenAI(
                api_key=self._key or NO_KEY,
                base_url=config.base_url,
                timeout=config.timeout_seconds,
                max_retries=config.max_retries,
            )
        return self._client

    async def _ask(self, client: "AsyncOpenAI", job: "_Job") -> "_Outcome":
        """Sends one request for the job's places, or splits the job where the server gives one choice at a time."""
        if self._several is False and len(job.places) > 1:
            return _Outcome(replies=[], again=job.singles(job.places))
        return await self._send(client, job)

    async def _send(self, client: "AsyncOpenAI", job: "_Job") -> "_Outcome":
        import httpx2
        from openai import APIError

        try:
            response = await client.post("/chat/completions", cast_to=httpx2.Response, body=self._body(job))
        except APIError as error:
            return await self._failed(client, job, error)
        self._answered = True
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            return self._error(job, f"the server's reply is not JSON: {words(response.text)}")
        return self._read(job, body)

    def _body(self, job: "_Job") -> dict[str, Any]:
        config, sampling = self._config, job.request.sampling
        limit = config.max_tokens_field
        if limit == "auto":
            limit = "max_completion_tokens" if _is_openai(config.base_url) else "max_tokens"
        body = {
            "model": config.model,
            "messages": list(job.request.messages),
            "n": len(job.places),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            limit: sampling.max_tokens,
            # 31 bits, since some servers keep a seed in 32; the reply's key has all of it
            "seed": job.request.seeds[job.places[0]] & 0x7FFFFFFF,
            **config.extra_body,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _read(self, job: "_Job", body: Any) -> "_Outcome":
        keys = [job.request.keys[place] for place in job.places]
        replies = read_choices(body, keys=keys)
        if not replies:
            told = body.get("error") if isinstance(body, dict) else None
            return self._error(job, words(told) if told else "the server sent no choices")
        if len(keys) > 1:
            self._several = len(replies) > 1
        missing = job.places[len(replies) :]
        return _Outcome(replies=replies, again=[job.part(missing)] if missing else [])

    async def _failed(self, client: "AsyncOpenAI", job: "_Job", error: "APIError") -> "_Outcome":
        from openai import APIConnectionError, APITimeoutError

        status = getattr(error, "status_code", None)
        text = failure(error, base_url=self._config.base_url, timeout_seconds=self._config.timeout_seconds)
        if status in (400, 422) and len(job.places) > 1 and self._several is None:
            return await self._blame(client, job, text)
        unreachable = isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)
        refused = status in (401, 402, 403, 404) or getattr(error, "code", None) == "insufficient_quota"
        if refused or (unreachable and not self._answered):
            return _Outcome(replies=[], again=[], fatal=f"{self.description}: {self._line(text)}")
        self._answered = self._answered or status is not None
        return self._error(job, text)

    async def _blame(self, client: "AsyncOpenAI", job: "_Job", text: str) -> "_Outcome":
        """Was it the prompt that was refused, or `n`? One completion alone tells, without reading the server's prose."""
        first, *rest = job.places
        outcome = await self._send(client, job.part([first]))
        if outcome.fatal is not None:
            return outcome
        if any(reply.completion is None for reply in outcome.replies):
            return self._error(job, text)
        self._several = False
        return _Outcome(replies=outcome.replies, again=job.singles(rest))

    def _error(self, job: "_Job", text: str) -> "_Outcome":
        said = self._line(text)
        keys = [job.request.keys[place] for place in job.places]
        return _Outcome(
            replies=[Reply(key=key, completion=None, error=said, model=self._config.model) for key in keys], again=[]
        )

    def _line(self, text: str) -> str:
        # Servers quote the key that they refuse. First the key, then the length: half a key is a key too.
        line = text.replace(self._key, "[key]") if self._key else text
        return line if len(line) <= LONGEST_ERROR else line[:LONGEST_ERROR] + " ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The places of a request (indices into its ks) that are still to be had."""

    request: Request
    places: Sequence[int]

    def part(self, places: Sequence[int]) -> "_Job":
        return _Job(request=self.request, places=places)

    def singles(self, places: Sequence[int]) -> list["_Job"]:
        return [self.part([place]) for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What one request brought: replies, jobs still to do, and the reason to stop altogether."""

    replies: list[Reply]
    again: list[_Job]
    fatal: str | None = None


def _is_openai(base_url: str) -> bool:
    return (urlsplit(base_url).hostname or "").endswith("api.openai.com")


def _read_key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise PolicyError(f"no API key: set {variable} in the environment; for a local server set policy.api_key_env=''")
    if not (key.isascii() and key.isprintable()):
        # Left to the client, this would be an error that quotes the key.
        raise PolicyError(f"the API key in {variable} has characters that no key has: copy it again")
    return key
