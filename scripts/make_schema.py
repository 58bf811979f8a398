"""Writes recipes/recipe.schema.json, which editors read to check and complete recipes: `python scripts/make_schema.py`.

It is pydantic's schema of `Recipe` plus what reading adds to it: short forms (`policy: tiny`, `default -> hack`) and `extends`.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "recipes" / "recipe.schema.json"

PAIR = {"type": "string", "pattern": r"^\s*\w+\s*->\s*\w+\s*$", "description": "generation -> training"}


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file."""
    from recontext_data.recipe import Recipe

    made: dict[str, Any] = Recipe.model_json_schema()
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
        "anyOf": [{"enum": kinds}, {key: value for key, value in long.items() if key != "description"}, change],
    }


def main() -> None:
    """Writes the file."""
    SCHEMA.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
