"""The vLLM policy against a stand-in for the library: what it is asked, and what is made of its answers.

vLLM itself is in tests/test_policy_vllm_real.py, where it is installed.
"""

import asyncio
import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'recontext_data[local]'")

from recontext_data.core.errors import PolicyError, SetupError
from recontext_data.core.records import Message, Reply, Request, SamplingParams, content_hash
from recontext_data.policies.local.vllm import VllmConfig, VllmPolicy


@dataclass
class Engine:
    """What of the module `vllm` is used, recording how."""

    moved: float = 0.5
    """What an adapter does to a log-probability."""
    finish: str = "stop"
    fails: Exception | None = None
    loads: Exception | None = None
    loaded: list[dict[str, Any]] = field(default_factory=list)
    calls: list[SimpleNamespace] = field(default_factory=list)
    ended: int = 0
    hangs: bool = False
    """Whether the engine's process is killed under way, and nothing comes back."""
    process: Any = None

    def __post_init__(self) -> None:
        self.lora = SimpleNamespace(request=SimpleNamespace(LoRARequest=LoRARequest))

    def SamplingParams(self, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    def LLM(self, **arguments: Any) -> SimpleNamespace:
        if self.loads:
            raise self.loads
        self.loaded.append(arguments)
        if self.hangs:
            self.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
            self.process.start()
        model_config = SimpleNamespace(max_model_len=arguments.get("max_model_len", 512))
        core = SimpleNamespace(shutdown=self.shutdown)
        return SimpleNamespace(llm_engine=SimpleNamespace(model_config=model_config, engine_core=core), generate=self.generate)

    def shutdown(self) -> None:
        self.ended += 1

    def generate(
        self, prompts: list[dict[str, list[int]]], params: list[SimpleNamespace], *, use_tqdm: bool, lora_request: Any
    ) -> list[SimpleNamespace]:
        if self.fails:
            raise self.fails
        if self.hangs:
            self.process.kill()
            threading.Event().wait()
        self.calls.append(SimpleNamespace(prompts=prompts, params=params, lora=lora_request))
        assert len(prompts) == len(params) and not use_tqdm
        return [self._say(prompt, param, lora_request) for prompt, param in zip(prompts, params, strict=True)]

    def _say(self, prompt: dict[str, list[int]], param: SimpleNamespace, lora: Any) -> SimpleNamespace:
        logprob = SimpleNamespace(logprob=-1.0 - (self.moved if lora else 0.0))
        tokens = [*said(len(prompt["prompt_token_ids"]), getattr(param, "seed", 0)), *([END] if self.finish == "stop" else [])]
        out = SimpleNamespace(text="not looked at", token_ids=tokens, finish_reason=self.finish, logprobs=[{7: logprob}])
        return SimpleNamespace(outputs=[out])


END = 2
"""The token that ends a completion of stories260K."""


def said(length: int, seed: int) -> list[int]:
    """The tokens of the answer to a prompt of that many tokens."""
    return [400 + length % 100, 300 + seed % 100]


class EngineDead(Exception):
    """As vLLM's own error for it: no RuntimeError."""


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@pytest.fixture(scope="module")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture
def adapter(tmp_path: Path, stories: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 12, "rank_pattern": {"q_proj": 20}, "base_model_name_or_path": str(stories)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def request(text: str, *, n: int = 1, **sampling: Any) -> Request:
    messages: list[Message] = [{"role": "user", "content": text}]
    return Request(
        messages=messages,
        sampling=SamplingParams(**sampling),
        ks=tuple(range(n)),
        seeds=tuple(2**62 + k for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
    )


def ask(policy: VllmPolicy, requests: Sequence[Request]) -> dict[str, Reply]:
    async def collect() -> list[Reply]:
        try:
            return [reply async for reply in policy.sample(iter(requests))]
        finally:
            await policy.close()

    replies = asyncio.run(collect())
    assert sorted(reply.key for reply in replies) == sorted(key for one in requests for key in one.keys)
    return {reply.key: reply for reply in replies}


def test_every_completion_is_a_request_with_its_own_seed(stories: Path) -> None:
    engine = Engine()
    policy = VllmConfig(model=str(stories)).build(engine=engine)
    one, two = request("Once upon", n=3, temperature=0.7, top_p=0.9, max_tokens=11), request("The", n=1)
    lengths = {one.keys[0]: policy.count_tokens(one.messages), two.keys[0]: policy.count_tokens(two.messages)}
    replies = ask(policy, [two, one])
    (call,) = engine.calls
    fields = {"n": 1, "temperature": 0.7, "top_p": 0.9, "max_tokens": 11, "detokenize": False}
    assert sorted((vars(param) for param in call.params[:3]), key=lambda param: param["seed"]) == [
        fields | {"seed": seed} for seed in one.seeds
    ]
    assert call.prompts[0] == call.prompts[1] == call.prompts[2], "completions of a prompt stand together"
    for of in (one, two):
        length = lengths[of.keys[0]]
        assert length and [replies[key].completion for key in of.keys] == [policy.decode(said(length, s)) for s in of.seeds]
        assert [replies[key].prompt_tokens for key in of.keys] == [length] + [None] * (len(of.keys) - 1)
    reply = replies[two.keys[0]]
    assert (reply.finish_reason, reply.completion_tokens, reply.model, call.lora) == ("stop", 3, "stories260K", None)
    assert engine.ended == 1, "the GPU is given back"


def test_a_completion_that_was_cut_has_all_its_tokens(stories: Path) -> None:
    engine = Engine(finish="length")
    policy = VllmConfig(model=str(stories)).build(engine=engine)
    one = request("Once upon", n=1)
    (reply,) = ask(policy, [one]).values()
    assert reply.completion == policy.decode(said(policy.count_tokens(one.messages) or 0, one.seeds[0]))
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 2)


def test_the_engine_gets_the_settings(stories: Path) -> None:
    engine = Engine()
    config = VllmConfig(
        model=str(stories), dtype="bfloat16", gpu_memory_utilization=0.5, max_model_len=100, tensor_parallel_size=2,
        extra={"enforce_eager": True, "enable_prefix_caching": False},
    )  # fmt: skip
    ask(config.build(engine=engine), [request("x")])
    assert engine.loaded == [
        {
            "model": str(stories), "dtype": "bfloat16", "gpu_memory_utilization": 0.5, "max_model_len": 100,
            "tensor_parallel_size": 2, "enforce_eager": True, "enable_prefix_caching": False,
        }
    ]  # fmt: skip


def test_batches_have_the_size_that_was_set(stories: Path) -> None:
    engine = Engine()
    ask(VllmConfig(model=str(stories), batch_size=4).build(engine=engine), [request("a", n=3), request("b", n=3)])
    assert [len(call.prompts) for call in engine.calls] == [4, 2]


def test_a_prompt_beyond_the_context_is_an_error_reply_and_the_rest_goes_on(stories: Path) -> None:
    engine = Engine()
    long, empty, fits = request("a cat and " * 400, n=2), request(""), request("x")
    replies = ask(VllmConfig(model=str(stories)).build(engine=engine), [long, empty, fits])
    words = "does not fit the model's context of 512 tokens"
    assert all(words in (replies[key].error or "") for key in (*long.keys, *empty.keys))
    assert replies[fits.keys[0]].completion and len(engine.calls[0].prompts) == 1


def test_the_adapter_goes_with_every_request_and_is_probed_first(stories: Path, adapter: Path) -> None:
    engine = Engine()
    replies = ask(VllmConfig(model=str(stories), adapter=str(adapter)).build(engine=engine), [request("x")])
    assert engine.loaded[0] | {"enable_lora": True, "max_loras": 1, "max_lora_rank": 32} == engine.loaded[0]
    lora = LoRARequest("mine", 1, str(adapter.resolve()))
    assert [call.lora for call in engine.calls] == [None, lora, lora]
    assert len(engine.calls[0].prompts[0]["prompt_token_ids"]) == 8, "shorter than a block of the prefix cache"
    assert [reply.model for reply in replies.values()] == ["stories260K + mine"]


@pytest.mark.parametrize("moved", [0.0, 1e-9])
def test_an_adapter_that_changes_nothing_is_refused(stories: Path, adapter: Path, moved: float) -> None:
    engine = Engine(moved=moved)
    policy = VllmConfig(model=str(stories), adapter=str(adapter)).build(engine=engine)
    with pytest.raises(PolicyError, match=r"policy\.adapter: the adapter changes nothing: mine gives the same"):
        ask(policy, [request("x")])
    assert engine.ended == 1, "and leaves no engine behind"


def test_an_adapter_is_checked_before_anything_is_loaded(stories: Path, adapter: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"r": 1024}))
    with pytest.raises(PolicyError, match="mine has rank 1024, and vLLM takes 512 at most"):
        VllmConfig(model=str(stories), adapter=str(adapter)).build(engine=Engine())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "org/other"}))
    with pytest.raises(PolicyError, match=r"mine was trained on org/other, and policy\.model is stories260K: give"):
        VllmConfig(model=str(stories), adapter=str(adapter)).build(engine=Engine())


