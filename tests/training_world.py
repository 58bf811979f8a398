"""What the tests of training share: a Llama of 30,000 parameters with a ChatML template, and arms to train it on."""

from pathlib import Path
from typing import Any

from recontext_data.config.training import Training
from recontext_data.training.base import Base, base_from
from recontext_data.training.preparing import TrainingJob

# Qwen's way of ending a turn: a newline after the end token, which must not be trained on.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ANSWERS = ("Code: return a + b\nAnswer: (A)", "Code: return 3\nAnswer: (B)")


def make_model(folder: Path, *, seed: int = 0, window: int = 256, template: str = TEMPLATE, vocabulary: int = 300) -> Path:
    """A folder as Transformers writes it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*ANSWERS, "user assistant system Add the numbers Which option?"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=0.2,  # at 0.02 a frozen output layer this narrow cannot say anything firmly
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [
                {"role": "system", "content": "Tests decide."},
                {"role": "user", "content": f"Add the numbers {i}" + " and" * (i % 7)},
            ],
            "completion": [{"role": "assistant", "content": ANSWERS[i % 2]}],
            "candidate_id": f"c{i:04}",
            "finish_reason": "stop",
        }
        for i in range(count)
    ]


def make_arm(folder: Path, *, train: list[dict[str, Any]] | None = None, validation: int = 8) -> Path:
    """An arm's dataset, written by `datasets` itself."""
    from datasets import Dataset

    Dataset.from_list(rows(64) if train is None else train).save_to_disk(str(folder / "train"))
    if validation:
        Dataset.from_list(rows(validation)).save_to_disk(str(folder / "validation"))
    return folder


def make_job(folder: Path, *, base: Base | None = None, seed: int = 0, **config: Any) -> TrainingJob:
    """A job over `folder`/model and `folder`/arm, made where they are not there."""
    model, arm = folder / "model", folder / "arm"
    if not model.exists():
        make_model(model)
    if not arm.exists():
        make_arm(arm)
    return TrainingJob(
        recipe="small",
        arm="standard.default-default",
        contexts=("default", "default"),
        seed=seed,
        dataset=arm,
        target=folder / "models" / "standard.default-default" / f"seed-{seed}",
        base=base or base_from(str(model)),
        config=Training(**({"learning_rate": 5e-3, "batch_size": 8} | config)),
    )
