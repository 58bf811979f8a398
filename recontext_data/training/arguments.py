"""From our config to TRL's SFTConfig, and the check of `training.extra` against SFTConfig's own fields."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.config.training import Training
from recontext_data.core.errors import RecipeError, SetupError, did_you_mean

if TYPE_CHECKING:
    from trl import SFTConfig

OURS = {
    "learning_rate": "training.learning_rate",
    "num_train_epochs": "training.epochs",
    "per_device_train_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.batch_size",
    "max_length": "training.max_length",
    "save_steps": "training.checkpoint_steps",
    "seed": "training.seeds",
    "data_seed": "training.seeds",
}
FIXED = {
    **dict.fromkeys(
        ("output_dir", "save_strategy", "save_total_limit", "save_only_model", "resume_from_checkpoint"), "checkpoints"
    ),
    **dict.fromkeys(("use_cpu", "bf16", "fp16"), "the device"),
    **dict.fromkeys(
        ("dataset_kwargs", "dataset_text_field", "completion_only_loss", "assistant_only_loss"), "the loss on the completion"
    ),
    **dict.fromkeys(("truncation_mode", "eos_token", "pad_token", "chat_template_path"), "the loss on the completion"),
    **dict.fromkeys(("shuffle_dataset", "train_sampling_strategy", "remove_unused_columns"), "the order of the rows"),
    **dict.fromkeys(("model_init_kwargs", "trust_remote_code", "push_to_hub", "disable_tqdm", "eval_strategy"), "this verb"),
}
REPORTERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""What `report_to` names, and the library that it needs."""
LOGS = 50
"""Losses that are kept of one training, about."""
CPU_ROWS = 4
NEED_CUDA = ("packing", "padding_free")


def check_extra(extra: Mapping[str, object], *, cuda: bool) -> None:
    """Raises RecipeError for a name that SFTConfig lacks or that is decided elsewhere, SetupError for what is missing."""
    from trl import SFTConfig

    known = {field.name for field in fields(SFTConfig)}
    for name, value in extra.items():
        if name in OURS:
            raise RecipeError(f"training.extra.{name}: has a field of its own; set {OURS[name]} instead")
        if name in FIXED:
            raise RecipeError(f"training.extra.{name}: is decided by {FIXED[name]} here; leave it out")
        if name not in known:
            raise RecipeError(
                f"training.extra.{name}: TRL's SFTConfig has no such field; {did_you_mean(name, known - {*OURS, *FIXED})}"
            )
        if name in NEED_CUDA and value:
            _require_flash_attention(name, cuda=cuda)
    reporters = extra.get("report_to", [])
    for reporter in [reporters] if isinstance(reporters, str) or not isinstance(reporters, Iterable) else reporters:
        if reporter in REPORTERS and find_spec(REPORTERS[reporter]) is None:
            raise SetupError(f"training.extra.report_to={reporter}: is not installed; pip install {REPORTERS[reporter]}")


def needs_flash_attention(extra: Mapping[str, object]) -> bool:
    """Whether rows will stand in one line, where only flash attention keeps them apart."""
    return any(extra.get(name) for name in NEED_CUDA)


def _require_flash_attention(name: str, *, cuda: bool) -> None:
    if not cuda:
        raise RecipeError(f"training.extra.{name}: needs a CUDA GPU with flash attention, and there is none here; leave it out")
    if find_spec("flash_attn") is None:
        raise SetupError(f"training.extra.{name}: needs flash attention: pip install flash-attn --no-build-isolation")


def num_processes() -> int:
    """Processes that `accelerate launch` or torchrun started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files."""
    return int(os.environ.get("RANK", "0")) == 0


def micro_batch(config: Training) -> int:
    """Rows in memory at once, per process.

    Raises:
        RecipeError: `batch_size` cannot be shared out among the processes.
    """
    world = num_processes()
    if config.batch_size % world:
        raise RecipeError(
            f"training.batch_size={config.batch_size}: cannot be shared out among {world} processes; make it a multiple"
        )
    share = config.batch_size // world
    micro = min(config.micro_batch_size or _fitting(share), share)
    if config.batch_size % (micro * world):
        raise RecipeError(
            f"training.micro_batch_size={micro}: {world} processes of it do not divide batch_size={config.batch_size}"
        )
    return micro


def _fitting(share: int) -> int:
    """All rows of a process at once on a GPU; on a CPU as many as its caches hold, which takes a sixth less time."""
    import torch

    return share if torch.cuda.is_available() else max(size for size in range(1, CPU_ROWS + 1) if share % size == 0)


def sft_config(config: Training, *, output: Path, seed: int, steps: int, longest: int) -> "SFTConfig":
    """TRL's config: ours, the fixed part, and `extra` on top.

    Raises:
        RecipeError: SFTConfig refuses a value.
    """
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    packing = bool(config.extra.get("packing"))
    micro = micro_batch(config)
    values = {
        "output_dir": str(output),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // (micro * num_processes()),
        # The rows of all epochs stand in one line already, each epoch in its own order.
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": config.learning_rate,
        "gradient_checkpointing": False,  # SFTConfig's own default is true, which costs a fifth more time
        # Rows come with tokens and labels: nothing is rendered, masked or cut a second time.
        "dataset_kwargs": {"skip_prepare_dataset": not packing},
        "max_length": (config.max_length or longest) if packing else None,
        "seed": seed,
        "use_cpu": not cuda,
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": cuda,
        "save_strategy": "steps" if config.checkpoint_steps < steps else "no",
        "save_steps": config.checkpoint_steps,
        "save_total_limit": 1,
        "eval_strategy": "no",
        "logging_steps": max(1, steps // LOGS),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    try:
        return SFTConfig(**(values | config.extra))
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(f"training.extra: SFTConfig refuses it: {str(error).strip().splitlines()[0]}") from None
