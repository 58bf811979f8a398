"""Adapters: bound to the base that they were trained on, loaded on it, merged into it.

An adapter's numbers mean nothing on another base, and PEFT would load them without a word where the shapes fit.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from recontext_data.config.training import Training
from recontext_data.core.errors import InputError
from recontext_data.policies.local.model_folder import load_model
from recontext_data.training.base import Base, base_from, load_4bit
from recontext_data.training.checks import check_same, largest_difference, probe_logits
from recontext_data.training.libraries import LanguageModel, Tensor
from recontext_data.training.models import TrainedModel
from recontext_data.training.rows import TokenizedRow

CONFIG = "adapter_config.json"


def lora_config(config: Training) -> object:
    """PEFT's config for `lora` and `qlora`; None for `full`."""
    if config.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.rank, lora_alpha=config.lora.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def inner(model: LanguageModel) -> LanguageModel:
    """The causal language model inside of an adapter's wrapping, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def base_of(model: TrainedModel, *, base: Base | None = None) -> Base:
    """The base of an adapter: the given one, or the one that it names.

    Raises:
        InputError: it is not the base that the adapter was trained on.
    """
    found = base or base_from(model.base)
    if dict(found.folder.identity()) != dict(model.base_identity):
        raise InputError(
            f"{model.path}: is an adapter of another base than {found.folder.name}: its files differ; "
            f"use the unchanged {model.base}"
        )
    return found


def load_trained(
    model: TrainedModel, *, base: Base | None = None, dtype: str = "float32", device: str = "cpu"
) -> LanguageModel:
    """A trained model in memory, an adapter on its base.

    Raises:
        InputError: an adapter of another base.
        PolicyError: the model cannot be loaded.
    """
    from recontext_data.policies.local.model_folder import find_model

    if not model.is_adapter:
        return load_model(find_model(str(model.path)), dtype=dtype, device=device)
    from peft import PeftModel

    loaded = load_model(base_of(model, base=base).folder, dtype=dtype, device=device)
    return PeftModel.from_pretrained(loaded, str(model.path)).eval()


def merge(model: TrainedModel, target: Path, *, base: Base | None = None) -> None:
    """Writes an adapter and its base as one model folder, in the base's full precision.

    Raises:
        InputError: an adapter of another base.
    """
    own = base_of(model, base=base)
    merged = load_trained(model, base=own).merge_and_unload()
    merged.save_pretrained(target)
    own.copy_tokenizer(target)
    template = model.path / "chat_template.jinja"
    if template.is_file():
        (target / template.name).write_bytes(template.read_bytes())


def compare_saved(
    model: TrainedModel, rows: Sequence[TokenizedRow], trained: Sequence[Tensor], *, base: Base, method: str
) -> dict[str, float]:
    """Reads the saved model back and compares: with the one in memory, and merged with unmerged.

    Raises:
        PolicyError: they differ by more than rounding.
    """
    loaded = load_trained(model, base=base)
    saved = probe_logits(loaded, rows)
    if not model.is_adapter:
        return {"saved_and_trained": check_same(trained, saved, what="the saved and the trained model")}
    facts: dict[str, float] = {}
    if method == "qlora":
        on_4bit = probe_logits(_on_4bit(model, base), rows)
        facts["saved_and_trained"] = check_same(trained, on_4bit, what="the saved and the trained adapter")
        # Not rounding but quantisation: what the adapter was trained on is not what it is merged into.
        facts["full_precision_and_4bit"] = largest_difference(saved, on_4bit)
    else:
        facts["saved_and_trained"] = check_same(trained, saved, what="the saved and the trained adapter")
    merged = probe_logits(loaded.merge_and_unload(), rows)
    facts["adapter_and_merged"] = check_same(saved, merged, what="the adapter and the merged model")
    return facts


def _on_4bit(model: TrainedModel, base: Base) -> LanguageModel:
    from peft import PeftModel

    return PeftModel.from_pretrained(load_4bit(base, cuda=False), str(model.path)).eval()


def bind(folder: Path, *, base: Base) -> None:
    """Writes the base's name into an adapter's own config, in place of this machine's path. training.json has its hash."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.folder.name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
