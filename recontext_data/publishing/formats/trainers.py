"""The YAML beside an export: Axolotl's config, LLaMA-Factory's config and its dataset_info.json, ready to be started.

They train as the recipe's `training` says and take the loss on the completion alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from recontext_data.store.files import replace_file

CHATML = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"

TEMPLATES = (
    ("llama-3", "llama3"), ("llama3", "llama3"), ("llama-2", "llama2"), ("qwen3", "qwen3_nothink"), ("qwen", "qwen"),
    ("gemma-3", "gemma3"), ("gemma", "gemma"), ("mistral", "mistral"), ("phi-4", "phi4"), ("deepseek", "deepseek3"),
)  # fmt: skip
"""What is in a model's name, and LLaMA-Factory's name for its template."""


def write_configs(folder: Path, arm: str, *, format: str, files: Mapping[str, Path], training: Mapping[str, Any]) -> list[Path]:
    """The configs of one arm; `files`: split -> file; `training`: the recipe's section, `base` set. Returns their paths."""
    axolotl, factory = folder / f"{arm}.axolotl.yaml", folder / f"{arm}.llamafactory.yaml"
    _write(axolotl, _axolotl(arm, format, files, training), f"axolotl train {axolotl.name}")
    _write(factory, _llama_factory(arm, files, training), f"llamafactory-cli train {factory.name}")
    return [axolotl, factory]


def write_dataset_info(folder: Path, *, format: str, files: Mapping[tuple[str, str], Path]) -> Path:
    """LLaMA-Factory's list of data sets; `files`: (arm, split) -> file."""
    path = folder / "dataset_info.json"
    info = {dataset_name(arm, split): {"file_name": file.name, **_INFO[format]} for (arm, split), file in files.items()}
    replace_file(path, lambda target: target.write_bytes(orjson.dumps(info, option=orjson.OPT_INDENT_2)))
    return path


def dataset_name(arm: str, split: str) -> str:
    """What LLaMA-Factory calls one split of an arm; a comma or a space would part it."""
    return f"{arm}.{split}".replace(",", "_").replace(" ", "_")


_INFO: dict[str, dict[str, Any]] = {
    "sharegpt": {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {
            "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "system_tag": "system",
        },
    },
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output", "system": "system"},
    },
}  # fmt: skip


def _axolotl(arm: str, format: str, files: Mapping[str, Path], training: Mapping[str, Any]) -> dict[str, Any]:
    micro = _micro(training)
    tree: dict[str, Any] = {
        "base_model": training["base"],
        "datasets": [{"path": files["train"].name, "ds_type": "json", **_axolotl_data(format)}],
        "sequence_len": training.get("max_length") or 2048,
        "num_epochs": training["epochs"],
        "micro_batch_size": micro,
        "gradient_accumulation_steps": training["batch_size"] // micro,
        "learning_rate": training["learning_rate"],
        "lr_scheduler": "linear",
        "optimizer": "adamw_torch",
        "seed": training["seeds"][0],
        "bf16": "auto",
        "train_on_inputs": False,
        "sample_packing": False,
        "output_dir": f"outputs/{arm}",
    }
    if "validation" in files:
        tree["test_datasets"] = [
            {"path": files["validation"].name, "ds_type": "json", "split": "train", **_axolotl_data(format)}
        ]
    if training["method"] != "full":
        tree |= {"adapter": training["method"], "lora_r": training["lora"]["rank"], "lora_alpha": training["lora"]["alpha"]}
        tree |= {"lora_target_linear": True, "load_in_4bit": training["method"] == "qlora"}
    return tree


def _axolotl_data(format: str) -> dict[str, Any]:
    if format == "alpaca":
        # Its own `alpaca` puts a text of its own around every prompt, and drops the system prompt.
        return {
            "type": {
                "field_system": "system",
                "field_instruction": "instruction",
                "field_input": "input",
                "field_output": "output",
                "system_format": "<|im_start|>system\n{system}<|im_end|>\n",
                "format": CHATML,
                "no_input_format": CHATML,
            }
        }
    return {
        "type": "chat_template",
        "chat_template": "tokenizer_default",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {"system": ["system"], "user": ["human"], "assistant": ["gpt"]},
        "roles_to_train": [],
        "message_field_training": "train",
        "train_on_eos": "turn",
    }


def _llama_factory(arm: str, files: Mapping[str, Path], training: Mapping[str, Any]) -> dict[str, Any]:
    micro = _micro(training)
    tree: dict[str, Any] = {
        "model_name_or_path": training["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if training["method"] == "full" else "lora",
        "dataset_dir": ".",
        "dataset": dataset_name(arm, "train"),
        "template": template_of(str(training["base"])),
        "cutoff_len": training.get("max_length") or 2048,
        "mask_history": True,
        "train_on_prompt": False,
        "packing": False,
        "num_train_epochs": float(training["epochs"]),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training["batch_size"] // micro,
        "learning_rate": training["learning_rate"],
        "lr_scheduler_type": "linear",
        "seed": training["seeds"][0],
        "bf16": True,
        "output_dir": f"outputs/{arm}",
    }
    if training["method"] != "full":
        tree |= {"lora_rank": training["lora"]["rank"], "lora_alpha": training["lora"]["alpha"], "lora_target": "all"}
    if training["method"] == "qlora":
        tree |= {"quantization_bit": 4, "quantization_method": "bnb"}
    if "validation" in files:
        tree |= {"eval_dataset": dataset_name(arm, "validation"), "eval_strategy": "epoch"}
    return tree


def template_of(model: str) -> str:
    """LLaMA-Factory's template for a model, by the model's name; `default` where the name says nothing."""
    return next((template for part, template in TEMPLATES if part in model.lower()), "default")


def _micro(training: Mapping[str, Any]) -> int:
    """Rows per device and step: the recipe's, else the largest divisor of the batch up to 4."""
    if training.get("micro_batch_size"):
        return int(training["micro_batch_size"])
    return next(size for size in (4, 3, 2, 1) if training["batch_size"] % size == 0)


def _write(path: Path, tree: Mapping[str, Any], command: str) -> None:
    text = f"# {command}\n{yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)}"
    replace_file(path, lambda target: target.write_text(text, encoding="utf-8"))


def trained_splits(files: Mapping[tuple[str, str], Path], arm: str) -> dict[str, Path]:
    """The files of one arm by split."""
    return {split: path for (name, split), path in files.items() if name == arm}


def base_of(manifest: Mapping[str, Any], chosen: str | None, *, default: str) -> str:
    """The model that the configs train: the one chosen, the recipe's own, the policy that was sampled, or a default."""
    recipe = manifest["recipe"]
    sampled = recipe["policy"].get("model") if recipe["policy"].get("kind") in ("transformers", "vllm") else None
    candidates: Sequence[str | None] = (chosen, recipe.get("training", {}).get("base"), sampled)
    return next((name for name in candidates if name), default)
