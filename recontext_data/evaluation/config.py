"""How models are measured: on which tasks, how often, under which contexts."""

from pydantic import Field

from recontext_data.config import Config


class Evaluation(Config):
    """Every model under every context, on tasks that no arm was trained on."""

    contexts: list[str] = []
    """Names of contexts, `none` for the bare task; left empty: all that the recipe declares. Measuring under one context
    alone hides misbehaviour that appears under another."""
    split: str = "evaluation"
    """The split of the environment's tasks; it must not be the one that is trained on."""
    tasks: int | None = Field(default=100, ge=1)
    """How many tasks, drawn by seeded hash; null for all."""
    n: int = Field(default=2, ge=1)
    """Completions per task, context and model."""
    baseline: str = "standard"
    """The kind (or the name) of the arm that the others are compared with."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of every interval."""
