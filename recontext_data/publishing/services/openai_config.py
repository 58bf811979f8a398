"""The options of `to=openai`. Light: nothing of openai is imported here."""

from typing import Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.policies.openai.chat import OPENAI

SUFFIX_LENGTH = 64
"""Characters that a suffix may have at OpenAI."""
MEGABYTE = 1_000_000


class FineTuningOptions(Config):
    """The request to the service for each arm and seed."""

    method: Literal["sft", "dpo"] = "sft"
    """sft on the arm's rows; dpo on pairs of a kept and a dropped answer (needs select.keep=best)."""
    suffix: str = "{recipe}-{arm}-s{seed}"
    """Ends the models' names, 64 characters at most; {recipe}, {arm} and {seed} are filled in."""
    epochs: int | Literal["auto"] | None = None
    """Passes over the rows, 1 to 50; left out, the service decides."""
    batch_size: int | Literal["auto"] | None = None
    """Rows per step, 1 to 256; left out, the service decides."""
    learning_rate_multiplier: float | Literal["auto"] | None = None
    """Factor on the service's own learning rate; left out, the service decides."""
    beta: float | Literal["auto"] | None = None
    """DPO's weight of staying near the base model, above 0 to 2; only with job.method=dpo."""
    validation: bool = True
    """Send the validation split too, so that the service reports its loss."""
    again: bool = False
    """Create a new job where the last one failed or was cancelled."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for name, value, least, most in (("epochs", self.epochs, 1, 50), ("batch_size", self.batch_size, 1, 256)):
            if isinstance(value, int) and not least <= value <= most:
                raise ValueError(f"job.{name}={value}: must be an integer from {least} to {most}, or auto")
        if isinstance(self.learning_rate_multiplier, float) and self.learning_rate_multiplier <= 0:
            raise ValueError(f"job.learning_rate_multiplier={self.learning_rate_multiplier}: must be a number above 0, or auto")
        if self.beta is not None and self.method != "dpo":
            raise ValueError(f"job.beta={self.beta}: belongs to job.method=dpo; leave it out or set the method")
        if isinstance(self.beta, float) and not 0 < self.beta <= 2:
            raise ValueError(f"job.beta={self.beta}: must be a number above 0 and up to 2, or auto")
        return self


class Endpoint(Config):
    """The server and how requests are sent."""

    base_url: str = OPENAI
    """The server, its path included: OpenAI, Azure's /openai/v1, or another with the same API."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for a server that needs none."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one call may take; uploads have 15 minutes."""
    lookup_seconds: float = Field(default=30.0, ge=0)
    """How long a file or job whose answer was lost is looked for in the server's lists before it is sent again."""
    single_file_mb: float = Field(default=512.0, gt=0)
    """Files above this many megabytes go up in parts."""
    part_mb: float = Field(default=16.0, gt=0, le=64)
    """Megabytes of one part; memory is a few times this."""

    @model_validator(mode="after")
    def _is_url(self) -> Self:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"server.base_url={self.base_url}: not an address; write one such as {OPENAI}")
        return self


class Checks(Config):
    """The checks of rows, and how tokens and cost are counted."""

    moderation: Literal["auto", "on", "off"] = "auto"
    """Ask the server's moderation endpoint about every text; auto: at OpenAI itself."""
    moderation_model: str = "omni-moderation-latest"
    """Which model moderates."""
    max_tokens: int = Field(default=65_536, ge=1)
    """Tokens that one example may have."""
    tokenizer: str | None = None
    """A tokenizer.json to count tokens with; left out, four characters count as one, and counts are called approximate."""
    duplicates: Literal["keep", "bad"] = "keep"
    """keep: equal rows are reported, since equal answers are part of the policy's distribution; bad: all but the first."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Nothing is created when the jobs would cost more; needs job.epochs and a known price."""
    usd_per_million_tokens: float | None = Field(default=None, ge=0)
    """The price of training; left out, the `training` price of the model where prices.yaml has one."""


class Wait(Config):
    """How the command waits for jobs."""

    end: bool = True
    """Wait until every job has ended; false: create all of them and leave. Ctrl-C leaves them running too."""
    at_once: int = Field(default=3, ge=1, le=64)
    """Jobs under way at the same time while waiting; uploads and calls too."""
    poll_seconds: float = Field(default=15.0, gt=0)
    """Seconds between two requests for the status of a job."""
    stall_minutes: float = Field(default=180.0, gt=0)
    """A job without any news for so long is called stalled and waited for no longer; it is not cancelled."""


class OpenAIOptions(Config):
    """The options of `to=openai`."""

    model: str | None = None
    """The model to fine-tune, such as gpt-4.1-mini-2025-04-14; required where jobs are created."""
    arms: list[str] = Field(default=[])
    """Some of the arms, by name or pair, with commas; all unless set."""
    seeds: list[int] = Field(default=[])
    """One job per arm and seed: 0,1,2 or 0-4; the recipe's training.seeds unless set."""
    data: list[str] = Field(default=[])
    """Files of your own in OpenAI's format in place of run=: the training file, and after a comma the validation file."""
    models: str = "models"
    """Name of the list of models that is written, to keep several trainings of one arm apart."""
    action: Literal["train", "check", "status", "cancel"] = "train"
    """train; check the rows only; status of the jobs; cancel those under way."""
    on_bad: Literal["fail", "drop"] = "fail"
    """How bad rows are handled: fail sends nothing; drop leaves them out and reports them."""
    dry_run: bool = False
    """Check rows, count tokens and cost; nothing is sent or written."""
    job: FineTuningOptions = FineTuningOptions()
    server: Endpoint = Endpoint()
    check: Checks = Checks()
    wait: Wait = Wait()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for seed in self.seeds:
            if not 0 <= seed <= 2_147_483_647 or self.seeds.count(seed) > 1:
                raise ValueError(f"seeds={self.seeds}: must be different integers from 0 to 2147483647")
        if self.action == "train" and not self.model:
            raise ValueError("model: missing; write model=..., the model to fine-tune, such as gpt-4.1-mini-2025-04-14")
        if not self.models.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"models={self.models}: becomes a file; use letters, digits, '_' and '-'")
        if len(self.data) > 2:
            raise ValueError(f"data: {len(self.data)} files; give the training file and at most a validation file")
        return self
