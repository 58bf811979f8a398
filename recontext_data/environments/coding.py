"""What every environment over coding problems reads of a recipe: which problems, and how many of them."""

from pydantic import Field

from recontext_data.core.config import Config


class CodingProblems(Config):
    """Where the problems come from and which are wanted; each environment adds its `kind` and what it makes of a problem."""

    kind: str
    problems: str = "bank"
    """`bank` (ours, forged), `mbpp`, a Hub id, or a path to a file of problems (.jsonl in our format or MBPP's)."""
    plus: str | None = None
    """MBPP+ for more hidden tests: a Hub id or a path."""
    split: str = "train"
    """Which split of the source; `all` for every one. Evaluation needs a split that training does not have."""
    tasks: int | None = Field(default=256, ge=1)
    """How many tasks, drawn by seeded hash of their ids; null for all."""
    seed: int = 0
    """Decides which tasks."""
