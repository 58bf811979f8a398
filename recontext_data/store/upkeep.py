"""Looking after the reply store: what is in it, whether all of it can be read, and removing what nobody wants.

`python -m recontext_data.replies` shows all of this; nothing here is needed to build.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.store import journal, segments
from recontext_data.store.files import writing
from recontext_data.store.replies import ReplyStore

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Summary:
    """What a store holds."""

    replies: int
    """Distinct keys."""
    segments: int
    journals: int
    """Not sealed: of builds under way, or of builds that ended badly."""
    bytes: int
    aside: list[str]
    """Names of files that were set aside as damaged, at any time."""
    models: "pl.DataFrame"
    """model, replies, completion_tokens (null where none is counted), oldest, newest (seconds since 1970)."""


def summary(store: ReplyStore) -> Summary:
    """Counts everything; texts are not read."""
    folder = store.folder
    paths = segments.listing(folder)
    journals = segments.listing(folder, "journal-*.jsonl")
    models = store.query(_by_model)
    return Summary(
        replies=int(models["replies"].sum()),
        segments=len(paths),
        journals=len(journals),
        bytes=sum(path.stat().st_size for path in folder.glob("*") if path.is_file()),
        aside=[path.name for path in aside(folder)],
        models=models,
    )


def _by_model(rows: "pl.LazyFrame") -> "pl.LazyFrame":
    import polars as pl

    once = rows.select("key", "model", "completion_tokens", "written").unique("key", keep="any")
    groups = once.group_by("model").agg(
        replies=pl.len(),
        completion_tokens=pl.when(pl.col("completion_tokens").count() > 0).then(pl.col("completion_tokens").sum()),
        oldest=pl.col("written").min(),
        newest=pl.col("written").max(),
    )
    return groups.sort(["replies", "model"], descending=[True, False])


def aside(folder: Path) -> list[Path]:
    """The files that were set aside."""
    return sorted([*folder.glob("corrupt-*.parquet"), *folder.glob("damaged-*.jsonl")])


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One file that `check` has read."""

    name: str
    replies: int
    wrong: str | None = None
    """What was wrong with it and what became of it; None when it is good."""


def check(store: ReplyStore) -> Iterator[CheckedFile]:
    """Reads every file of the store and sets aside what is damaged; what was in that is sampled again when wanted.

    Journals whose writers are gone are sealed, the others only read.
    """
    warned = len(store.warnings)
    with writing(store.folder):
        store.seal_abandoned()
    for text in store.warnings[warned:]:
        yield CheckedFile(Path(text.partition(": ")[0]).name, 0, text.partition(": ")[2])
    for path in segments.listing(store.folder, "journal-*.jsonl"):
        found = _checked_journal(path)
        if found:
            yield found
    with writing(store.folder), segments.upkeep_lock(store.folder):
        for path in segments.listing(store.folder):
            yield _checked_segment(path)


def _checked_journal(path: Path) -> CheckedFile | None:
    try:
        counts = [(len(lines.rows), len(lines.damaged)) for lines in journal.batches(path)]
    except FileNotFoundError:
        return None  # sealed by its writer
    replies, damaged = (sum(column) for column in zip(*counts, strict=True))
    return CheckedFile(
        path.name, replies, f"{journal.lines_text(damaged)} damaged; a build is writing to it" if damaged else None
    )


def _checked_segment(path: Path) -> CheckedFile:
    import polars as pl

    if segments.intact(path):
        return CheckedFile(path.name, pl.scan_parquet(path).select(pl.len()).collect().item())
    corrupt = path.with_name(path.name.replace("segment-", "corrupt-"))
    with writing(path):
        path.rename(corrupt)
        journal.sync_folder(path.parent)
    return CheckedFile(path.name, 0, f"damaged; set aside as {corrupt.name}, and what was in it is sampled again when wanted")


def prunable(store: ReplyStore, which: "pl.Expr") -> "pl.DataFrame":
    """What `prune` would remove, by model."""
    return store.query(lambda rows: _by_model(rows.filter(which)))


def prune(store: ReplyStore, which: "pl.Expr") -> int:
    """Removes the replies that the expression is true of; returns how many. Killed half-way, run it again.

    Journals whose writers are gone are sealed first; one that a build is writing to keeps all it has.
    """
    import polars as pl

    removed = 0
    with writing(store.folder), segments.upkeep_lock(store.folder):
        store.seal_abandoned()
        for path in segments.listing(store.folder):
            segments.require_intact([path])
            rows = pl.read_parquet(path)
            kept = rows.filter(which.not_().fill_null(True))
            if len(kept) < len(rows):
                segments.replace([path], store.folder, kept)
                removed += len(rows) - len(kept)
    return removed


def asked_of(store: ReplyStore, prompts: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """What was asked for, by prompt (its hash), of every reply that is stored for these prompts."""
    import orjson
    import polars as pl

    prompt = pl.col("asked").str.json_path_match("$.prompt")
    rows = store.query(lambda rows: rows.select("asked").filter(prompt.is_in(list(prompts))))
    found: dict[str, list[dict[str, Any]]] = {}
    for text in rows["asked"]:
        asked = orjson.loads(text)
        found.setdefault(asked["prompt"], []).append(asked)
    return found
