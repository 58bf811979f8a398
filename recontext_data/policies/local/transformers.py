"""Any causal language model in the Transformers format, sampled in this process: a folder or a Hub id.

    policy: {kind: transformers, model: Qwen/Qwen2.5-0.5B-Instruct}
    policy: {kind: transformers, model: Qwen/Qwen2.5-0.5B-Instruct, adapter: path/to/lora}

Files are checked when the policy is built; torch and the weights are loaded when the first completion is asked for, in a
thread of their own, so that a run whose replies are all on disk starts at once and Ctrl-C is heard while a model decodes.
The file is not called transformers.py, so that running it as a script does not hide the library of that name.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from recontext_data.core.chat_template import encode_prompt
from recontext_data.core.config import Config
from recontext_data.core.errors import InputError, PolicyError, SetupError
from recontext_data.core.records import Reply, Request, content_hash
from recontext_data.policies.base import too_long
from recontext_data.policies.local.adapters import PROBE, Adapter, apply_adapter, find_adapter
from recontext_data.policies.local.decoding import DecodingRow, decode, forced
from recontext_data.policies.local.model_folder import (
    ModelFolder,
    find_model,
    first_line,
    load_model,
    pick_device,
    pick_template,
)
from recontext_data.policies.local.prompting import Prompting

SMALL = 50_000_000
"""Parameters under which threads spend longer waiting for each other than computing (stories260K: 13 s with one, minutes
with two on a busy machine)."""


class TransformersConfig(Config):
    """A model sampled in this process."""

    kind: Literal["transformers"] = "transformers"
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
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes cuda, else mps, else cpu."""
    batch_size: int = Field(default=64, ge=1)
    """Completions decoded at once; lower it when memory runs out. No part of the replies' identity."""
    chat_template: str | None = None
    """File with a Jinja chat template, for a tokenizer that has none or has the wrong one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads for torch. Left out: one for models under 50M parameters, which more slow down; else the choice of torch."""

    def build(self) -> "TransformersPolicy":
        """The policy, its files checked and nothing heavy loaded.

        Raises:
            SetupError: the extra `local` is not installed.
            PolicyError: the model is missing or incomplete.
        """
        for library in ("torch", "transformers", *(["peft"] if self.adapter else [])):
            if find_spec(library) is None:
                raise SetupError(f"policy.kind=transformers needs {library}: pip install 'recontext_data[local]'")
        folder = find_model(self.model, revision=self.revision)
        template = pick_template(self.chat_template, folder)
        adapter = find_adapter(self.adapter, base=folder, check_base=self.check_base) if self.adapter else None
        return TransformersPolicy(folder, config=self, chat_template=template, adapter=adapter)


