"""What `calibrate` reads of a command line that names no recipe: a judge, and what it may cost."""

from recontext_data.config.recipe import JudgeConfig, Limits
from recontext_data.core.config import Config
from recontext_data.core.prices import Price


class Alone(Config):
    """A judge by itself."""

    judge: JudgeConfig
    """The judge that is measured."""
    limits: Limits = Limits()
    """What ends the asking."""
    prices: dict[str, Price] = {}
    """USD per million tokens by model, over data/prices.yaml."""
