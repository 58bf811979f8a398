"""Prints what the store of replies holds, checks it, and removes from it."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports.screen import Screen
from recontext_data.reports.text import one_line, visible
from recontext_data.store import upkeep
from recontext_data.store.replies import ReplyStore

WIDTH = 80


def is_empty(store: ReplyStore) -> bool:
    """Whether there is no store at this place; prints so."""
    if store.folder.is_dir():
        return False
    print(f"{store.folder}: no replies yet; say where with output=, or build something first")
    return True


def show_counts(output: Path) -> None:
    """Prints the number of replies by model."""
    store = ReplyStore(output / "replies")
    if is_empty(store):
        return
    facts = upkeep.summary(store)
    if show_result("replies", {**asdict(facts), "folder": store.folder, "models": facts.models.to_dicts()}):
        print_warnings(store)
        return
    print(f"{store.folder}: {counted(facts.replies, 'reply', 'replies')}, {_size(facts.bytes)}")
    print(f"  in {counted(facts.segments, 'segment')} and {counted(facts.journals, 'open journal')}")
    _print_models(facts.models)
    for name in facts.aside:
        print(f"set aside as damaged: {name}")
    print_warnings(store)
    return


def check_replies(output: Path) -> int:
    """Reads every file and sets aside those with damage; returns their number."""
    store = ReplyStore(output / "replies")
    if is_empty(store):
        return 0
    files = replies = wrong = 0
    for found in upkeep.check(store):
        files, replies = files + 1, replies + found.replies
        if found.wrong is not None:
            wrong += 1
            if not show_result("damaged", asdict(found)):
                print(found.name)
                print_folded("  ", found.wrong)
    if show_result("check", {"folder": store.folder, "files": files, "replies": replies, "damaged": wrong}):
        return wrong
    verdict = "all good" if not wrong else f"{wrong} with damage"
    print(f"{store.folder}: {counted(files, 'file')} read, {counted(replies, 'reply', 'replies')}, {verdict}")
    return wrong


def prune_replies(output: Path, *, before: str | None = None, model: str | None = None, dry_run: bool = True) -> None:
    """Removes replies by age, by model or by both; a dry run only prints what would be removed.

    Raises:
        RecipeError: neither is given, or `before` is not a date.
    """
    if before is None and model is None:
        raise RecipeError("prune: say what goes with before=YYYY-MM-DD, model=NAME or both (both must then hold)")
    which = pl.lit(True)
    if before is not None:
        which &= pl.col("written") < _day(before)
    if model is not None:
        which &= pl.col("model") == model
    store = ReplyStore(output / "replies")
    if is_empty(store):
        return
    table = upkeep.prunable(store, which)
    if table.is_empty():
        _no_match(store, model)
        return
    number = int(table["replies"].sum()) if dry_run else upkeep.prune(store, which)
    facts = {"folder": store.folder, "is_dry": dry_run, "replies": number, "models": table.to_dicts()}
    if show_result("prune", facts):
        return
    _print_models(table)
    if dry_run:
        print(f"{counted(number, 'reply', 'replies')} would go; dry_run=false removes them for good")
        return
    print(f"{counted(number, 'reply', 'replies')} removed")


def _day(text: str) -> float:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RecipeError(f"before={text}: not a date; write before=2026-01-31") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _no_match(store: ReplyStore, model: str | None) -> None:
    models = upkeep.summary(store).models["model"].to_list()
    hint = ""
    if model is not None and model not in models:
        hint = f"; no reply is by {model!r}, {did_you_mean(model, models)}"
    print(f"{store.folder}: nothing matches{hint}")


def _print_models(models: pl.DataFrame) -> None:
    lines = [
        (
            one_line(model or "?", limit=24),
            f"{replies:,}",
            "-" if tokens is None else f"{tokens:,}",
            minute(oldest),
            minute(newest),
        )
        for model, replies, tokens, oldest, newest in models.iter_rows()
    ]
    if lines:
        print()
        print_table(["model", "replies", "tokens", "oldest", "newest"], lines)
        print()


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be: the first to the left, the others to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    for line in [head, *lines]:
        first, *others = (
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(["", first, *others]).rstrip())


def print_folded(lead: str, text: str) -> None:
    """Prints a text in lines of at most 80 characters, indented below its lead."""
    print(textwrap.fill(visible(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)))


def print_warnings(store: ReplyStore) -> None:
    """Prints the warnings of a store."""
    for text in store.warnings:
        Screen().warn(text)


def show_result(name: str, facts: dict[str, Any]) -> bool:
    """Prints facts as JSON and returns True where the output mode is json."""
    return Screen().result(name, facts)


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _size(number: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {unit}"
    return f"{number} bytes"


def minute(seconds: float | None) -> str:
    """A time in UTC, to the minute."""
    return "?" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
