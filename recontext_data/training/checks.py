"""What must hold before the first step and after the last. Each failure is one line that says what to do.

The rows are checked as the trainer holds them, after everything that TRL did to them.
"""

from collections.abc import Mapping, Sequence

from recontext_data.core.errors import InputError, PolicyError
from recontext_data.training.libraries import Dataset, LanguageModel, Tensor, Trainer
from recontext_data.training.rows import IGNORED, TokenizedRow

CHECKED = 1000
"""Rows that are looked at, spread over the dataset."""
PROBES = 2
"""Rows whose logits are compared."""
PROBE_TOKENS = 512
SAME = 1e-5
"""Largest difference of two logits that are to be equal, in fp32."""


def check_lengths(rows: Sequence[TokenizedRow], *, window: int | None, max_length: int | None) -> None:
    """Raises InputError for rows that the model cannot take in whole."""
    if window is None:
        return
    if max_length is not None and max_length > window:
        raise InputError(f"training.max_length={max_length}: the model's window is {window}; set it to that or less")
    long = [row for row in rows if len(row) > window]
    if long:
        worst = max(long, key=len)
        raise InputError(
            f"{len(long)} of {len(rows)} rows are longer than the model's window of {window} tokens "
            f"({worst.row_id}: {len(worst):,}); "
            f"set training.max_length={window} to leave them out, or sampler.max_tokens lower"
        )


def check_trained_rows(dataset: Dataset, rows: Sequence[TokenizedRow], *, end: int, packed: bool) -> float:
    """Compares the trainer's rows with ours and returns the share of tokens that loss falls on.

    Raises:
        InputError: a prompt is trained on, a row has no trained token, or the trainer changed a row.
    """
    if packed:
        return _check_packed(dataset, rows)
    if len(dataset) != len(rows):
        raise InputError(f"the trainer holds {len(dataset)} rows of {len(rows)}; leave out what in training.extra changes them")
    for index in range(0, len(rows), max(1, len(rows) // CHECKED)):
        _check_row(dataset[index], rows[index], end=end)
    return _share(sum(len(row.completion) for row in rows), sum(len(row) for row in rows))


def _check_row(found: Mapping[str, Sequence[int]], row: TokenizedRow, *, end: int) -> None:
    labels = list(found["labels"])
    if list(found["input_ids"]) != row.input_ids or labels != row.labels:
        raise InputError(f"row {row.row_id}: the trainer changed it; leave out what in training.extra changes the rows")
    if not row.prompt or labels[0] != IGNORED:
        raise InputError(f"row {row.row_id}: every token is trained on, its prompt too; the share must be below 1")
    if all(label == IGNORED for label in labels):
        raise InputError(f"row {row.row_id}: no token is trained on; its completion is empty")
    if labels[-1] != end:
        raise InputError(f"row {row.row_id}: the last trained token is not the one that ends a completion")


def _check_packed(dataset: Dataset, rows: Sequence[TokenizedRow]) -> float:
    trained = sum(label != IGNORED for packed in dataset["labels"] for label in packed)
    tokens = sum(len(packed) for packed in dataset["input_ids"])
    wanted = (sum(len(row.completion) for row in rows), sum(len(row) for row in rows))
    if (trained, tokens) != wanted:
        raise InputError(f"packing lost tokens: {wanted[1] - tokens:,} of {wanted[1]:,}; raise training.max_length")
    return _share(trained, tokens)


def _share(trained: int, tokens: int) -> float:
    if not 0 < trained < tokens:
        raise InputError(f"{trained} of {tokens} tokens are trained on; it must be some and not all")
    return trained / tokens


def check_padding(trainer: Trainer, rows: Sequence[TokenizedRow]) -> None:
    """Raises InputError where a batch would train on padding."""
    pair = [{"input_ids": row.input_ids, "labels": row.labels} for row in (min(rows, key=len), max(rows, key=len))]
    batch = trainer.data_collator(pair)
    wanted = sum(len(row["labels"]) - row["labels"].count(IGNORED) for row in pair)
    if int((batch["labels"] != IGNORED).sum()) != wanted:
        raise InputError("a padded batch trains on other tokens than its rows say; this version of TRL is not understood")


def trainable_parameters(model: LanguageModel) -> int:
    """Numbers that a step changes.

    Raises:
        InputError: there are none.
    """
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not trainable:
        raise InputError(
            "nothing to train: no parameter of the model requires a gradient; check training.method and training.lora"
        )
    return int(trainable)


def probe_logits(model: LanguageModel, rows: Sequence[TokenizedRow]) -> list[Tensor]:
    """The logits of a few rows, one at a time, so that no padding takes part."""
    import torch

    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        found = [
            model(torch.tensor([row.input_ids[:PROBE_TOKENS]], device=device)).logits.float().cpu() for row in rows[:PROBES]
        ]
    model.train(was_training)
    return found


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest difference of two logits."""
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def check_changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """How far training moved the logits.

    Raises:
        PolicyError: not at all, or to no number.
    """
    moved = largest_difference(before, after)
    if moved != moved:
        raise PolicyError("the trained model's logits are not finite; lower training.learning_rate")
    if moved == 0:
        raise PolicyError("training changed nothing: the model's logits are the base's; raise training.learning_rate or epochs")
    return moved


def check_same(first: Sequence[Tensor], second: Sequence[Tensor], *, what: str, tolerance: float = SAME) -> float:
    """The largest difference of two that are to be the same model.

    Raises:
        PolicyError: they differ by more than `tolerance`, relative to the largest logit where that is above 1.
    """
    scale = max(1.0, *(float(logits.abs().max()) for logits in first))
    apart = largest_difference(first, second)
    if not apart <= tolerance * scale:
        raise PolicyError(
            f"{what} differ by {apart:.2g} in a logit, and {tolerance:g} may be; the saved files cannot be trusted"
        )
    return apart
