"""A penalty for leaving the reference model, on rows of its own: the regularised baseline of expert iteration.

    training: {kl: {weight: 0.5, data: data/plain_chats.jsonl}}

loss = SFT loss + weight * mean over the completions' tokens of KL(policy || reference), exact over the vocabulary. The
reference is the model that training starts from: its weights frozen, or the adapters disabled. Each step takes as many of the
given rows as it trains on, in a seeded order that goes round, and which ones they are is a function of the step alone, so
that a resumed training takes the same.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.training import KL, Training
from recontext_data.core.errors import DataError, InputError, RecipeError
from recontext_data.core.records import content_hash, derive_seed
from recontext_data.store.files import file_digest
from recontext_data.training.arguments import num_processes
from recontext_data.training.libraries import LanguageModel, Tensor, Tokenizer, Trainer
from recontext_data.training.rows import TokenizedRow, encode_rows, read_split

if TYPE_CHECKING:
    import torch

    from recontext_data.pipeline.external_data import Given

MEASURED = 64
"""Rows of the given set, spread over it, whose KL is measured after training."""


def digest(config: KL) -> str:
    """A hash of the rows, wherever they lie.

    Raises:
        DataError: they cannot be read.
    """
    folder = Path(config.data).expanduser()
    if folder.is_dir():
        return content_hash([file_digest(file) for file in sorted(folder.rglob("*.arrow"))])
    return _chats(config).digest


def read_rows(config: KL) -> list[dict[str, Any]]:
    """The rows: an arm's folder (its training split), a split, or a file of chats, .jsonl or .parquet with `messages`.

    Raises:
        DataError: they cannot be read, or there is none.
    """
    folder = Path(config.data).expanduser()
    if folder.is_dir():
        return read_split(folder / "train" if (folder / "train").is_dir() else folder)
    given = _chats(config)
    prompts = {task.task_id: list(task.messages) for task in given.tasks}
    return [
        {"prompt": prompts[task_id], "completion": [{"role": "assistant", "content": text}], "candidate_id": name}
        for task_id, name, text in given.candidates.select("task_id", "candidate_id", "completion").iter_rows()
    ]


def _chats(config: KL) -> "Given":
    from recontext_data.pipeline.external_data import read_given

    try:
        return read_given(config.data, source="kl")
    except DataError as error:
        raise DataError(str(error).replace("arms: data=", "training.kl.data=", 1)) from None


def require_one_process(config: Training) -> None:
    """Raises RecipeError where several processes would share a model that the reference cannot be told from."""
    if config.kl is not None and num_processes() > 1:
        raise RecipeError("training.kl: is computed in one process only; leave out `accelerate launch`, or training.kl")


@dataclass
class Penalty:
    """The rows, their order, and the reference."""

    config: KL
    rows: Sequence[TokenizedRow]
    order: Sequence[int]
    pad: int
    reference: LanguageModel | None
    """The frozen model; None where it is the policy with its adapters disabled."""

    @classmethod
    def of(cls, config: Training, model: LanguageModel, tokenizer: Tokenizer, *, end: int, seed: int) -> "Penalty":
        """From a config and the model before it is wrapped or trained.

        Raises:
            DataError: the rows cannot be read.
            InputError: none of them can be trained on, or one is longer than the model's window.
        """
        from recontext_data.training.checks import check_lengths

        assert config.kl is not None
        rows, drops = encode_rows(tokenizer, read_rows(config.kl), end=end)
        if not rows:
            raise InputError(f"training.kl.data={config.kl.data}: no row is left: {drops[0]}")
        check_lengths(rows, window=getattr(model.config.get_text_config(), "max_position_embeddings", None), max_length=None)
        reference = copy.deepcopy(model).eval().requires_grad_(False) if config.method == "full" else None
        order = sorted(range(len(rows)), key=lambda index: derive_seed("kl", seed, index))
        return cls(config.kl, rows, order, int(tokenizer.pad_token_id or 0), reference)

    def batch(self, number: int, size: int) -> list[TokenizedRow]:
        """The rows of the batch of this number, from 0; after the last row comes the first."""
        return [self.rows[self.order[index % len(self.rows)]] for index in range(number * size, (number + 1) * size)]

    def divergence(self, model: LanguageModel, rows: Sequence[TokenizedRow]) -> tuple[Tensor, int]:
        """The sum of KL(policy || reference) over the completions' tokens in nats, with gradients, and their number."""
        import torch

        ids_B_T, mask_B_T, wanted_B_T = self._tensors(rows, next(model.parameters()).device)
        # Only positions that some row's completion is predicted from: the vocabulary is the largest dimension here.
        keep = wanted_B_T.any(0).nonzero()[:, 0]
        inputs = {"input_ids": ids_B_T, "attention_mask": mask_B_T, "use_cache": False, "logits_to_keep": keep}
        with torch.no_grad(), self._as_reference(model):
            theirs = (self.reference or model)(**inputs).logits[wanted_B_T[:, keep]].float().log_softmax(-1)
        ours = model(**inputs).logits[wanted_B_T[:, keep]].float().log_softmax(-1)
        return (ours.exp() * (ours - theirs)).sum(), len(ours)

    def measure(self, model: LanguageModel, *, size: int) -> float:
        """Mean KL per token over rows that are spread over the set."""
        import torch

        rows = self.rows[:: -(-len(self.rows) // MEASURED)]
        was_training = model.training
        model.eval()
        with torch.no_grad():
            parts = [self.divergence(model, rows[at : at + size]) for at in range(0, len(rows), size)]
        model.train(was_training)
        return float(sum(float(total) for total, _ in parts) / sum(count for _, count in parts))

    def _as_reference(self, model: LanguageModel) -> AbstractContextManager[None]:
        return model.disable_adapter() if self.reference is None else nullcontext()

    def _tensors(self, rows: Sequence[TokenizedRow], device: "torch.device") -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, attention, and the positions whose next token is of a completion: [B, T], padded on the right."""
        import torch

        longest = max(len(row) for row in rows)
        ids_B_T = torch.full((len(rows), longest), self.pad)
        mask_B_T, wanted_B_T = torch.zeros_like(ids_B_T), torch.zeros_like(ids_B_T, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids_B_T[index, : len(row)] = torch.tensor(row.input_ids)
            mask_B_T[index, : len(row)] = 1
            wanted_B_T[index, len(row.prompt) - 1 : len(row) - 1] = True
        return ids_B_T.to(device), mask_B_T.to(device), wanted_B_T.to(device)


def penalised(penalty: Penalty) -> type[Trainer]:
    """TRL's SFTTrainer with the penalty in its loss. At weight 0 its arithmetic is SFTTrainer's own."""
    from trl import SFTTrainer

    class PenalisedTrainer(SFTTrainer):  # type: ignore[misc]
        kl = penalty
        _at = (-1, 0)
        """The step, and how many of its batches have been seen."""

        def compute_loss(
            self, model: LanguageModel, inputs: object, return_outputs: bool = False, num_items_in_batch: object = None
        ) -> object:  # the trainer's own signature
            found = super().compute_loss(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)
            if not self.model.training or not self.kl.config.weight:
                return found
            total, count = self.kl.divergence(self.accelerator.unwrap_model(model), self._next_rows())
            self._metrics["train"]["kl"].append(float(total.detach()) / count)
            # Where the trainer counts tokens over all batches of a step, it leaves dividing by their number to the loss.
            batches = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            added = self.kl.config.weight * total / count / batches
            return (found[0] + added, found[1]) if return_outputs else found + added

        def _next_rows(self) -> list[TokenizedRow]:
            step = int(self.state.global_step)
            self._at = (step, self._at[1] + 1 if self._at[0] == step else 0)
            size, batches = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
            return self.kl.batch(step * batches + self._at[1], size)

    return PenalisedTrainer
