"""Any causal language model, sampled by vLLM in this process: for GPUs.

    policy: {kind: vllm, model: Qwen/Qwen2.5-7B-Instruct}
    policy: {kind: vllm, model: Qwen/Qwen2.5-7B-Instruct, adapter: path/to/lora, extra: {enforce_eager: true}}

Written against vLLM's documented offline interface (LLM.generate, SamplingParams, LoRARequest; 0.11 and later) and run with
vLLM 0.32 on a CPU (tests/test_policy_vllm_real.py); it has not been run on a GPU here. A completion is a request of its own,
since only a request has a seed; the prompt that its siblings share is kept by vLLM's prefix cache. Prompts are rendered by
this package and go in as tokens. As with every batched engine, a seed's text may differ in another batch by float noise.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from recontext_data.core.chat_template import encode_prompt
from recontext_data.core.config import Config
from recontext_data.core.errors import InputError, PolicyError, SetupError
from recontext_data.core.records import Reply, Request, SamplingParams, content_hash
from recontext_data.policies.base import too_long
from recontext_data.policies.local.adapters import PROBE, Adapter, find_adapter
from recontext_data.policies.local.model_folder import ModelFolder, find_model, first_line, pick_template
from recontext_data.policies.local.prompting import Prompting

T = TypeVar("T")

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Sizes that vLLM makes room for an adapter in."""
PROBE_TOKENS = 8
"""Less than a block of vLLM's prefix cache, so that both halves of the probe are computed in the same way, to the last bit."""
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
"""Environment of vLLM where the user has set nothing else: its log is long, and standard output is this package's own."""
LOOK_SECONDS = 1.0
"""How often it is looked whether an engine that is waited for still lives."""
MOVED = 1e-6
"""Log-probability by which an adapter must move some token of the probe."""


class VllmConfig(Config):
    """A model sampled by vLLM in this process."""

    kind: Literal["vllm"] = "vllm"
    model: str
    """A folder in the Transformers format, or a Hub id such as org/name."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id; replies are stored under the commit that it stands at."""
    adapter: str | None = None
    """A folder with a LoRA adapter that PEFT wrote, to be put on the model."""
    check_base: bool = True
    """Whether the adapter must name this model as its base; false where the same model has another name here."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory; `auto` is as stored."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that vLLM takes."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens together, at most; less than the model's own saves memory."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share the model."""
    chat_template: str | None = None
    """File with a Jinja chat template, for a tokenizer that has none or has the wrong one."""
    batch_size: int = Field(default=1024, ge=1)
    """Completions handed to vLLM at once and stored together: what a killed build loses at most. No part of the identity."""
    extra: dict[str, Any] = Field(default={})
    """More arguments for vllm.LLM, by name: quantization, enforce_eager, max_num_seqs and so on."""

    @field_validator("extra")
    @classmethod
    def _no_own_arguments(cls, extra: dict[str, Any]) -> dict[str, Any]:
        own = {"model", "tokenizer", "revision", "dtype", "gpu_memory_utilization", "max_model_len", "tensor_parallel_size"}
        if taken := sorted(own & set(extra)):
            raise ValueError(f"policy.extra must not set {taken[0]}: set policy.{taken[0]}, or leave it to the policy")
        return extra

    def build(self, *, engine: Any = None) -> "VllmPolicy":
        """The policy, its files checked and nothing heavy loaded. `engine`: what stands in for the module `vllm` in tests.

        Raises:
            SetupError: the extra `vllm` is not installed.
            PolicyError: the model or the adapter is missing, incomplete or of another kind.
        """
        if engine is None and find_spec("vllm") is None:
            raise SetupError("policy.kind=vllm needs vllm: pip install 'recontext_data[vllm]'")
        folder = find_model(self.model, revision=self.revision)
        template = pick_template(self.chat_template, folder)
        adapter = find_adapter(self.adapter, base=folder, check_base=self.check_base) if self.adapter else None
        if adapter is not None and adapter.rank > RANKS[-1]:
            raise PolicyError(f"policy.adapter: {adapter.name} has rank {adapter.rank}, and vLLM takes {RANKS[-1]} at most")
        return VllmPolicy(folder, config=self, chat_template=template, adapter=adapter, engine=engine)


