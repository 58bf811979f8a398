"""What lies in an output folder, as a table and lines for the screen. Builds them; prints nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports.numbers import EN_DASH, money
from recontext_data.reports.screen import Screen
from recontext_data.reports.text import one_line
from recontext_data.store.overview import BUILDING, DAMAGED, DONE, UNFINISHED, overview

_HEADERS = ("run", "UTC", "tasks", "rows", "spent", "failed", "state")


def runs_table(runs: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    """Headers and rows: recipe and the start of the fingerprint, enough of it to tell runs apart; `*` marks the latest."""
    return _HEADERS, [_row(run) for run in runs]


def _row(run: Mapping[str, Any]) -> list[str]:
    return [
        f"{run['recipe']}/{run['fingerprint'][:6]}{'*' if run['is_latest'] else ''}",
        (run["created"] or "")[5:16].replace("T", " "),
        _number(run["tasks"]),
        _number(run["rows"]),
        spent(run),
        _number(run["failed"]),
        _state(run),
    ]


def _state(run: Mapping[str, Any]) -> str:
    """How far it has come; a run that is built goes by its models."""
    if run["state"] != DONE:
        return str(run["state"])
    if run["is_evaluated"]:
        return "evaluated"
    return _many(run["models"], "model", "models") if run["models"] else "built"


def spent(run: Mapping[str, Any]) -> str:
    """Completions and judges together; a dash where nothing is paid by the token or it is not known."""
    known = [usd for usd in (run["cost_usd"], run["judging_usd"]) if usd is not None]
    return money(sum(known)) if known else EN_DASH


def lines(facts: Mapping[str, Any]) -> list[str]:
    """What the table cannot say."""
    runs = facts["runs"]
    said = [] if runs else [f"no runs in {facts['output']} yet: recontext build recipe=code_mc makes one"]
    said += [f"{run['folder']}: a build is under way" for run in runs if run["state"] == BUILDING]
    said += [f"{run['folder']}: somebody works in it" for run in runs if run["state"] == DONE and run["is_locked"]]
    said += [
        f"{run['folder']}: not finished; the same build command continues it" for run in runs if run["state"] == UNFINISHED
    ]
    said += [f"✗ {one_line(run['damage'])}" for run in runs if run["state"] == DAMAGED]
    if any(run["is_latest"] for run in runs):
        said.append("* the newest of its recipe: runs/<recipe>/latest")
    return said


def stores_line(store: Mapping[str, Any]) -> str:
    """`replies: 1,536 replies, 0.8 MB in 2 segments; 1 journal open, 1 in use`"""
    said = f"{store['folder']}: {_many(store['replies'], 'reply', 'replies')}, {store['bytes'] / 1e6:,.1f} MB"
    said += f" in {_many(store['segments'], 'segment', 'segments')}"
    if store["journals"]:
        said += f"; {_many(store['journals'], 'journal', 'journals')} open, {store['writers']} in use"
    if store["batches"]:
        said += f"; {_many(store['batches'], 'batch', 'batches')} remembered"
    if store["set_aside"]:
        said += f"; ✗ {_many(len(store['set_aside']), 'file', 'files')} set aside as damaged (recontext replies)"
    return said


def _many(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _number(value: int | None) -> str:
    return EN_DASH if value is None else f"{value:,}"


def show_status(output: Path, *, recipe: str | None = None) -> None:
    """Prints the runs, builds and stores of a folder.

    Raises:
        RecipeError: there is no such folder, or it has no run of that recipe.
    """
    if not output.is_dir():
        raise RecipeError(f"output={output}: there is no such folder")
    facts = overview(output)
    if recipe is not None:
        facts["runs"] = _runs_of(facts["runs"], recipe)
    screen = Screen()
    if screen.result("status", facts):
        return
    if facts["runs"]:
        screen.table(*runs_table(facts["runs"]))
        screen.line("")
    for line in [*lines(facts), *map(stores_line, facts["stores"])]:
        screen.line(line)


def _runs_of(runs: Sequence[Mapping[str, Any]], recipe: str) -> list[Mapping[str, Any]]:
    found = [run for run in runs if run["recipe"] == recipe]
    if not found:
        known = sorted({run["recipe"] for run in runs})
        raise RecipeError(f"recipe={recipe}: no run of this recipe is here; {did_you_mean(recipe, known)}")
    return found
