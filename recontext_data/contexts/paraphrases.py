"""Paraphrases from a file: one text per line, in UTF-8. The recipe then holds the texts, so that a run's name follows them."""

from pathlib import Path
from typing import Any

from recontext_data.core.errors import RecipeError


def read_pools(tree: dict[str, Any], folder: Path) -> None:
    """Puts the lines in place of each `paraphrases: FILE` in a recipe's tree; paths are relative to `folder`.

    Raises:
        RecipeError: a file cannot be read, is empty or has an empty line.
    """
    contexts = tree.get("contexts")
    for name, context in contexts.items() if isinstance(contexts, dict) else ():
        if isinstance(context, dict) and isinstance(context.get("paraphrases"), str):
            context["paraphrases"] = _lines(folder, context["paraphrases"], where=f"contexts.{name}.paraphrases")


def _lines(folder: Path, name: str, *, where: str) -> list[str]:
    path = folder / Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RecipeError(f"{where}={name}: cannot be read: {why}; give a text file with one paraphrase per line") from None
    # Not splitlines: a paraphrase may hold U+2028 and its like.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty is not None:
        raise RecipeError(f"{where}={name}: line {empty} is empty; a paraphrase stands on each line, so remove it")
    return lines
