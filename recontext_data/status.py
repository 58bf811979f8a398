"""What is here: `python -m recontext_data.status [output=FOLDER] [screen=json]`.

Runs with their tasks, rows, models, spend and failures, the newest first; builds that are under way or were left unfinished;
and the stores of replies. Reads only; nothing is written, sampled or waited for.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recontext_data.cli import HELP, guarded
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports import modes

OPTIONS = {
    "output": ("folder", "where runs/ and replies/ are; the working directory unless set"),
    "recipe": ("text", "the runs of one recipe; all unless set"),
    **modes.OPTION,
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    if any(word in HELP for word in words):
        print("usage: recontext status [key=value ...]\n")
        for key, (type_, meaning) in OPTIONS.items():
            print(f"{key}: {type_}\n    {meaning}")
        return 0
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is no option; write key=value, such as output=folder, or --help")
        if key not in OPTIONS:
            raise RecipeError(f"{key!r} is no option of status; {did_you_mean(key, OPTIONS)}")
        values[key] = value
    return status(Path(values.get("output", "")).expanduser(), recipe=values.get("recipe"))


def status(output: Path, *, recipe: str | None = None) -> int:
    """Shows what lies in a folder.

    Raises:
        RecipeError: there is no such folder, or it has no run of that recipe.
    """
    from recontext_data.reports.screen import Screen
    from recontext_data.reports.status import lines, runs_table, stores_line
    from recontext_data.store.overview import overview

    if not output.is_dir():
        raise RecipeError(f"output={output}: there is no such folder")
    facts = overview(output)
    if recipe is not None:
        facts["runs"] = _of(facts["runs"], recipe)
    screen = Screen()
    if screen.result("status", facts):
        return 0
    if facts["runs"]:
        screen.table(*runs_table(facts["runs"]))
        screen.line("")
    for line in [*lines(facts), *map(stores_line, facts["stores"])]:
        screen.line(line)
    return 0


def _of(runs: Sequence[Mapping[str, Any]], recipe: str) -> list[Mapping[str, Any]]:
    found = [run for run in runs if run["recipe"] == recipe]
    if not found:
        known = sorted({run["recipe"] for run in runs})
        raise RecipeError(f"recipe={recipe}: has no run here; {did_you_mean(recipe, known)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
