"""The base of every config: frozen, serialisable, closed. A config says what; `build()` on it makes the heavy object."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """A frozen record that refuses unknown keys and converts nothing: `true` is not an integer, "4" neither.

    The string under each field is its documentation; `field_docs` reads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def optional_field(default: Any) -> Any:
    """A field that came after others: at its default it is left out of what is dumped, so that a recipe which does not use it
    keeps its fingerprint."""
    return Field(default=default, exclude_if=lambda value: value == default)
