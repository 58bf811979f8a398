"""Expert iteration in a recipe: how many rounds, and what each of them is trained from. Light."""

from typing import Literal

from pydantic import Field

from recontext_data.core.config import Config

MAX_ROUNDS = 100


class Rounds(Config):
    """Expert iteration, for `recontext iterate`: build under the last round's model, train, repeat. It changes no dataset of
    the first round."""

    count: int = Field(default=1, ge=1, le=MAX_ROUNDS)
    """Rounds; the first one is what build and train make."""
    start: Literal["base", "continue"] = "base"
    """What a round's training starts from: the base model each time, or the model of the round before (an adapter is merged
    into its base first, and a new one is trained)."""
