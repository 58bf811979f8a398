"""A config of one of several kinds, of which only the one that is asked for is imported.

    PolicyConfig = Annotated[AnyPolicy, Kinds({"tiny": "recontext_data.policies.tiny.policy:TinyConfig", ...})]

A kind with a colon is somebody's own, `module:Class`, a config in a module that Python can import: `kind: my_judge:Politeness`.

A pydantic union would import all of them before the first word is said, and half of the time that a command line takes
to start would go into policies that nobody asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticKnownError, core_schema

from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError


@dataclass(frozen=True, eq=False)  # one is itself alone: a type that it annotates must be hashable
class Kinds:
    """The values of the key `kind`, and where the config of each is: `module:Class`."""

    homes: Mapping[str, str]

    def config(self, kind: str) -> type[Config]:
        """The config class of a kind.

        Raises:
            RecipeError: the kind is somebody's own and cannot be found, or is not a config of this kind.
        """
        if kind not in self.homes:
            return own_config(kind)
        module, _, name = self.homes[kind].partition(":")
        found: type[Config] = getattr(import_module(module), name)
        return found

    def configs(self) -> list[type[Config]]:
        """All of them; imports all of them."""
        return [self.config(kind) for kind in self.homes]

    def validate(self, value: Any) -> Config:
        """The config that a recipe's mapping, or its kind alone, stands for."""
        if isinstance(value, Config):
            return value
        tree = {"kind": value} if isinstance(value, str) else value
        if not isinstance(tree, dict):
            raise PydanticKnownError("model_type", {"class_name": "mapping with the key kind"})
        if "kind" not in tree:
            raise PydanticKnownError("missing")
        if tree["kind"] not in self.homes and not is_own(tree["kind"]):
            expected = ", ".join(repr(kind) for kind in self.homes)
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": str(tree["kind"]), "expected_tags": expected}
            )
        return self.config(tree["kind"]).model_validate(tree)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults), info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(config.__pydantic_core_schema__) for config in self.configs()]}


def is_own(kind: Any) -> bool:
    """Whether a kind is somebody's own: `module:Class`."""
    return isinstance(kind, str) and ":" in kind


def own_config(kind: str) -> type[Config]:
    """The config class behind `module:Class`. Importing runs the module: a recipe can name one, never bring one along.

    Raises:
        RecipeError: there is no such module or class, or it is not a config with this `kind`.
    """
    module, _, name = kind.partition(":")
    parts = module.split(".")
    if not all(part.isidentifier() for part in [*parts, name]):
        raise RecipeError(f"kind: {kind!r} is not a kind; write module:Class, such as my_judge:Politeness")
    if find_spec(parts[0]) is None:
        raise RecipeError(
            f"kind: {kind!r}: Python finds no module {parts[0]!r}; run from its folder with `python -m recontext_data.build`, "
            "or name the folder in PYTHONPATH"
        )
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise RecipeError(f"kind: {kind!r}: {module} cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise RecipeError(
            f"kind: {kind!r}: {module} has no config class of that name; derive {name} from recontext_data.core.config.Config"
        )
    field = found.model_fields.get("kind")
    if field is None or field.default != kind:
        raise RecipeError(f"kind: {kind!r}: {name} must declare its kind: `kind: str = {kind!r}`")
    return found
