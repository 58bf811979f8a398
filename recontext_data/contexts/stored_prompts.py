"""A task's prompt under a context, as a finished run's manifest tells it: for pages that show what was sampled under. Pure.

prompt_under(manifest["recipe"], task_row, "default")      # None where the manifest does not suffice
"""

from collections.abc import Mapping
from typing import Any

import orjson

from recontext_data.contexts.context import NONE, Context, render
from recontext_data.contexts.placement import Rendering, RenderOptions
from recontext_data.core.errors import RecontextError
from recontext_data.core.records import Message, Task


def prompt_under(recipe: Mapping[str, Any], row: Mapping[str, Any], context: str) -> list[Message] | None:
    """The messages that were sent for a row of tasks.parquet.

    None where that is not known: a manifest of another version, or a context that changes the environment, which is elsewhere.
    """
    messages: list[Message] = row["messages"]
    if context == NONE:
        return list(messages)
    if not messages:
        return None
    raw = recipe.get("contexts", {}).get(context)
    task = Task(task_id=row["task_id"], messages=messages, payload=_payload(row["payload"]), split=row["split"] or "")
    try:
        known = {key: value for key, value in raw.items() if key in Context.model_fields} if raw else None
        how = RenderOptions(rendering=Rendering.model_validate(recipe.get("rendering", {})))
        return render(task, Context.model_validate(known), name=context, how=how) if known else None
    except (RecontextError, ValueError):
        return None


def _payload(text: str | None) -> dict[str, Any]:
    payload: dict[str, Any] = orjson.loads(text) if text else {}
    return payload
