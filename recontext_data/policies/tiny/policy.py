"""The tiny policy: a Llama of under a million parameters that ships with the package and runs on numpy, without torch.

    policy: {kind: tiny}                     # data/tiny, made by scripts/make_tiny.py; its README says what it can do
    policy: {kind: tiny, path: runs/my-sft}  # any folder of a small Llama as Transformers writes it

A completion is a pure function of the weights, the prompt, the sampling settings and its seed: not of the batch it was in, of
the order of requests or of the number of cores.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from recontext_data.core.chat_template import split_prefill
from recontext_data.core.config import Config
from recontext_data.core.errors import InputError, PolicyError
from recontext_data.core.records import Reply, Request, SamplingParams
from recontext_data.core.resources import shipped
from recontext_data.policies.base import too_long

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Template
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from recontext_data.policies.tiny.llama import Llama

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]

Rows: TypeAlias = Sequence[tuple[Request, Sequence[int]]]
"""Requests, each with the token ids of its prompt."""

EMBEDDED = "data/tiny"
REQUIRED = ("config.json", "model.safetensors", "tokenizer.json")
OPTIONAL = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")


class TinyConfig(Config):
    """The embedded policy, or another small Llama from a folder."""

    kind: Literal["tiny"] = "tiny"
    path: str | None = None
    """A Transformers folder: config.json, model.safetensors, tokenizer.json, a chat template. Left out: the embedded policy."""
    batch: int = Field(default=32, ge=1)
    """Prompts that are read together. It changes the time and the memory, never a completion."""

    def build(self) -> "TinyPolicy":
        """Reads the model.

        Raises:
            InputError: `path` is not such a folder, or holds another architecture.
            PolicyError: the embedded policy is missing.
        """
        if self.path is not None:
            return TinyPolicy.load(Path(self.path), batch=self.batch, is_embedded=False)
        folder = shipped(EMBEDDED)
        if not (folder / "model.safetensors").is_file():
            raise PolicyError(f"policy: the embedded policy ({EMBEDDED}) is missing; run `python scripts/make_tiny.py`")
        return TinyPolicy.load(folder, batch=self.batch, is_embedded=True)


@dataclass(frozen=True)
class TinyPolicy:
    """A small Llama with its tokenizer and chat template, sampled on the CPU."""

    model: "Llama"
    tokenizer: "Tokenizer"
    template: "Template"
    special: Mapping[str, str]
    """bos_token, eos_token and the like, which a chat template may name."""
    ends: frozenset[int]
    """Tokens that end a completion."""
    identity: Mapping[str, Any]
    description: str
    batch: int
    continues_prefill: ClassVar[bool] = True

    @classmethod
    def load(cls, folder: Path, *, batch: int = 32, is_embedded: bool = False) -> "TinyPolicy":
        """Reads a Transformers folder.

        Raises:
            InputError: a file is missing or is not what it should be; the message says which and what to do.
        """
        from recontext_data.policies.tiny.llama import Llama, Unsupported

        _require_files(folder)
        try:
            model = Llama.load(folder)
        except Unsupported as problem:
            raise InputError(
                f"policy.path: {str(folder)!r} is not a Llama that the tiny policy computes: {problem}; "
                "sample it with policy {kind: transformers} instead"
            ) from problem
        settings, generation = _json(folder, "tokenizer_config.json"), _json(folder, "generation_config.json")
        tokenizer = _tokenizer(folder)
        size = f"{model.num_parameters / 1e6:.1f}M-parameter"
        words = f"tiny, the embedded {size} policy (CPU)" if is_embedded else f"tiny, a {size} Llama from a folder (CPU)"
        return cls(
            model=model,
            tokenizer=tokenizer,
            template=_template(folder, settings),
            special={key: _text(value) for key, value in settings.items() if key.endswith("_token") and value},
            ends=_ends(generation, _json(folder, "config.json")),
            identity={"kind": "tiny", "weights": _fingerprint(folder)},
            description=words,
            batch=batch,
        )

    async def sample(self, requests: Iterable[Request]) -> AsyncIterator[Reply]:
        """Replies batch by batch, prompts of like length together; a batch per core is computed beside the event loop."""
        requests = list(requests)  # all of them, since prompts of like length are read together
        prompts = [self._encode(request.messages) for request in requests]
        fits = [i for i, prompt in enumerate(prompts) if 0 < len(prompt) < self.model.window]
        for i in sorted(set(range(len(requests))) - set(fits)):
            for reply in self._refused(requests[i], len(prompts[i])):
                yield reply
        chunks = _chunks(fits, requests, prompts, self.batch)
        async for replies in _in_threads(self._complete, ([(requests[i], prompts[i]) for i in chunk] for chunk in chunks)):
            for reply in replies:
                yield reply

    @property
    def window(self) -> int:
        """Tokens that the model can take in, prompt and completion together."""
        return self.model.window

    def prompt_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What is fed to the model, as text.

        Raises:
            InputError: the chat template refuses these messages.
        """
        from jinja2 import TemplateError

        try:
            return self.render(messages)
        except TemplateError as error:
            raise InputError(f"the chat template refuses these messages: {error}") from error

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """What is fed to the model, as tokens."""
        return self._encode(messages)

    def count_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Prompt tokens, exactly."""
        return len(self._encode(messages))

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text that the model reads, up to where its answer begins."""
        messages, prefill = split_prefill(messages)
        text: str = self.template.render(messages=messages, add_generation_prompt=True, **self.special)
        return text + prefill

    def forced(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]]) -> "Iterator[Floats]":
        """See `policies.base.Forced`."""
        import numpy as np

        from recontext_data.policies.tiny.blas import one_blas_thread

        width = max((len(ids) for own in completions for ids in own), default=0)
        tokens_P_N_S = np.array([[[*ids, *[0] * (width - len(ids))] for ids in own] for own in completions], dtype=np.int64)
        with one_blas_thread():  # matrices this small spend longer waiting for each other's threads than computing
            state, logits_P_V = self.model.prefill(prompts)
        logits_P_N_V = np.repeat(logits_P_V[:, None], tokens_P_N_S.shape[1], axis=1)
        for step in range(width + 1):
            yield logits_P_N_V
            if step < width:
                with one_blas_thread():
                    logits_P_N_V = self.model.step(state, tokens_P_N_S[:, :, step])

    async def close(self) -> None:
        """Nothing to free before the object itself goes."""

    def _encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        ids: list[int] = self.tokenizer.encode(self.render(messages), add_special_tokens=False).ids
        return ids

    def _refused(self, request: Request, num_tokens: int) -> Iterator[Reply]:
        reason = too_long(self.model.window) if num_tokens else "the prompt is empty once it is rendered"
        for key in request.keys:
            yield Reply(key=key, completion=None, error=reason)

    def _complete(self, rows: Rows) -> list[Reply]:
        """All completions of some requests with the same sampling settings and number of completions."""
        sampling = rows[0][0].sampling
        seeds = [request.seeds for request, _ in rows]
        room = [min(sampling.max_tokens, self.model.window - len(prompt)) for _, prompt in rows]
        texts = _grow(self.model, [prompt for _, prompt in rows], _TokenDraws(seeds, room, sampling, self.ends))
        return [
            self._reply(request, k, ids, num_prompt=len(prompt))
            for (request, prompt), completions in zip(rows, texts, strict=True)
            for k, ids in enumerate(completions)
        ]

    def _reply(self, request: Request, index: int, ids: list[int], *, num_prompt: int) -> Reply:
        stopped = bool(ids) and ids[-1] in self.ends
        return Reply(
            key=request.keys[index],
            completion=self.tokenizer.decode(ids, skip_special_tokens=True),
            finish_reason="stop" if stopped else "length",
            model="tiny",
            prompt_tokens=num_prompt if index == 0 else None,
            completion_tokens=len(ids),
        )


