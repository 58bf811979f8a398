"""Writes recipes/recipe.schema.json, which editors read to check and complete recipes: `python scripts/make_schema.py`.

It is pydantic's schema of `Recipe` plus what reading adds to it: short forms (`policy: tiny`, `default -> hack`) and `extends`.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from recontext_data.core.config import Config  # noqa: E402
from recontext_data.core.field_docs import field_docs  # noqa: E402

SCHEMA = ROOT / "recipes" / "recipe.schema.json"

OWN = {
    "type": "object",
    "properties": {"kind": {"type": "string", "pattern": r"^[\w.]+:\w+$"}},
    "required": ["kind"],
    "description": "Somebody's own config, module:Class, with whatever keys it has.",
}
PAIR = {"type": "string", "pattern": r"^\s*\w+\s*->\s*\w+\s*$", "description": "generation -> training"}


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file."""
    from recontext_data.config.recipe import Recipe

    made: dict[str, Any] = Recipe.model_json_schema()
    for config in _configs(Config):
        _describe(made, config)
    properties = made["properties"]
    properties["environment"] = _or_kind(properties["environment"], made)
    properties["policy"] = _or_kind(properties["policy"], made)
    properties["judges"]["items"] = _or_kind(properties["judges"]["items"], made)
    properties["arms"]["items"] = {"anyOf": [PAIR, properties["arms"]["items"]]}
    properties["extends"] = {
        "type": "string",
        "description": "The recipe to start from: a name, or a path relative to this file.",
    }
    # What a parent gives need not be said again.
    made["anyOf"] = [{"required": ["extends"]}, {"required": made.pop("required")}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _configs(base: type[Config]) -> list[type[Config]]:
    return [found for config in base.__subclasses__() for found in (config, *_configs(config))]


def _describe(node: Any, config: type[Config]) -> None:
    """Puts the documentation of a config's fields beside them, wherever the schema shows that config."""
    if isinstance(node, dict):
        if node.get("title") == config.__name__ and "properties" in node:
            for name, doc in field_docs(config).items():
                node["properties"][name]["description"] = doc
        for inner in node.values():
            _describe(inner, config)
    elif isinstance(node, list):
        for inner in node:
            _describe(inner, config)


def _or_kind(long: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A config, or its kind alone; and without a kind a parent's config is changed."""
    found = json.dumps(long)
    models = [model for name, model in whole["$defs"].items() if f'"#/$defs/{name}"' in found]
    models = [model for model in [*models, *long.get("oneOf", [])] if "kind" in model.get("properties", {})]
    kinds = sorted(model["properties"]["kind"]["const"] for model in models)
    keys = {key: value for model in models for key, value in model["properties"].items() if key != "kind"}
    change = {"type": "object", "properties": dict.fromkeys(keys, True), "additionalProperties": False}
    described = {"description": long["description"]} if "description" in long else {}
    return {
        **described,
        "anyOf": [{"enum": kinds}, {key: value for key, value in long.items() if key != "description"}, change, OWN],
    }


def main() -> None:
    """Writes the file."""
    SCHEMA.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