class TransformersPolicy(Prompting):
    """A causal language model in this process. Equal prompt, seed and sampling give equal text in any batch."""

    def __init__(
        self, folder: ModelFolder, *, config: TransformersConfig, chat_template: str | None, adapter: Adapter | None = None
    ) -> None:
        super().__init__(folder, chat_template=chat_template)
        self._config = config
        self._adapter = adapter
        self._name = folder.name if adapter is None else f"{folder.name} + {adapter.name}"
        # One thread: a model decodes one batch at a time, and what torch is told about threads holds for this one.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers-policy")

    @property
    def description(self) -> str:
        """One short phrase for the screen."""
        return f"{self._name}, in this process (device {self._config.device})"

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Files or Hub commit, and what else decides the text: adapter, dtype and a chat template given in the recipe."""
        return {
            "kind": "transformers",
            **self._folder.identity(),
            "adapter": None if self._adapter is None else self._adapter.identity(),
            "dtype": self._config.dtype,
            "chat_template": None if self._chat_template is None else content_hash(self._chat_template),
        }

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies, batch by batch; prompts that the model cannot take come first, as errors.

        Raises:
            PolicyError: the model cannot be loaded, or memory runs out.
        """
        loop, interrupted = asyncio.get_running_loop(), threading.Event()
        try:
            jobs, refused = await loop.run_in_executor(self._worker, self._plan, list(requests))
            for reply in refused:
                yield reply
            for batch in _batches(jobs, self._config.batch_size):
                for reply in await loop.run_in_executor(self._worker, self._run, batch, interrupted):
                    yield reply
        finally:
            interrupted.set()  # a cancelled task leaves its thread behind: this ends it at its next token

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a completion; reads the model."""
        return frozenset(self._worker.submit(lambda: self._ends).result())

    def forced(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]]) -> Iterator[Any]:
        """See `policies.base.Forced`."""
        width = max((len(ids) for own in completions for ids in own), default=0)
        rows = [i for i, own in enumerate(completions) for _ in own]
        # Steps run in the thread that torch was told about; a line that has ended reads zeros, and nobody looks at it.
        reading = self._worker.submit(lambda: forced(self._model, prompts, rows=rows, tokens=width)).result()
        for step in range(width + 1):
            yield reading.logits().reshape(len(prompts), -1, reading.vocabulary)
            if step < width:
                tokens = [ids[step] if step < len(ids) else 0 for own in completions for ids in own]
                self._worker.submit(reading.step, tokens).result()

    async def close(self) -> None:
        """Waits for the batch under way and frees the model."""
        self._worker.shutdown(wait=True)
        self.__dict__.pop("_model", None)

    @cached_property
    def _model(self) -> Any:
        import torch

        device = pick_device(self._config.device)
        model = load_model(self._folder, dtype=self._config.dtype, device=device)
        is_small = device == "cpu" and sum(weights.numel() for weights in model.parameters()) < SMALL
        if self._config.threads is not None or is_small:
            torch.set_num_threads(self._config.threads or 1)
        if self._adapter is None:
            return model
        return apply_adapter(model, self._adapter, probe=self._tokenizer.encode(PROBE, add_special_tokens=False))

    @cached_property
    def _ends(self) -> set[int]:
        # Both: a chat model's turn may end in another token than its documents, and either file may name only one.
        ends = self._model.generation_config.eos_token_id
        several = ends if isinstance(ends, list) else [ends]
        return {end for end in [*several, self._tokenizer.eos_token_id] if end is not None}

    def _plan(self, requests: Sequence[Request]) -> tuple[list["_Job"], list[Reply]]:
        """What to decode, and a reply for each completion that cannot be."""
        jobs: list[_Job] = []
        refused: list[Reply] = []
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        for request in requests:
            try:
                job = _Job(request=request, prompt=encode_prompt(self._tokenizer, messages=request.messages), context=context)
                job.check()
                jobs.append(job)
            except InputError as error:
                refused.extend(
                    Reply(key=key, completion=None, error=first_line(error), model=self._name) for key in request.keys
                )
        return jobs, refused

    def _run(self, batch: Sequence["_Job"], interrupted: threading.Event) -> list[Reply]:
        import torch

        rows_by_job = [job.rows(i) for i, job in enumerate(batch)]
        rows = [row for rows in rows_by_job for row in rows]
        sampling = batch[0].request.sampling
        try:
            decode(self._model, [job.prompt for job in batch], rows=rows, sampling=sampling, stop=(self._ends, interrupted))
        except torch.OutOfMemoryError as error:
            raise PolicyError(f"out of memory with policy.batch_size={self._config.batch_size}: lower it") from error
        return [reply for job, own in zip(batch, rows_by_job, strict=True) for reply in self._replies(job, own)]

    def _replies(self, job: "_Job", rows: Sequence[DecodingRow]) -> Iterator[Reply]:
        prompt_tokens: int | None = len(job.prompt) if job.first else None
        for key, row in zip(job.request.keys, rows, strict=True):
            failed = "the model's logits are not finite" if row.finish == "broken" else None
            text = [token for token in row.tokens if token not in self._ends]
            yield Reply(
                key=key,
                completion=None if failed else self.decode(text),
                error=failed,
                finish_reason=row.finish,
                model=self._name,
                prompt_tokens=prompt_tokens,
                completion_tokens=len(row.tokens),
            )
            prompt_tokens = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A request with its prompt in tokens, or a part of one that is too large for a batch."""

    request: Request
    prompt: Sequence[int]
    context: int | None
    first: bool = True

    def check(self) -> None:
        if not self.prompt:
            raise InputError("the prompt is empty once it is rendered")
        if self.context is not None and len(self.prompt) >= self.context:
            raise InputError(too_long(self.context))

    def rows(self, prompt: int) -> list[DecodingRow]:
        room = self.request.sampling.max_tokens
        if self.context is not None:
            room = min(room, self.context - len(self.prompt))
        return [DecodingRow(prompt=prompt, seed=seed, limit=room) for seed in self.request.seeds]

    def parts(self, size: int) -> Iterator["_Job"]:
        request = self.request
        for start in range(0, len(request.ks), size):
            part = slice(start, start + size)
            own = Request(
                messages=request.messages, sampling=request.sampling, ks=request.ks[part],
                seeds=request.seeds[part], keys=request.keys[part], tag=request.tag,
            )  # fmt: skip
            yield _Job(request=own, prompt=self.prompt, context=self.context, first=start == 0)


def _batches(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """Whole requests of one sampling, the shortest prompts first, in an order that depends on content alone."""

    def order(job: _Job) -> tuple[float, float, int, int, str]:
        sampling = job.request.sampling
        return (sampling.temperature, sampling.top_p, sampling.max_tokens, len(job.prompt), job.request.keys[0])

    batch: list[_Job] = []
    whole = sorted((job for job in jobs if job.request.keys), key=order)
    for job in (part for request in whole for part in request.parts(size)):
        rows = sum(len(other.request.ks) for other in batch) + len(job.request.ks)
        if batch and (rows > size or batch[0].request.sampling != job.request.sampling):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
