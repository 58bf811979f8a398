"""The base of every config: frozen, serialisable, closed. A config says what; `build()` on it makes the heavy object."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record that refuses unknown keys and converts nothing: `true` is no integer, "4" neither.

    The string under each field is its documentation; `field_docs` reads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