class VllmPolicy(Prompting):
    """A causal language model in vLLM, in this process."""

    def __init__(
        self, folder: ModelFolder, *, config: VllmConfig, chat_template: str | None, adapter: Adapter | None, engine: Any = None
    ) -> None:
        super().__init__(folder, chat_template=chat_template)
        self._config = config
        self._adapter = adapter
        self._engine = engine
        self._name = folder.name if adapter is None else f"{folder.name} + {adapter.name}"
        self._thread = _Thread()
        self._loaded: Any = None
        self._engines: list[BaseProcess] = []

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        gpus = self._config.tensor_parallel_size
        return f"{self._name}, in this process by vLLM{f' on {gpus} GPUs' if gpus > 1 else ''}"

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Files or Hub commit, and what else decides the text: adapter, dtype, chat template and arguments for vLLM."""
        return {
            "kind": "vllm",
            **self._folder.identity(),
            "adapter": None if self._adapter is None else self._adapter.identity(),
            "dtype": self._config.dtype,
            "chat_template": None if self._chat_template is None else content_hash(self._chat_template),
            "extra": self._config.extra,
        }

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies, `batch_size` at a time; prompts that the model cannot take come first, as errors.

        Raises:
            PolicyError: vLLM cannot load the model, or stops; or the adapter changes nothing.
        """
        calls, refused = await self._returned(partial(self._plan, list(requests)))
        for reply in refused:
            yield reply
        for start in range(0, len(calls), self._config.batch_size):
            part = calls[start : start + self._config.batch_size]
            for reply in await self._returned(partial(self._run, part)):
                yield reply

    async def close(self) -> None:
        """Waits for the batch under way and gives the GPU back."""
        self._thread.end(worth_waiting=lambda: all(engine.is_alive() for engine in self._engines))
        llm, self._loaded = self._loaded, None
        self.__dict__.pop("_llm", None)
        if llm is not None:
            # Not left to the collector: something in vLLM holds on to its engine, and the next model finds no room.
            llm.llm_engine.engine_core.shutdown()

    async def _returned(self, call: Callable[[], T]) -> T:
        """What a call to vLLM returns. One whose engine is killed, for want of memory say, never does (0.32)."""
        result = asyncio.wrap_future(self._thread.submit(call))
        try:
            while not (await asyncio.wait({result}, timeout=LOOK_SECONDS))[0]:
                for engine in self._engines:
                    if not engine.is_alive():
                        raise PolicyError(
                            f"vLLM stopped: its engine ended with exit code {engine.exitcode}, and -9 is often want of memory; "
                            "what came is kept, run the same command again"
                        )
            return await result
        finally:
            result.cancel()  # where nobody waits any more, what it still raises concerns nobody

    @cached_property
    def _vllm(self) -> Any:
        if self._engine is not None:
            return self._engine
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import_module("vllm.lora.request")  # not imported by vllm itself
        return import_module("vllm")

    @cached_property
    def _llm(self) -> Any:
        before = active_children()
        with _stopping(f"vLLM cannot load {self._folder.name}"):
            llm = self._loaded = self._vllm.LLM(**self._arguments())
        self._engines = [child for child in active_children() if child not in before]
        if self._adapter is not None and not self._changes_logits(llm):
            raise PolicyError(
                f"policy.adapter: the adapter changes nothing: {self._adapter.name} gives the same log-probabilities as the"
                " model without it; it was saved before it was trained, or vLLM ignores it"
            )
        return llm

    def _arguments(self) -> dict[str, Any]:
        config = self._config
        arguments: dict[str, Any] = {
            "model": str(self._folder.path),
            "dtype": config.dtype,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "tensor_parallel_size": config.tensor_parallel_size,
            "enable_prefix_caching": True,
        }
        if config.max_model_len is not None:
            arguments["max_model_len"] = config.max_model_len
        if self._adapter is not None:
            room = next(rank for rank in RANKS if rank >= self._adapter.rank)
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        return arguments | config.extra

    def _plan(self, requests: Sequence[Request]) -> tuple[list["_Call"], list[Reply]]:
        """A call per completion, those of one prompt together, and a reply for each completion that cannot be had."""
        calls: list[_Call] = []
        refused: list[Reply] = []
        context = self._llm.llm_engine.model_config.max_model_len
        for request in requests:
            try:
                prompt = encode_prompt(self._tokenizer, messages=request.messages)
                # One prompt that is too long would end the whole call to vLLM.
                if not 0 < len(prompt) < context:
                    raise InputError(too_long(context))
                calls.extend(_calls(request, prompt))
            except InputError as error:
                refused.extend(self._reply(key, error=first_line(error)) for key in request.keys)
        # The longest first, so that the last of a batch are not waited for alone; else by content.
        return sorted(calls, key=lambda call: (-len(call.prompt), call.prompt, call.key)), refused

    def _run(self, calls: Sequence["_Call"]) -> list[Reply]:
        params = [self._params(call.sampling, seed=call.seed) for call in calls]
        outputs = self._generate(self._llm, [call.prompt for call in calls], params, adapted=True)
        return [self._read(call, output) for call, output in zip(calls, outputs, strict=True)]

    def _params(self, sampling: SamplingParams, *, seed: int) -> Any:
        return self._vllm.SamplingParams(
            n=1, temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens, seed=seed,
            detokenize=False,
        )  # fmt: skip

    def _generate(self, llm: Any, prompts: Sequence[Sequence[int]], params: Sequence[Any], *, adapted: bool) -> Any:
        lora = None
        if adapted and self._adapter is not None:
            lora = self._vllm.lora.request.LoRARequest(self._adapter.name, 1, str(self._adapter.path.resolve()))
        tokens = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        with _stopping("vLLM stopped"):
            return llm.generate(tokens, list(params), use_tqdm=False, lora_request=lora)

    def _read(self, call: "_Call", output: Any) -> Reply:
        (said,) = output.outputs
        if said.finish_reason not in ("stop", "length"):
            return self._reply(call.key, error=f"vLLM ended the request with {said.finish_reason}")
        return self._reply(
            call.key,
            # Not vLLM's text, which depends on the prompt before it (a first space, a character that was cut): the same
            # tokens must be the same completion, whichever policy sampled them.
            completion=self.decode(said.token_ids[:-1] if said.finish_reason == "stop" else said.token_ids),
            finish_reason=said.finish_reason,
            prompt_tokens=len(call.prompt) if call.first else None,
            completion_tokens=len(said.token_ids),
        )

    def _reply(self, key: str, **fields: Any) -> Reply:
        return Reply(key=key, model=self._name, **{"completion": None, **fields})

    def _changes_logits(self, llm: Any) -> bool:
        """Whether the likeliest first tokens after a probe have other log-probabilities with the adapter than without."""
        prompt = self._tokenizer.encode(PROBE, add_special_tokens=False)[:PROBE_TOKENS]
        params = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, logprobs=5)
        seen = []
        for adapted in (False, True):
            (output,) = self._generate(llm, [prompt], [params], adapted=adapted)
            seen.append({token: said.logprob for token, said in output.outputs[0].logprobs[0].items()})
        without, with_it = seen
        return without.keys() != with_it.keys() or any(abs(with_it[token] - without[token]) > MOVED for token in without)


