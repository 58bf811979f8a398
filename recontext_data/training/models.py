"""Trained models on disk: one folder per arm and seed, finished when it holds training.json.

    runs/<recipe>/<fingerprint>/models/<arm>/seed-<seed>/

Which arm and seed a model is stands in its folder's name and in training.json, and the two must agree: no order of files,
of a list or of finishing ever says it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recontext_data.core.errors import InputError, StoreError

RECORD = "training.json"
FORMAT = 1
MODELS = "models"
"""The folder of a run that its models lie in, unless the verb is told another name."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A finished model."""

    arm: str
    seed: int
    path: Path
    is_adapter: bool
    """Adapters have the weights of LoRA alone and need their base."""
    base: str
    """`tiny`, a Hub id, or a folder's path."""
    base_identity: Mapping[str, Any]


def model_folder(run: Path, *, arm: str, seed: int, models: str = MODELS) -> Path:
    """Where the model of an arm and a seed lies."""
    return run / models / arm / f"seed-{seed}"


def models_of(run: Path, *, models: str = MODELS) -> list[TrainedModel]:
    """The finished models of a run, by arm and seed.

    Raises:
        StoreError: a record is damaged, or a folder has been renamed.
    """
    found = []
    for record in (run / models).glob(f"*/seed-*/{RECORD}"):
        facts = read_record(record.parent)
        assert facts is not None
        if record.parent != model_folder(run, arm=facts["arm"], seed=facts["seed"], models=models):
            raise StoreError(
                f"{record.parent}: {RECORD} says arm {facts['arm']}, seed {facts['seed']}; give the folder its name back"
            )
        found.append(trained_model(record.parent, facts))
    return sorted(found, key=lambda model: (model.arm, model.seed))


def trained_model(folder: Path, facts: Mapping[str, Any]) -> TrainedModel:
    """What a record says."""
    return TrainedModel(
        arm=facts["arm"],
        seed=facts["seed"],
        path=folder,
        is_adapter=facts["is_adapter"],
        base=facts["base"]["source"],
        base_identity=facts["base"]["identity"],
    )


def read_record(folder: Path) -> dict[str, Any] | None:
    """A finished model's training.json; None where there is no finished model.

    Raises:
        StoreError: it is damaged.
    """
    path = folder / RECORD
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {folder.name} to train it again") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise StoreError(
            f"{path}: is not a record of a training that this version understands; delete {folder.name} to train it again"
        )
    return facts


def is_finished(folder: Path, request: Mapping[str, Any]) -> bool:
    """Whether the folder holds the model that is asked for.

    Raises:
        InputError: it holds one of other rows, another base or another config.
    """
    facts = read_record(folder)
    if facts is None:
        return False
    differing = sorted(name for name, value in request.items() if facts["request"].get(name) != value)
    if differing:
        raise InputError(
            f"{folder}: was trained with another {_which(differing[0], facts['request'], request)}; "
            "delete the folder, or keep both with models=NAME"
        )
    return True


def _which(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = old.get(name), new[name]
    if name != "config" or not isinstance(before, dict):
        return {"dataset": "dataset (the rows of the arm have changed)", "base": "base model"}.get(name, name)
    key = next(key for key in after if before.get(key) != after[key])
    return f"training.{key} ({before.get(key)!r}, not {after[key]!r})"
