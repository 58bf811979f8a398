"""The tiny policy's tokenizer, its model and its training loop, on one core.

Used by make_tiny.py; not run by itself. Needs torch and transformers.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from scripts.tiny_data import LETTER_WEIGHT, PIECES, Batch, Example, batch, batches

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WINDOW = 1024
"""Positions, far more than any task of the bank takes."""
END = "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML with the newline before each turn but the first, not after it: nothing follows the last end token, so nothing but
the completion and its end is trained on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The model's size and how it is trained."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 3
    heads: int = 4
    inner: int = 256
    steps: int = 1600
    batch: int = 16
    matrix_lr: float = 0.02
    """For Muon, which trains the matrices."""
    other_lr: float = 3e-3
    """For AdamW, which trains the embedding and the norms."""
    prompt_loss: float = 0.3
    """Weight of the loss on the prompt; predicting repeated code is what teaches copying. It falls with the learning rate, so
    that the end belongs to the answers."""
    seed: int = 0


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE over the pieces of PIECES; the special tokens are ids 0, 1, 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_model(plan: Plan, vocabulary: int) -> "LlamaForCausalLM":
    """A freshly initialised Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=plan.width,
        intermediate_size=plan.inner,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        head_dim=plan.width // plan.heads,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL.index(END),
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).float()


def save(model: "LlamaForCausalLM", tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the folder that Transformers loads."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=SPECIAL[0],
        additional_special_tokens=["<|im_start|>"],
        model_max_length=WINDOW,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone, and this one ships


def train(
    model: "LlamaForCausalLM",
    examples: Callable[[int], Sequence[Example]],
    plan: Plan,
    *,
    watch: Callable[[int, str], None],
) -> None:
    """Trains in place. `examples(epoch)` gives one pass; `watch(step, line)` hears how it goes."""
    import torch

    rng, step, epoch, started = random.Random(plan.seed), 0, 0, time.perf_counter()
    optimizers = _optimizers(model, plan)
    model.train()
    while step < plan.steps:
        for rows in batches(examples(epoch), size=plan.batch, rng=rng):
            pace = _schedule(step / plan.steps)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * pace
            answer, prompt, right = _losses(model, batch(rows))
            (answer + plan.prompt_loss * pace * prompt).backward()  # type: ignore[no-untyped-call, unused-ignore]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 50 == 0 or step == plan.steps:
                seconds = time.perf_counter() - started
                watch(step, f"answer {answer:.3f} prompt {prompt:.3f} letters {right:.3f} {seconds:.0f} s")
            if step == plan.steps:
                break
        epoch += 1


def _optimizers(model: "LlamaForCausalLM", plan: Plan) -> list["torch.optim.Optimizer"]:
    import torch

    from scripts.tiny_muon import Muon

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    muon = Muon([{"params": matrices, "peak": plan.matrix_lr}], lr=plan.matrix_lr)
    adam = torch.optim.AdamW([{"params": others, "peak": plan.other_lr}], lr=plan.other_lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def _schedule(done: float) -> float:
    """Warm up over 2 %, hold, and fall to a hundredth over the last 40 %."""
    return min(1.0, done / 0.02 + 0.02, max(0.01, (1 - done) / 0.4))


def _losses(model: "LlamaForCausalLM", rows: Batch) -> tuple["torch.Tensor", "torch.Tensor", float]:
    """Loss on answers, loss on prompts, and the share of letters that are the likeliest token."""
    import torch

    hidden = model.model(
        input_ids=torch.from_numpy(rows.ids_B_T),
        position_ids=torch.from_numpy(rows.positions_B_T),
        attention_mask=torch.from_numpy(rows.visible_B_T_T)[:, None],
        use_cache=False,
    ).last_hidden_state
    logits_N_V = model.lm_head(hidden.flatten(0, 1)[torch.from_numpy(rows.source_N)])
    target_N = torch.from_numpy(rows.target_N)
    loss_N = torch.nn.functional.cross_entropy(logits_N_V, target_N, reduction="none")
    weight_N, in_prompt_N = torch.from_numpy(rows.weight_N).float(), torch.from_numpy(rows.in_prompt_N)
    answer = (loss_N * weight_N)[~in_prompt_N].sum() / weight_N[~in_prompt_N].sum()
    letter_N = ~in_prompt_N & (weight_N == LETTER_WEIGHT)
    right = (logits_N_V[letter_N].argmax(-1) == target_N[letter_N]).float().mean().item()
    return answer, loss_N[in_prompt_N].mean(), right