@contextmanager
def _stopping(what: str) -> Iterator[None]:
    """One line in the place of whatever vLLM raises: its errors have no base that every version has, and many are its own."""
    try:
        yield
    except Exception as error:
        raise PolicyError(f"{what}: {first_line(error)}") from error


class _Thread:
    """The one thread that calls vLLM: LLM.generate is no coroutine, and an engine takes one call at a time.

    It ends with the process, as one of a ThreadPoolExecutor does not, which would be waited for as long as vLLM hangs.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vllm-policy", daemon=True)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What will come of a call, which waits for those before it."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # interrupted before it came to this
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        if self._thread.ident is None:
            self._thread.start()
        self._calls.put(run)
        return future

    def end(self, *, worth_waiting: Callable[[], bool]) -> None:
        """Waits for the call under way, as long as it may return."""
        self._calls.put(None)
        while self._thread.is_alive() and worth_waiting():
            self._thread.join(LOOK_SECONDS)

    def _work(self) -> None:
        while (run := self._calls.get()) is not None:
            run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One completion to be had."""

    key: str
    prompt: Sequence[int]
    sampling: SamplingParams
    seed: int
    first: bool


def _calls(request: Request, prompt: Sequence[int]) -> Iterator[_Call]:
    for place, (key, seed) in enumerate(zip(request.keys, request.seeds, strict=True)):
        yield _Call(key=key, prompt=prompt, sampling=request.sampling, seed=seed, first=place == 0)
