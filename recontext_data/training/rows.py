"""Training rows to tokens: the prompt exactly as it is sampled from, then the completion, then the token that ends it.

The chat template renders the prompt alone. It never renders the completion, because templates put more around a finished
turn than a policy writes: a newline after the end token, an empty thinking block, a trimmed text.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recontext_data.core.chat_template import encode_prompt, render_prompt
from recontext_data.core.errors import DataError, InputError
from recontext_data.core.records import Messages, uniform
from recontext_data.store.files import file_digest
from recontext_data.training.libraries import Tokenizer

COLUMNS = ("prompt", "completion")
IGNORED = -100
"""The label of a token that no loss falls on."""
MEGA_BATCHES = 8
"""Batches that are sorted by length together: enough to save most of the padding, few enough to keep the order mixed."""
_PROBE = "recontext"


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row in tokens."""

    row_id: str
    prompt: list[int]
    completion: list[int]
    """With the end token."""

    @property
    def input_ids(self) -> list[int]:
        """All tokens."""
        return self.prompt + self.completion

    @property
    def labels(self) -> list[int]:
        """Where loss falls: the token itself, and IGNORED elsewhere."""
        return [IGNORED] * len(self.prompt) + self.completion

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def read_split(folder: Path) -> list[dict[str, Any]]:
    """The rows of one split of an arm.

    Raises:
        DataError: it is not a dataset, is empty, or lacks the columns.
    """
    import datasets

    try:
        split = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(
            f"{folder}: is not a dataset that `recontext build` wrote ({str(error).splitlines()[0]}); build it again"
        ) from None
    missing = [name for name in COLUMNS if name not in split.column_names]
    if missing:
        raise DataError(
            f"{folder}: has no column {missing[0]!r} (it has {', '.join(sorted(split.column_names))}); "
            "training reads `prompt` and `completion`, lists of {role, content}"
        )
    if not len(split):
        raise DataError(f"{folder}: has no rows; nothing to train on")
    wanted = [*COLUMNS, *(name for name in ("candidate_id", "finish_reason") if name in split.column_names)]
    rows: list[dict[str, Any]] = split.select_columns(wanted).to_list()
    return rows


def dataset_fingerprint(folder: Path) -> dict[str, str]:
    """The hash of every Arrow file of an arm, by its path in it."""
    files = sorted(folder.glob("*/*.arrow"))
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files}


def end_token(tokenizer: Tokenizer, *, ends: Collection[int]) -> int:
    """The token that the chat template ends a turn with, which must be one that ends a completion when sampled.

    Raises:
        InputError: it is not, so a model trained on it would never stop.
    """
    conversation = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
    text = str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=False))
    tail = text.rpartition(_PROBE)[2]
    found = [token for token in tokenizer.encode(tail, add_special_tokens=False) if token in ends]
    if found:
        return int(found[0])
    if not tail.strip() and tokenizer.eos_token_id in ends:
        return int(tokenizer.eos_token_id)
    known = ", ".join(repr(tokenizer.decode([token])) for token in sorted(ends)) or "nothing"
    raise InputError(
        f"the chat template ends a turn with {tail!r}, and sampling ends at {known}: the model would never learn to stop; "
        "set eos_token_id in generation_config.json to the template's end token"
    )


def encode_rows(tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], *, end: int) -> tuple[list[TokenizedRow], list[str]]:
    """The rows in tokens, and why others were left out."""
    kept: list[TokenizedRow] = []
    drops: list[str] = []
    prompts = TokenizedPrompts(tokenizer)
    for number, row in enumerate(rows):
        prompt = prompts.tokens(row["prompt"])
        completion = prompts.after(row["prompt"], "".join(message["content"] for message in row["completion"]))
        if end in completion:
            drops.append("the completion holds the end token")
        elif not completion:
            drops.append("the completion is empty")
        else:
            kept.append(TokenizedRow(str(row.get("candidate_id", number)), prompt, [*completion, end]))
    return kept, drops


class TokenizedPrompts:
    """Prompts in tokens; each is rendered once however many completions it has."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._known: dict[bytes, tuple[str, list[int]]] = {}

    def tokens(self, messages: Messages) -> list[int]:
        """The prompt as sampling encodes it."""
        return self._both(messages)[1]

    def after(self, messages: Messages, content: str) -> list[int]:
        """The tokens of a completion as they stand after its prompt."""
        text, prompt = self._both(messages)
        whole = list(self.tokenizer.encode(text + content, add_special_tokens=False))
        if whole[: len(prompt)] == prompt:
            return whole[len(prompt) :]
        # The text merges across the boundary; sampling begins after the prompt's own tokens, and so does training.
        return list(self.tokenizer.encode(content, add_special_tokens=False))

    def _both(self, messages: Messages) -> tuple[str, list[int]]:
        key = orjson.dumps(messages)
        if key not in self._known:
            text = render_prompt(self.tokenizer, messages=messages)
            self._known[key] = (text, encode_prompt(self.tokenizer, messages=messages))
        return self._known[key]


def within(rows: Sequence[TokenizedRow], *, limit: int) -> tuple[list[TokenizedRow], list[str]]:
    """The rows of at most `limit` tokens, and a reason for each other. None is cut: half an answer teaches to stop there."""
    kept = [row for row in rows if len(row) <= limit]
    return kept, [f"longer than training.max_length={limit}"] * (len(rows) - len(kept))


def training_order(rows: Sequence[TokenizedRow], *, epochs: int, batch_size: int, seed: int) -> list[int]:
    """Row numbers in the order of training, all epochs in a line: mixed by seeded hash of ids, rows of like length together."""
    return [
        index for epoch in range(epochs) for index in _epoch(rows, batch_size, lambda *key, e=epoch: uniform(seed, e, *key))
    ]


def _epoch(rows: Sequence[TokenizedRow], batch_size: int, draw: Callable[..., float]) -> list[int]:
    mixed = sorted(range(len(rows)), key=lambda i: (draw("row", rows[i].row_id, i), i))
    batches: list[list[int]] = []
    for start in range(0, len(mixed), batch_size * MEGA_BATCHES):
        near = sorted(mixed[start : start + batch_size * MEGA_BATCHES], key=lambda i: len(rows[i]))
        cut = [near[at : at + batch_size] for at in range(0, len(near), batch_size)]
        batches += sorted(cut, key=lambda batch: draw("batch", rows[batch[0]].row_id, batch[0]))
    whole = [batch for batch in batches if len(batch) == batch_size]
    # A batch that is not full comes last, or every one after it would straddle two lengths.
    return [i for batch in [*whole, *(batch for batch in batches if len(batch) < batch_size)] for i in batch]