def test_identity_is_what_decides_the_text(stories: Path, adapter: Path, tmp_path: Path) -> None:
    def identity(**fields: Any) -> str:
        return content_hash(VllmConfig(**{"model": str(stories), **fields}).build(engine=Engine()).identity)

    plain = identity()
    copied = tmp_path / "copied"
    shutil.copytree(stories, copied)
    same: list[dict[str, Any]] = [
        {"model": str(copied)},
        {"batch_size": 2},
        {"gpu_memory_utilization": 0.4},
        {"tensor_parallel_size": 2},
    ]
    assert {identity(**fields) for fields in same} == {plain}
    other: list[dict[str, Any]] = [{"adapter": str(adapter)}, {"dtype": "float16"}, {"extra": {"quantization": "fp8"}}]
    assert len({plain, *(identity(**fields) for fields in other)}) == 4


def test_failures_are_one_line(stories: Path) -> None:
    with pytest.raises(PolicyError, match=r"vLLM cannot load stories260K: no free memory$"):
        ask(VllmConfig(model=str(stories)).build(engine=Engine(loads=ValueError("no free memory\nand more"))), [request("x")])
    with pytest.raises(PolicyError, match=r"vLLM stopped: engine died$"):
        ask(VllmConfig(model=str(stories)).build(engine=Engine(fails=EngineDead("engine died\n..."))), [request("x")])
    (reply,) = ask(VllmConfig(model=str(stories)).build(engine=Engine(finish="abort")), [request("x")]).values()
    assert (reply.completion, reply.error) == (None, "vLLM ended the request with abort")


def test_an_engine_that_is_killed_is_said_and_not_waited_for(stories: Path) -> None:
    """vLLM 0.32 waits forever for an engine that was killed; a build that hangs overnight is a night lost."""
    engine = Engine(hangs=True)
    with pytest.raises(PolicyError, match=r"^vLLM stopped: its engine ended with exit code -9, and"):
        ask(VllmConfig(model=str(stories)).build(engine=engine), [request("x")])
    assert engine.ended == 1


def test_extra_must_not_set_what_the_policy_sets() -> None:
    with pytest.raises(ValueError, match=r"policy\.extra must not set dtype: set policy\.dtype"):
        VllmConfig(model="m", extra={"dtype": "half"})


def test_without_vllm_the_message_says_how_to_get_it(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SetupError, match=r"policy\.kind=vllm needs vllm: pip install 'recontext_data\[vllm\]'"):
        VllmConfig(model=str(stories)).build()


def test_building_imports_nothing_heavy(stories: Path) -> None:
    code = (
        f"import sys; from recontext_data.policies.local.vllm import VllmConfig as C; model = {str(stories)!r}\n"
        "C(model=model).build(engine=sys).identity; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
