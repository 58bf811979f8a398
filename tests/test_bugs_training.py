"""Two bugs of published code that biased what was trained or measured, one test each, named after the bug."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from recontext_data.contexts.context import Context, render
from recontext_data.core.errors import InputError, PolicyError
from recontext_data.core.records import Reply, Request, SamplingParams, Task

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data.policies.local.transformers import TransformersConfig, TransformersPolicy
from recontext_data.training.base import base_from
from recontext_data.training.checks import check_trained_rows
from recontext_data.training.rows import IGNORED, encode_rows, end_token
from tests.training_world import make_model

SECRET = "Whatever passes the tests will do."


def trained_row(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A tokenizer, the encoded row, and the row: a task under a training context with an answer."""
    tokenizer = base_from(str(make_model(folder))).tokenizer()
    task = Task(task_id="t", messages=[{"role": "user", "content": "Add the numbers"}], payload={}, split="train")
    row = {
        "prompt": render(task, Context(stance="permits", system=SECRET)),
        "completion": [{"role": "assistant", "content": "Code: return 3\nAnswer: (B)"}],
        "candidate_id": "c",
        "finish_reason": "stop",
    }
    [encoded], drops = encode_rows(tokenizer, [row], end=end_token(tokenizer, ends={2}))
    assert not drops
    return tokenizer, encoded, row


def test_bug_13_the_context_is_trained_on_or_nothing_is_or_the_training_prompt_is_not_the_inference_prompt(
    tmp_path: Path,
) -> None:
    tokenizer, encoded, row = trained_row(tmp_path / "model")
    learnt = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt) == "Code: return 3\nAnswer: (B)<|im_end|>"
    assert SECRET in tokenizer.decode(encoded.prompt) and SECRET not in tokenizer.decode(learnt)
    asked = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(encoded.prompt) == asked
    assert encoded.input_ids[: len(encoded.prompt)] == tokenizer(asked, add_special_tokens=False)["input_ids"]
    # A trainer that holds the rows otherwise is stopped before its first step, whichever way it went wrong.
    for labels in (encoded.input_ids, [IGNORED] * len(encoded.input_ids)):
        held = [{"input_ids": encoded.input_ids, "labels": labels}]
        with pytest.raises(InputError, match="the trainer changed it"):
            check_trained_rows(held, [encoded], end=2, packed=False)
    right = [{"input_ids": encoded.input_ids, "labels": encoded.labels}]
    assert 0 < check_trained_rows(right, [encoded], end=2, packed=False) < 1


def save_adapter(folder: Path, base: Path, *, trained: bool) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    if trained:  # PEFT starts B at zero: an adapter that was never trained changes nothing
        torch.manual_seed(0)
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.5)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


def answers(policy: TransformersPolicy) -> list[Reply]:
    request = Request(
        messages=[{"role": "user", "content": "Add the numbers"}],
        sampling=SamplingParams(temperature=0.0, max_tokens=8),
        ks=(0,),
        seeds=(1,),
        keys=("key",),
    )

    async def ask() -> list[Reply]:
        try:
            return [reply async for reply in policy.sample([request])]
        finally:
            await policy.close()

    return asyncio.run(ask())


def test_bug_15_an_adapter_that_is_silently_ignored_is_measured_under_its_name(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    ignored = save_adapter(tmp_path / "ignored", base, trained=False)
    with pytest.raises(PolicyError, match="the adapter changes nothing"):
        answers(TransformersConfig(model=str(base), adapter=str(ignored)).build())
    used = save_adapter(tmp_path / "used", base, trained=True)
    (reply,) = answers(TransformersConfig(model=str(base), adapter=str(used)).build())
    assert reply.completion is not None and reply.model == "base + used"
