"""What a recipe says about training. Light: nothing of torch or trl is imported here.

training: {method: full, learning_rate: 3.0e-4, batch_size: 16}                       # the embedded policy
training: {method: qlora, learning_rate: 1.0e-4, micro_batch_size: 2, extra: {gradient_checkpointing: true}}   # 7B and more
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config, optional_field

MAX_SEED = 2**32
"""numpy, which the trainer seeds too, takes no larger one."""


class Lora(Config):
    """Low-rank adapters on every linear layer but the output's."""

    rank: int = Field(default=16, ge=1)
    """Rank of each adapter."""
    alpha: int = Field(default=32, ge=1)
    """Scale: an adapter's output is multiplied by alpha / rank."""


class KL(Config):
    """A penalty for leaving the model that training starts from, on rows of its own."""

    weight: float = Field(ge=0)
    """What the loss counts a nat of KL(policy || reference) per token."""
    data: str
    """Rows on which the two are compared: a file of chats (.jsonl or .parquet with `messages`), or an arm's folder."""


class Training(Config):
    """Supervised fine-tuning on an arm's rows; the loss falls on the completion and its end token alone."""

    base: str | None = None
    """The model to train: a folder or a Hub id. Left out: the policy that was sampled."""
    method: Literal["full", "lora", "qlora"] = "full"
    """All weights; adapters; or adapters on a base in 4 bits (nf4, double quantisation)."""
    lora: Lora = Lora()
    """For `lora` and `qlora`."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the rows, each in an order of its own."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """At the first step; it falls to 0 in a line. 3e-4 suits the embedded policy; real models 1e-4 (adapters), 1e-5 (full)."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per step, over all processes."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows in memory at once, per process; gradients are accumulated up to `batch_size`. Left out: all, on a CPU 4."""
    max_length: int | None = Field(default=None, ge=2)
    """Longer rows are left out and counted, never cut. Left out: the model's window, and a longer row is an error."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """One model per arm and seed; the seed decides the rows' order and the adapters' first weights."""
    kl: KL | None = optional_field(None)
    """The regularised baseline: `kl: {weight: 0.5, data: chats.jsonl}` adds to the loss how far the model has moved there."""
    checkpoint_steps: int = Field(default=100, ge=1)
    """Steps between two checkpoints; a killed training continues from the last one, and a finished one leaves none."""
    extra: dict[str, Any] = {}
    """Anything else that TRL's SFTConfig takes, by its name: `extra: {warmup_steps: 0.03, report_to: wandb}`;
    `gradient_checkpointing: true` takes less memory for about a fifth more time. Nothing is reported anywhere unless
    `report_to` says so; TensorBoard's files go to `tensorboard/` beside an arm's models."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for seed in self.seeds:
            if not 0 <= seed < MAX_SEED or self.seeds.count(seed) > 1:
                raise ValueError(f"training.seeds={self.seeds}: must be different integers from 0 to {MAX_SEED - 1}")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"training.micro_batch_size: {self.micro_batch_size} does not divide training.batch_size {self.batch_size}; "
                "choose one that does"
            )
        return self