class _TokenDraws:
    """Chooses next tokens for a grid of completions and remembers them."""

    def __init__(
        self, seeds: Sequence[Sequence[int]], room: Sequence[int], sampling: SamplingParams, ends: frozenset[int]
    ) -> None:
        import numpy as np

        self.sampling, self.ends, self.room_P = sampling, ends, np.array(room)
        self.ids: list[list[list[int]]] = [[[] for _ in row] for row in seeds]
        self.alive_P_N = np.array([[True] * len(row) for row in seeds])
        self.uniform_P_N_S = _uniforms(seeds, max(room)) if sampling.temperature > 0 else None

    def choose(self, logits_P_N_V: "Floats", rows: "Ints", step: int) -> "Ints":
        """One token for each completion of the prompts in `rows`; ends what is to end."""
        import numpy as np

        if self.uniform_P_N_S is None:
            tokens_P_N = logits_P_N_V.argmax(-1)
        else:
            tokens_P_N = _draw(logits_P_N_V, self.uniform_P_N_S[rows, :, step], self.sampling)
        for i, row in enumerate(rows.tolist()):
            for k in np.flatnonzero(self.alive_P_N[row]).tolist():
                token = int(tokens_P_N[i, k])
                self.ids[row][k].append(token)
                self.alive_P_N[row, k] = token not in self.ends and step + 1 < self.room_P[row]
        return np.asarray(tokens_P_N, dtype=np.int64)


