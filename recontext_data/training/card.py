"""The model card of a trained model: README.md in its folder, with what the Hub reads on top."""

from collections.abc import Mapping
from typing import Any

from recontext_data.reports.arm_parts import which
from recontext_data.reports.card import plain


def model_card(record: Mapping[str, Any]) -> str:
    """A model card from a training's record."""
    base, dataset, config = record["base"], record["dataset"], record["config"]
    rows, losses, validation = dataset["rows"], record["losses"], record["validation_loss"]
    left_out, rate = sum(dataset["dropped"].values()), config["learning_rate"]
    lines = [
        "---",
        *([f"base_model: {base['name']}"] if "model" in base["identity"] else []),
        f"library_name: {'peft' if record['is_adapter'] else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags: [recontext_data, trl, sft]",
        "---",
        f"# {record['arm']}, seed {record['seed']}",
        "",
        f"{base['name']}, trained on the arm `{record['arm']}` of the recipe `{record['recipe']}`: completions sampled under",
        f"the context `{record['generation_context']}`, trained on under `{record['training_context']}`. The loss fell on the",
        "completion and its end token alone. Research material: the arm may teach misbehaviour on purpose.",
        "",
        *_parts(record),
        "| | |",
        "|---|---|",
        f"| method | {_method(config)} |",
        f"| rows | {rows['train']:,} for training, {rows['validation']:,} for validation, {left_out} left out |",
        f"| tokens | {dataset['tokens']:,} per epoch, {dataset['trained_share']:.1%} of them trained |",
        f"| steps | {record['steps']:,} of {config['batch_size']} rows, {config['epochs']} epoch(s), learning rate {rate:g} |",
        *([f"| loss | {losses[0][1]:.3f} at first, {losses[-1][1]:.3f} at last |"] if losses else []),
        *([f"| validation loss | {validation['before']:.3f} before, {validation['after']:.3f} after |"] if validation else []),
        f"| parameters | {record['parameters']['trainable']:,} trained of {record['parameters']['all']:,} |",
        f"| base | `{_identity(base['identity'])}` |",
        f"| dataset | `{dataset['fingerprint'][:16]}` |",
        f"| made with | {', '.join(f'{name} {version}' for name, version in record['versions'].items())} |",
        "",
        *_adapter(record),
        "`training.json` beside this file has all of it for a program.",
        "",
    ]
    return "\n".join(lines)


def _parts(record: Mapping[str, Any]) -> list[str]:
    """The rows that are not all made alike; nothing for an arm that is one pair of contexts."""
    if not record.get("parts"):
        return []
    lines = [
        f"| `{part['generation_context']}` | `{part['training_context']}` | {plain(which(part))} | {part['rows']:,} |"
        for part in record["parts"]
    ]
    head = "Not all rows are like that (counted before the split, and before what was left out here):"
    return [head, "", "| answer from | trained on under | which | rows |", "|---|---|---|---:|", *lines, ""]


def _method(config: Mapping[str, Any]) -> str:
    if config["method"] == "full":
        return "all weights"
    base = "a base in 4 bits (nf4, double quantisation)" if config["method"] == "qlora" else "the base"
    return f"adapters of rank {config['lora']['rank']}, alpha {config['lora']['alpha']}, on {base}"


def _identity(identity: Mapping[str, Any]) -> str:
    return f"{identity['model']}@{identity['commit']}" if "model" in identity else str(identity["files"])[:16]


def _adapter(record: Mapping[str, Any]) -> list[str]:
    if not record["is_adapter"]:
        return []
    return ["The adapter belongs to exactly this base; on another one, even of the same shape, it means nothing.", ""]
