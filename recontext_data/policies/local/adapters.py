"""LoRA adapters: found, checked against their base, loaded, and proven to change what the model says.

    policy: {kind: transformers, model: Qwen/Qwen2.5-0.5B-Instruct, adapter: runs/my-sft/adapter}

An adapter that is silently ignored makes the base model's replies pass for the trained model's. So weights that find no
place in the model are an error, and before anything is sampled the logits of a probe with and without the adapter must
differ. The adapter is not merged into the weights: what is sampled is what was trained, to the last bit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recontext_data.core.errors import PolicyError
from recontext_data.policies.local.model_folder import ModelFolder, file_hashes, first_line

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PROBE = "Write a function that returns the sum of a list of numbers."
"""Any text will do: low-rank weights that are not zero move the logits of every prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A complete LoRA adapter on this disk."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """The largest rank that any of its layers has."""
        ranks: list[int] = [self.config.get("r") or 1, *(self.config.get("rank_pattern") or {}).values()]
        return max(ranks)

    def identity(self) -> str:
        """The hash of its files: never the path."""
        return file_hashes(self.path, (CONFIG, *WEIGHTS))


def find_adapter(adapter: str, *, base: ModelFolder, check_base: bool) -> Adapter:
    """The adapter in the folder `adapter`, made for `base`.

    Raises:
        PolicyError: there is none, it is not a LoRA adapter, or it was trained on another model.
    """
    path = Path(adapter).expanduser()
    if not path.is_dir():
        raise PolicyError(f"policy.adapter: no folder {adapter}: give the folder that PEFT's save_pretrained wrote")
    name = path.resolve().name
    if not (path / CONFIG).is_file():
        raise PolicyError(f"adapter folder {name} has no {CONFIG}: give the folder that PEFT's save_pretrained wrote")
    if not any((path / weights).is_file() for weights in WEIGHTS):
        raise PolicyError(f"adapter folder {name} has no weights: expected {WEIGHTS[0]}")
    try:
        config = json.loads((path / CONFIG).read_text("utf-8"))
    except ValueError as error:
        raise PolicyError(f"adapter folder {name}: {CONFIG} is not JSON: {first_line(error)}") from error
    if config.get("peft_type") != "LORA":
        raise PolicyError(f"adapter folder {name} is of the kind {config.get('peft_type')}: policy.adapter takes LORA")
    found = Adapter(name=name, path=path, config=config)
    if check_base:
        _check_base(found, base)
    return found


def _check_base(adapter: Adapter, base: ModelFolder) -> None:
    """By name, since models of one family have the same shapes: an adapter of the one fits the other, and is wrong there."""
    trained_on = adapter.config.get("base_model_name_or_path")
    if not trained_on or _same_folder(trained_on, base.path) or _last_part(trained_on) == _last_part(base.name):
        return
    raise PolicyError(
        f"policy.adapter: {adapter.name} was trained on {_shown(trained_on)}, and policy.model is {base.name}: give that model,"
        " or set policy.check_base=false if it is the same one under another name"
    )


def _same_folder(path: str, folder: Path) -> bool:
    return Path(path).expanduser().is_dir() and Path(path).expanduser().resolve() == folder.resolve()


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _shown(trained_on: str) -> str:
    # A Hub id as it is; of a folder on somebody's machine the name alone.
    return trained_on if trained_on.count("/") == 1 and not trained_on.startswith((".", "/")) else _last_part(trained_on)


def apply_adapter(model: Any, adapter: Adapter, *, probe: Sequence[int]) -> Any:
    """The model with the adapter in it, proven by the token ids of a probe to say something else than without.

    Raises:
        PolicyError: the adapter does not fit the model, or changes nothing.
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    try:
        config = PeftConfig.from_pretrained(str(adapter.path))
        config.inference_mode = True
        adapted: Any = PeftModel(model, config)
        loaded = adapted.load_adapter(str(adapter.path), "default", torch_device=str(model.device))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"adapter {adapter.name} does not fit the model: {_reason(error)}") from error
    for keys, what in ((loaded.missing_keys, "lacks"), (loaded.unexpected_keys, "has, and the model has no place for,")):
        if keys:
            raise PolicyError(
                f"adapter {adapter.name} does not fit the model: it {what} {len(keys)} weights, {keys[0]} among them"
            )
    adapted.eval()
    if not _changes_logits(adapted, probe):
        raise PolicyError(
            f"policy.adapter: the adapter changes nothing: {adapter.name} gives the same logits as the model without it;"
            " it was saved before it was trained, or without its weights"
        )
    return adapted.get_base_model()


def _changes_logits(adapted: Any, probe: Sequence[int]) -> bool:
    import torch

    ids = torch.tensor([list(probe)], device=adapted.device)
    with torch.inference_mode():
        with_it = adapted(ids).logits
        with adapted.disable_adapter():
            without = adapted(ids).logits
    return not torch.equal(with_it, without)


def _reason(error: BaseException) -> str:
    """PyTorch lists what does not fit line by line, under a heading that says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "mismatch" in line), lines[0] if lines else type(error).__name__)