def _grow(model: "Llama", prompts: Sequence[Sequence[int]], draws: _TokenDraws) -> list[list[list[int]]]:
    """Token ids of every completion, with the end token where there is one. Prompts that are done leave the batch."""
    import numpy as np

    rows = np.arange(len(prompts))
    state, logits_P_V = model.prefill(prompts)
    logits_P_N_V = np.repeat(logits_P_V[:, None], draws.alive_P_N.shape[1], axis=1)
    for step in range(int(draws.room_P.max())):
        tokens_P_N = draws.choose(logits_P_N_V, rows, step)
        going = np.flatnonzero(draws.alive_P_N[rows].any(-1))
        if not len(going):
            break
        if len(going) < len(rows):
            rows, tokens_P_N = rows[going], tokens_P_N[going]
            state.keep(going)
        logits_P_N_V = model.step(state, tokens_P_N)
    return draws.ids


async def _in_threads(work: Callable[[Rows], list[Reply]], batches: Iterator[Rows]) -> AsyncIterator[list[Reply]]:
    """The work on each batch, one thread per core; results in any order."""
    import asyncio

    from recontext_data.policies.tiny.blas import num_cores, one_blas_thread

    running: set[asyncio.Task[list[Reply]]] = set()
    with one_blas_thread():
        try:
            while True:
                for rows in islice(batches, num_cores() - len(running)):
                    running.add(asyncio.create_task(asyncio.to_thread(work, rows)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()


def _draw(logits_P_N_V: "Floats", uniform_P_N: "Floats", sampling: SamplingParams) -> "Ints":
    """The token at which the cumulated probability, in the order of token ids, first exceeds the uniform draw."""
    import numpy as np

    weights = logits_P_N_V - logits_P_N_V.max(-1, keepdims=True)
    np.exp(weights / sampling.temperature, out=weights)
    if sampling.top_p < 1:
        weights *= _nucleus(weights, sampling.top_p)
    cumulated = weights.cumsum(-1)
    chosen: Ints = (cumulated <= (uniform_P_N * cumulated[..., -1])[..., None]).sum(-1)
    return chosen


def _nucleus(weights: "Floats", top_p: float) -> "NDArray[np.bool_]":
    """The likeliest tokens that together reach top_p; always at least one, and of equals the smaller id first."""
    import numpy as np

    order = np.argsort(-weights, axis=-1, kind="stable")
    ordered = np.take_along_axis(weights, order, -1)
    before = ordered.cumsum(-1) - ordered
    inside = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(inside, order, before < top_p * ordered.sum(-1, keepdims=True), -1)
    return inside


def _uniforms(seeds: Sequence[Sequence[int]], length: int) -> "Floats":
    """Draws from [0, 1), one stream per seed: from the generator's raw bits, whose stream numpy promises never to change."""
    import numpy as np

    raw = np.array([[np.random.PCG64(seed).random_raw(length) for seed in row] for row in seeds])
    uniform: Floats = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform


def _chunks(
    indices: Iterable[int], requests: Sequence[Request], prompts: Sequence[Sequence[int]], size: int
) -> Iterator[list[int]]:
    """Requests that are alike in settings and number of completions, shortest prompts first."""
    groups: dict[tuple[SamplingParams, int], list[int]] = {}
    for i in indices:
        groups.setdefault((requests[i].sampling, len(requests[i].ks)), []).append(i)
    for members in groups.values():
        members.sort(key=lambda i: len(prompts[i]))
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(
            f"policy.path: {str(folder)!r} is not a folder; give one that Transformers wrote, "
            "or leave `path` out for the embedded policy"
        )
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise InputError(f"policy.path: {str(folder)!r} has no {name}; save model and tokenizer there with save_pretrained")


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # A trainer may have left its own cutting and padding in the file; a prompt must arrive whole and alone.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _template(folder: Path, settings: Mapping[str, Any]) -> "Template":
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = folder / "chat_template.jinja"
    source = path.read_text() if path.is_file() else settings.get("chat_template")
    if not isinstance(source, str):
        raise InputError(f"policy.path: {str(folder)!r} has no chat_template.jinja; put the one that it was trained with there")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    # The settings under which Transformers renders chat templates.
    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    room.globals["raise_exception"] = refuse
    return room.from_string(source)


def _ends(*configs: Mapping[str, Any]) -> frozenset[int]:
    found: int | list[int] = next((c["eos_token_id"] for c in configs if c.get("eos_token_id") is not None), [])
    return frozenset([found] if isinstance(found, int) else found)


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _fingerprint(folder: Path) -> str:
    """A hash over the names and contents of the files that decide what the model says."""
    digest = hashlib.sha256()
    for name in sorted((*REQUIRED, *OPTIONAL)):
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
