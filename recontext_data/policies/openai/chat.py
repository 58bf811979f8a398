"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Groq and so on.

    policy: {kind: openai, model: gpt-4.1-mini}
    policy: {kind: openai, model: my-model, base_url: "http://127.0.0.1:8000/v1", api_key_env: ""}

Several completions of one prompt are asked for in one request, so that the prompt is billed once. Servers differ: some
honour `n`, some ignore it and send one choice, some refuse it. So the choices are counted, the missing ones are asked for
again with the seed of the first missing rank, and a server that gives one at a time is asked for one at a time. With
several choices in a request the seed of each rank is only a hint: servers derive n texts from the one seed that is sent.
The key is read from the environment when the first request is sent; it is in no recipe, identity, reply or error.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from recontext_data.core.config import Config
from recontext_data.core.records import Messages, Reply, Request
from recontext_data.policies.openai.http import Wire, read_key
from recontext_data.policies.openai.pacing import Pacer
from recontext_data.policies.openai.scheduler import HttpJob, RequestScheduler, RequestSettings, ServerCapabilities

OPENAI = "https://api.openai.com/v1"
OWN_FIELDS = ("model", "messages", "n", "stream", "logprobs", "top_logprobs")
"""Body fields that the policy must set itself."""
CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
"""Body fields with which a server goes on with a last assistant turn."""
BYTES_PER_TOKEN = 4
"""For a guess at what a request will cost of `tpm`; put right when its usage is known."""


class OpenAIConfig(Config):
    """A model behind OpenAI's chat completions interface."""

    price_factor: ClassVar[float] = 1.0
    stops_in_time: ClassVar[bool] = True

    kind: Literal["openai"] = "openai"
    model: str
    """The model's name at the server."""
    base_url: str = Field(default=OPENAI, pattern=r"^https?://[^/]+")
    """The server, its path included; taken from the recipe alone, never from the environment."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for a server that needs none."""
    max_concurrency: int = Field(default=256, ge=1)
    """Requests under way at once, at most; fewer while the server complains."""
    rpm: float | None = Field(default=None, gt=0)
    """Requests per minute that must not be exceeded; without it, what the server allows is learned from its refusals."""
    tpm: float | None = Field(default=None, gt=0)
    """Tokens per minute, prompts and completions together, that must not be exceeded."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one attempt may take, from sending to the last byte of the answer; time in our queue does not count."""
    max_retries: int = Field(default=5, ge=0)
    """Further attempts after 408, 409, 5xx, timeouts and broken connections. A rate limit is waited out and counts for none."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """Keep each token's log-probability in the reply's details, with so many alternatives to it; null keeps none."""
    max_tokens_field: Literal["auto", "max_completion_tokens", "max_tokens"] = "auto"
    """Name of the limit in the body; `auto` is max_completion_tokens for OpenAI itself, max_tokens for others."""
    continues_prefill: bool = False
    """Whether the server goes on with a last assistant turn instead of answering it, when told continue_final_message (vLLM,
    SGLang). OpenAI's own does not."""
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
        self._manners = ServerCapabilities()
        self._line: tuple[asyncio.AbstractEventLoop, Wire, Pacer] | None = None
        self._fixed = _fixed_fields(config)

    @property
    def continues_prefill(self) -> bool:
        """Whether a prompt may end in the beginning of the answer."""
        return self._config.continues_prefill

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        return f"{self._config.model} at {urlsplit(self._config.base_url).netloc}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server, model and extra body fields; also log-probabilities, since a reply without them is not what was asked for."""
        config = self._config
        kept = {} if config.logprobs is None else {"logprobs": config.logprobs}
        return {"kind": "openai", "base_url": config.base_url, "model": config.model, "extra_body": config.extra_body, **kept}

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies as they come. A request is taken from `requests` only when it is about to be sent.

        Raises:
            PolicyError: no key, a refused key, no such model, no quota, or nobody at the address; raised after the
                replies that were already under way.
        """
        async with aclosing(self.sample_groups(requests)) as groups:
            async for group in groups:
                for reply in group:
                    yield reply

    async def sample_groups(
        self, requests: Iterable[Request], *, may_send: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[list[Reply], None]:
        """Replies in groups, as `policies.base.InGroups` says.

        Raises:
            PolicyError: as for `sample`.
        """
        wire, pacer = self._connect()
        config = self._config
        terms = RequestSettings(
            body=self._body,
            max_concurrency=config.max_concurrency,
            max_retries=config.max_retries,
            logprobs=config.logprobs is not None,
            model=config.model,
            name=self.description,
            may_send=may_send,
        )
        crew = RequestScheduler(requests, wire=wire, pacer=pacer, manners=self._manners, terms=terms)
        async with aclosing(crew.groups()) as groups:  # at once, not with the garbage: requests must not outlive this call
            async for group in groups:
                yield group

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """None: only the server knows its tokenizer and template."""
        return None

    async def close(self) -> None:
        """Closes the connections."""
        line, self._line = self._line, None
        if line is not None and line[0] is asyncio.get_running_loop():
            await line[1].close()

    def _connect(self) -> tuple[Wire, Pacer]:
        loop, config = asyncio.get_running_loop(), self._config
        if self._line is None or self._line[0] is not loop:  # connections belong to the loop that opened them
            wire = Wire(config.base_url, key=read_key(config.api_key_env), timeout_seconds=config.timeout_seconds)
            self._line = (loop, wire, Pacer(max_concurrency=config.max_concurrency, rpm=config.rpm, tpm=config.tpm))
        return self._line[1:]

    def _body(self, job: HttpJob) -> tuple[bytes, float]:
        """The bytes of a job, and what it may cost in tokens."""
        config, request = self._config, job.request
        sampling = request.sampling
        fields = {
            "model": config.model,
            "messages": request.messages,
            "n": len(job.places),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            _limit_field(config): sampling.max_tokens,
            # 31 bits, since some servers keep a seed in 32; the reply's key has all of it
            "seed": request.seeds[job.places[0]] & 0x7FFFFFFF,
            **(CONTINUED if request.messages[-1]["role"] == "assistant" else {}),
            **self._fixed,
        }
        body = orjson.dumps({name: value for name, value in fields.items() if value is not None}, default=list)
        return body, len(body) / BYTES_PER_TOKEN + sampling.max_tokens * len(job.places)


def _fixed_fields(config: OpenAIConfig) -> dict[str, Any]:
    """Body fields that are the same in all requests; null means to leave a field out."""
    logprobs: dict[str, Any] = {} if config.logprobs is None else {"logprobs": True}
    if config.logprobs:
        logprobs["top_logprobs"] = config.logprobs
    return logprobs | config.extra_body


def _limit_field(config: OpenAIConfig) -> str:
    if config.max_tokens_field != "auto":
        return config.max_tokens_field
    hostname = urlsplit(config.base_url).hostname or ""
    return "max_completion_tokens" if hostname.endswith("api.openai.com") else "max_tokens"
