"""Takes a context's text out of messages that were rendered under it: the inverse of `contexts.placement.place`. Pure."""

from collections.abc import Sequence

from recontext_data.contexts.context import Context
from recontext_data.contexts.placement import SEPARATOR
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message, Messages

REMOVABLE = ("system", "system_prepend", "system_append", "user_prefix", "user_suffix", "assistant_prefill")
"""Placements that add text and can therefore be undone from the messages alone."""


def require_removable(context: Context) -> None:
    """Refuses a context whose text cannot be told apart from the prompt.

    Raises:
        RecipeError: the placement replaced text that the messages no longer hold, or the text is a template.
    """
    if context.placement not in REMOVABLE or context.environment:
        raise RecipeError(
            f"generation: a context placed as `{context.placement}` cannot be taken out of finished rows; "
            f"these placements can: {', '.join(REMOVABLE)}"
        )
    if context.template:
        raise RecipeError("generation: a template cannot be taken out of finished rows; give the text as it stands in them")


def without_context(messages: Messages, context: Context) -> list[Message] | None:
    """The messages without the context's text; None if the text does not stand exactly where its placement puts it.

    Any of the context's paraphrases is accepted. The messages end with the prompt's last turn; a prefill is that turn.

    Raises:
        RecipeError: see `require_removable`.
    """
    require_removable(context)
    turns: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    for text in context.texts:
        found = _without(turns, context, text)
        if found is not None:
            return found
    return None


def _without(turns: list[Message], context: Context, text: str) -> list[Message] | None:
    if context.placement == "system":
        is_there = bool(turns) and turns[0] == {"role": "system", "content": text}
        return turns[1:] if is_there else None
    if context.placement == "assistant_prefill":
        is_there = bool(turns) and turns[-1] == {"role": "assistant", "content": text}
        return turns[:-1] if is_there else None
    indices = _carriers(turns, context)
    if not indices:
        return None
    changed = list(turns)
    for index in indices:
        rest = _stripped(turns[index]["content"], text, before=context.placement in ("system_prepend", "user_prefix"))
        if rest is None:
            return None
        changed[index] = {"role": turns[index]["role"], "content": rest}
    return changed


def _carriers(turns: Sequence[Message], context: Context) -> list[int]:
    """The turns that carry the text."""
    if context.placement.startswith("system"):
        indices = [i for i, turn in enumerate(turns) if turn["role"] == "system"]
        return indices if len(indices) == 1 else []
    indices = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    return {"first": indices[:1], "last": indices[-1:], "every": indices}[context.turn]


def _stripped(content: str, text: str, *, before: bool) -> str | None:
    """The content without the text and the blank line beside it."""
    joint = f"{text}{SEPARATOR}" if before else f"{SEPARATOR}{text}"
    if before:
        return content.removeprefix(joint) if content.startswith(joint) else None
    return content.removesuffix(joint) if content.endswith(joint) else None
