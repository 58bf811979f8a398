"""What goes into one training: the job, its rows in tokens, TRL's trainer over them, and the checks before the first step."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recontext_data.config.training import Training
from recontext_data.core.errors import InputError
from recontext_data.core.records import content_hash
from recontext_data.training import adapters, checks, kl
from recontext_data.training.arguments import num_processes, sft_config
from recontext_data.training.base import Base, check_prompts, check_vocabulary, end_tokens
from recontext_data.training.compact import compact
from recontext_data.training.libraries import Dataset, LanguageModel, Tokenizer, Trainer
from recontext_data.training.rows import (
    TokenizedRow,
    dataset_fingerprint,
    encode_rows,
    end_token,
    read_split,
    training_order,
    within,
)

VALIDATED = 64
"""Validation rows, spread over the split, whose loss is taken before and after."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One model to train."""

    recipe: str
    arm: str
    contexts: tuple[str, str]
    """Names of the generation and the training context; of the arm's first part where it has several."""
    seed: int
    dataset: Path
    """The arm's folder, with train/ and perhaps validation/."""
    target: Path
    """The folder of the model."""
    base: Base
    config: Training
    parts: Sequence[Mapping[str, Any]] = ()
    """What the rows are made from where not all are alike, as the manifest says it."""

    def request(self) -> dict[str, Any]:
        """All that decides the weights; JSON. Paths, other seeds and the places of checkpoints do not."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "base": dict(self.base.folder.identity()) | {"chat_template": self.base.chat_template},
            "dataset": content_hash(dataset_fingerprint(self.dataset)),
            "config": training_content(self.config),
        }


def training_content(config: Training) -> dict[str, Any]:
    """What of a config decides the weights of a model; JSON."""
    content = config.model_dump(mode="json", exclude={"base", "seeds", "checkpoint_steps"})
    if config.kl is not None:
        content["kl"]["data"] = kl.digest(config.kl)
    return content


@dataclass
class Data:
    """The rows of a job in tokens."""

    train: list[TokenizedRow]
    validation: list[TokenizedRow]
    end: int
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    """Completions that were cut at max_tokens when they were sampled."""


def read_data(job: TrainingJob, model: LanguageModel, tokenizer: Tokenizer) -> Data:
    """Both splits in tokens, with everything that can be known of them before the trainer is made."""
    check_vocabulary(model, tokenizer, name=job.base.folder.name)
    data = Data([], [], end_token(tokenizer, ends=end_tokens(model, tokenizer)))
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name in ("train", "validation"):
        if name == "validation" and not (job.dataset / name).is_dir():
            continue
        raw = read_split(job.dataset / name)
        rows, drops = encode_rows(tokenizer, raw, end=data.end)
        if job.config.max_length is not None:
            rows, long = within(rows, limit=job.config.max_length)
            drops += long
        data.dropped.update(drops)
        data.truncated += sum(row.get("finish_reason") == "length" for row in raw)
        checks.check_lengths(rows, window=window, max_length=job.config.max_length)
        if name == "train" and not rows:
            raise InputError(
                f"{job.arm}: no token is left to train on: {len(drops)} rows left out ({Counter(drops).most_common(1)[0][0]})"
            )
        setattr(data, name, rows)
    return data


def make_trainer(
    job: TrainingJob, model: LanguageModel, tokenizer: Tokenizer, *, data: Data, work: Path
) -> tuple[Trainer, list[TokenizedRow]]:
    """TRL's trainer over our rows, and the rows in the order of its dataset."""
    import torch
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    config = job.config
    trainer_class = SFTTrainer
    if config.kl is not None:
        trainer_class = kl.penalised(kl.Penalty.of(config, model, tokenizer, end=data.end, seed=job.seed))
    order = training_order(data.train, epochs=config.epochs, batch_size=config.batch_size, seed=job.seed)
    rows = [data.train[index] for index in order]
    longest = max(len(row) for row in rows)
    args = sft_config(config, output=work, seed=job.seed, steps=-(-len(rows) // config.batch_size), longest=longest)
    args.run_name = args.run_name or f"{job.recipe}/{job.arm}/seed-{job.seed}"
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=_as_dataset(data.train).select(order),
        eval_dataset=_as_dataset(data.validation[:: -(-len(data.validation) // VALIDATED)]) if data.validation else None,
        processing_class=tokenizer,
        peft_config=adapters.lora_config(config),
    )
    trainer.remove_callback(PrinterCallback)
    _keep_logs(trainer, job)
    if trainer.args.use_cpu and num_processes() == 1:
        compact(adapters.inner(trainer.model))
    if config.method == "qlora" and trainer.args.use_cpu:
        # TRL turns the adapters of a 4-bit base to bf16, which a GPU computes in and a CPU does not.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
    return trainer, rows


def _keep_logs(trainer: Trainer, job: TrainingJob) -> None:
    """TensorBoard's own place is beside the checkpoints, which are removed at the end."""
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(job.target.parent / "tensorboard" / job.target.name)


def _as_dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    import datasets

    return datasets.Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})


def check_before(
    job: TrainingJob, trainer: Trainer, tokenizer: Tokenizer, *, data: Data, rows: Sequence[TokenizedRow]
) -> float:
    """Everything that is checked on the trainer's own rows; returns the share of tokens that loss falls on."""
    packed = bool(job.config.extra.get("packing"))
    share = checks.check_trained_rows(trainer.train_dataset, rows, end=data.end, packed=packed)
    if not packed and not job.config.extra.get("padding_free"):
        checks.check_padding(trainer, data.train)
    raw = read_split(job.dataset / "train")
    prompts = {row.row_id: row.prompt for row in data.train}
    step = max(1, len(raw) // checks.CHECKED)
    named = [(row["prompt"], prompts.get(str(row.get("candidate_id", number)))) for number, row in enumerate(raw)][::step]
    check_prompts(job.base, tokenizer, [(messages, ids) for messages, ids in named if ids is not None])
    return share


def dataset_facts(job: TrainingJob, data: Data, share: float) -> dict[str, Any]:
    return {
        "fingerprint": content_hash(dataset_fingerprint(job.dataset)),
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "dropped": dict(data.dropped),
        "cut_at_max_tokens": data.truncated,
        "tokens": sum(len(row) for row in data.train),
        "trained_share": share,
        "end_token": data.end,
    }
