"""Which model belongs to which arm and seed: <run>/openai/<models>.json, written from jobs by their ids.

    models_of(run)      # the models that can be evaluated, by arm and seed

An entry is about one job, and says what it was created for and what became of it. No order of a list or of finishing says
anything. `model` is the name to sample it by, null until the job has succeeded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recontext_data.core.errors import RecipeError, StoreError
from recontext_data.publishing.services.openai_plan import ENDED_BADLY, JobSpec
from recontext_data.store.files import replace_file

FORMAT = 1
FOLDER = "openai"


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A model that a service has trained."""

    arm: str
    seed: int
    model: str
    """The name to sample it by."""
    base_model: str
    base_url: str
    job_id: str


def models_of(run: Path, *, models: str = "models") -> list[FineTuned]:
    """The fine-tuned models of a run that are there, by arm and seed.

    Raises:
        StoreError: the list is damaged.
    """
    tree = _read(run / FOLDER / f"{models}.json")
    found = [
        FineTuned(
            arm=entry["arm"], seed=entry["seed"], model=entry["model"], base_model=entry["base_model"],
            base_url=tree["base_url"], job_id=entry["job"],
        )
        for entry in tree.get("models", ())
        if entry["status"] == "succeeded" and entry["model"]
    ]  # fmt: skip
    return sorted(found, key=lambda model: (model.arm, model.seed))


class ModelList:
    """The list while jobs are under way."""

    def __init__(self, folder: Path, *, name: str, base_url: str) -> None:
        self.path = folder / f"{name}.json"
        self._base_url = base_url
        tree = _read(self.path)
        if tree and tree["base_url"] != base_url and tree["models"]:
            raise RecipeError(
                f"{self.path}: lists models of {tree['base_url']}; keep those of {base_url} apart with models=NAME"
            )
        self._entries: dict[tuple[str, int], dict[str, Any]] = {
            (entry["arm"], entry["seed"]): entry for entry in tree.get("models", ())
        }

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries by arm and seed."""
        return [self._entries[key] for key in sorted(self._entries)]

    def require_same(self, spec: JobSpec) -> None:
        """Raises RecipeError where the list has a model of this arm and seed that was trained in another way."""
        entry = self._entries.get((spec.arm, spec.seed))
        if entry is None or entry["request"] == _request(spec) or entry["status"] in ENDED_BADLY:
            return
        differing = next(name for name, value in _request(spec).items() if entry["request"].get(name) != value)
        raise RecipeError(
            f"{self.path}: {spec.arm}, seed {spec.seed} was trained with another {differing} (job {entry['job']}); "
            "keep both with models=NAME, or delete its entry"
        )

    def put(self, spec: JobSpec, job: Any, **more: Any) -> None:
        """What is known of a job now; on disk when this returns."""
        entry = {
            "arm": spec.arm,
            "seed": spec.seed,
            "job": job.id,
            "status": job.status,
            "model": job.fine_tuned_model if job.status == "succeeded" else None,
            "base_model": spec.model,
            "error": job.error.message if job.error and job.status == "failed" else None,
            "trained_tokens": job.trained_tokens,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "request": _request(spec),
            **more,
        }
        self._entries[spec.arm, spec.seed] = entry
        self._save()

    def _save(self) -> None:
        tree = {"format": FORMAT, "base_url": self._base_url, "models": self.entries}
        text = orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        replace_file(self.path, lambda target: target.write_bytes(text))


def _request(spec: JobSpec) -> dict[str, Any]:
    """What decides a job's outcome, in words that a person can compare."""
    return {
        "dataset": spec.train.sha256,
        "model": spec.model,
        "validation": spec.validation.sha256 if spec.validation else None,
        **spec.config.model_dump(exclude={"again", "validation", "suffix"}),
    }


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        tree = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{path}: is damaged ({error}); delete it, and the same publish command writes it again") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise StoreError(f"{path}: is not a list of models that this version understands; delete it and publish again")
    return tree
