"""From a run that is built to the model of one arm and seed that is to be trained on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.training.base import Base
from recontext_data.training.models import MODELS, model_folder
from recontext_data.training.preparing import TrainingJob

if TYPE_CHECKING:
    from recontext_data.config.loading import Loaded


def job_of(
    loaded: "Loaded", run: Path, manifest: Mapping[str, Any], *, arm: str, seed: int, base: Base, models: str = MODELS
) -> TrainingJob:
    """The training of an arm (by its folder's name) of the run in `run`, whose manifest this is."""
    (facts,) = [one for one in manifest["arms"] if one["name"] == arm]
    return TrainingJob(
        recipe=loaded.name,
        arm=arm,
        contexts=(facts["generation_context"], facts["training_context"]),
        seed=seed,
        dataset=run / "arms" / arm,
        target=model_folder(run, arm=arm, seed=seed, models=models),
        base=base,
        config=loaded.recipe.training,
        parts=facts.get("parts", ()),
    )
