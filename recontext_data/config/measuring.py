"""The options of `calibrate` without a recipe: a judge and its limits."""

from recontext_data.config.recipe import JudgeConfig, Limits
from recontext_data.core.config import Config
from recontext_data.core.prices import Price


class Alone(Config):
    """A judge by itself."""

    judge: JudgeConfig
    """The judge that is measured."""
    limits: Limits = Limits()
    """Limits that end the judging."""
    prices: dict[str, Price] = {}
    """USD per million tokens by model, over data/prices.yaml."""
