"""Which jobs there are to be: one for each arm and seed, known by its content wherever it is met again. Pure.

A job's key is the hash of all that decides what comes out of it: the files' bytes, the seed, the model, the method and its
hyperparameters, beside the arm and the run. It goes into the job's metadata, so that a job whose answer was lost is found.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import RecipeError
from recontext_data.core.records import content_hash
from recontext_data.publishing.services.openai_config import SUFFIX_LENGTH, FineTuningOptions
from recontext_data.publishing.services.openai_files import DataFile

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob

KEY, ARM, SEED, DATASET, FINGERPRINT, RECIPE = (
    "recontext_key", "recontext_arm", "recontext_seed", "recontext_dataset", "recontext_fingerprint", "recontext_recipe",
)  # fmt: skip
"""Names in a job's metadata."""
METADATA_LENGTH = 512
LIVE = ("validating_files", "queued", "running", "paused")
ENDED_BADLY = ("failed", "cancelled")


def suffix_of(config: FineTuningOptions, *, recipe: str, arm: str, seed: int) -> str:
    """The ending of a model's name: letters, digits and dashes.

    Raises:
        RecipeError: it is longer than the service allows, or empty.
    """
    text = config.suffix
    for name, value in (("recipe", recipe), ("arm", arm), ("seed", str(seed))):
        text = text.replace(f"{{{name}}}", value)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    if 1 <= len(plain) <= SUFFIX_LENGTH:
        return plain
    if config.suffix == FineTuningOptions().suffix:  # ours to shorten: the seed stays readable, and a hash tells the rest apart
        tail = f"-{content_hash(plain)[:6]}-s{seed}"
        return plain[: SUFFIX_LENGTH - len(tail)].rstrip("-") + tail
    raise RecipeError(
        f"job.suffix={config.suffix}: becomes {plain!r}, {len(plain)} characters, and 1 to {SUFFIX_LENGTH} are allowed; "
        "write another"
    )


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job before it is created."""

    recipe: str
    fingerprint: str
    arm: str
    seed: int
    model: str
    config: FineTuningOptions
    train: DataFile
    validation: DataFile | None

    def key(self, attempt: int = 0) -> str:
        """What the job is known by; a further attempt, after one that failed, is another job."""
        settings = self.config.model_dump(exclude={"again", "validation", "suffix"})
        content = {
            "run": self.fingerprint,
            "arm": self.arm,
            "seed": self.seed,
            "model": self.model,
            "suffix": self.suffix,
            "settings": settings,
            "train": self.train.sha256,
            "validation": self.validation.sha256 if self.validation else None,
        }
        return content_hash([content, attempt] if attempt else content)

    @property
    def suffix(self) -> str:
        """The ending of the model's name."""
        return suffix_of(self.config, recipe=self.recipe, arm=self.arm, seed=self.seed)

    def metadata(self, attempt: int = 0) -> dict[str, str]:
        """What the server keeps beside the job."""
        facts = {
            KEY: self.key(attempt), ARM: self.arm, SEED: str(self.seed), DATASET: self.train.sha256,
            FINGERPRINT: self.fingerprint, RECIPE: self.recipe,
        }  # fmt: skip
        return {name: value[:METADATA_LENGTH] for name, value in facts.items()}

    def request(self, training_file: str, validation_file: str | None, *, attempt: int = 0) -> dict[str, Any]:
        """The body of the request that creates the job."""
        body: dict[str, Any] = {
            "model": self.model,
            "training_file": training_file,
            "seed": self.seed,
            "suffix": self.suffix,
            "metadata": self.metadata(attempt),
            "method": self._method(),
        }
        return body | ({"validation_file": validation_file} if validation_file else {})

    def _method(self) -> dict[str, Any]:
        config = self.config
        given = {
            "n_epochs": config.epochs,
            "batch_size": config.batch_size,
            "learning_rate_multiplier": config.learning_rate_multiplier,
            "beta": config.beta,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        name = "dpo" if config.method == "dpo" else "supervised"
        return {"type": name, name: {"hyperparameters": chosen}}


def find_job(
    spec: JobSpec, jobs: "Sequence[FineTuningJob]", *, attempt: int, files: tuple[str, str | None], others: Sequence[str]
) -> "FineTuningJob | None":
    """The server's job for this spec, or None.

    By its key. A server that keeps no metadata is asked by files and seed, among jobs that are not in `others`, those that
    were there before this one was created.
    """
    key = spec.key(attempt)
    for job in jobs:
        if metadata_of(job).get(KEY) == key:
            return job
    for job in jobs:
        same = (job.training_file, job.validation_file, job.seed) == (*files, spec.seed)
        if same and KEY not in metadata_of(job) and job.id not in others:
            return job
    return None


def metadata_of(job: "FineTuningJob") -> Mapping[str, str]:
    """A job's metadata; empty where the server keeps none."""
    return job.metadata or {}
