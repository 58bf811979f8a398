"""What a training row becomes in each format: pure functions from rows and pairs to plain data. `FORMATS` lists them.

Sources of the fields: OpenAI's guides to supervised fine-tuning and direct preference optimization; TRL's dataset formats;
LLaMA-Factory's data/README; Axolotl's conversation and instruction formats; the data pages of Together and Fireworks;
tinker_cookbook's conversation files. All were read in November 2026.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recontext_data.core.errors import DataError

Row = Mapping[str, Any]
"""A training row (`tables.TRAINING_ROWS`), or for preferences a `pairs.Pair` as a dict."""
Json = dict[str, Any]

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class Format:
    """One format: what it is written as, from what, and how."""

    name: str
    suffix: Literal["jsonl", "parquet"]
    source: Literal["rows", "pairs"]
    meaning: str
    convert: Callable[[Row], Json]
    fields: tuple[str, ...] = ()
    """Columns of a Parquet file; empty: those of the training rows."""


def openai(row: Row) -> Json:
    """A chat with weights: loss falls on the completion, never on an assistant turn of the prompt."""
    turns = [_weighted(turn, 0) if turn["role"] == "assistant" else _plain(turn) for turn in row["prompt"]]
    return {"messages": [*turns, *[_weighted(turn, 1) for turn in row["completion"]]]}


def openai_preference(row: Row) -> Json:
    """The input of direct preference optimization at OpenAI; Together and Fireworks take the same."""
    return {
        "input": {"messages": _turns(row["prompt"]), "tools": [], "parallel_tool_calls": True},
        "preferred_output": _turns(row["chosen"]),
        "non_preferred_output": _turns(row["rejected"]),
    }


def trl(row: Row) -> Json:
    """TRL's conversational prompt-completion: loss on the completion alone, without any further setting."""
    return {"prompt": _turns(row["prompt"]), "completion": _turns(row["completion"])}


def trl_messages(row: Row) -> Json:
    """TRL's conversational language modelling; `assistant_only_loss` needs a template with generation marks."""
    return {"messages": _turns([*row["prompt"], *row["completion"]])}


def trl_preference(row: Row) -> Json:
    """TRL's conversational preference with an explicit prompt."""
    return {"prompt": _turns(row["prompt"]), "chosen": _turns(row["chosen"]), "rejected": _turns(row["rejected"])}


def sharegpt(row: Row) -> Json:
    """`conversations` of {from, value}; `train` marks the turn that Axolotl takes the loss on, and others ignore it."""
    turns = [_said(turn, train=False) for turn in row["prompt"]] + [_said(turn, train=True) for turn in row["completion"]]
    return {"conversations": turns}


def alpaca(row: Row) -> Json:
    """One instruction and one output, a system prompt beside them.

    Raises:
        DataError: the prompt has several turns, which the format has no place for that is not trained on.
    """
    system = "".join(turn["content"] for turn in row["prompt"] if turn["role"] == "system")
    others = [turn for turn in row["prompt"] if turn["role"] != "system"]
    if [turn["role"] for turn in others] != ["user"]:
        raise DataError(
            f"format=alpaca: row {row['candidate_id']} has a prompt of {len(others)} turns, and the format has room for one; "
            "use format=sharegpt"
        )
    return {"instruction": others[0]["content"], "input": "", "output": _answer(row), "system": system}


def messages(row: Row) -> Json:
    """`messages` of {role, content} and nothing else."""
    return {"messages": _turns([*row["prompt"], *row["completion"]])}


def whole(row: Row) -> Json:
    """The row as it is, with its provenance."""
    return dict(row)


def _plain(turn: Mapping[str, str]) -> Json:
    return {"role": turn["role"], "content": turn["content"]}


def _turns(turns: Any) -> list[Json]:
    return [_plain(turn) for turn in turns]


def _weighted(turn: Mapping[str, str], weight: int) -> Json:
    return {**_plain(turn), "weight": weight}


def _said(turn: Mapping[str, str], *, train: bool) -> Json:
    return {"from": SHAREGPT_ROLES[turn["role"]], "value": turn["content"], "train": train}


def _answer(row: Row) -> str:
    return "".join(turn["content"] for turn in row["completion"])


_ALL = (
    Format("openai", "jsonl", "rows", "chat with weights: OpenAI, Azure, and whoever takes OpenAI's files", openai),
    Format(
        "openai_preference", "jsonl", "pairs", "DPO at OpenAI, Together and Fireworks: kept against dropped", openai_preference
    ),
    Format("trl", "parquet", "rows", "TRL, prompt-completion, conversational", trl, ("prompt", "completion")),
    Format("trl_messages", "parquet", "rows", "TRL, whole conversations", trl_messages, ("messages",)),
    Format(
        "trl_preference",
        "parquet",
        "pairs",
        "TRL, preferences: DPO and its kin",
        trl_preference,
        ("prompt", "chosen", "rejected"),
    ),
    Format("sharegpt", "jsonl", "rows", "Axolotl and LLaMA-Factory, with a YAML for each", sharegpt),
    Format("alpaca", "jsonl", "rows", "Axolotl and LLaMA-Factory, single-turn, with a YAML for each", alpaca),
    Format("together", "jsonl", "rows", "Together: messages with weights", openai),
    Format("fireworks", "jsonl", "rows", "Fireworks: messages with weights", openai),
    Format("tinker", "jsonl", "rows", "tinker_cookbook's conversation files", messages),
    Format("parquet", "parquet", "rows", "every column of the training rows", whole),
)
FORMATS = {format.name: format for format in _ALL}
"""By name, in the order of the documentation."""
