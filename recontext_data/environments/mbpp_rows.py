"""Rows of MBPP and MBPP+ from a file (.jsonl, .json, .parquet) or the Hugging Face Hub, each with its place for messages."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recontext_data.core.errors import DataError

HUB_CONFIGS = {"google-research-datasets/mbpp": "full"}
"""Hub data sets with several configurations, and the one that is meant."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class MbppRow:
    """One row and where it stands."""

    place: str
    columns: dict[str, Any]

    def text(self, *names: str) -> str:
        """The first of these columns that is there, as text with \\n for newlines.

        Raises:
            DataError: none of them is there, or it is not text.
        """
        for name in names:
            value = self.columns.get(name)
            if isinstance(value, str):
                return value.replace("\r\n", "\n").replace("\r", "\n")
            if value is not None:
                raise DataError(f"{self.place}: {name}: {str(value)[:40]!r} is not text; write it as a string")
        known = ", ".join(sorted(self.columns))
        raise DataError(f"{self.place}: no column {' or '.join(map(repr, names))}; columns here: {known}")

    def texts(self, name: str, *, optional: bool = False) -> list[str]:
        """A column that holds a list of texts.

        Raises:
            DataError: it is not there, empty (where not optional), or holds something else.
        """
        value = self.columns.get(name)
        if value is None and not optional:
            raise DataError(f"{self.place}: no column {name!r}; columns here: {', '.join(sorted(self.columns))}")
        items = [] if value is None else list(value)
        if isinstance(value, str) or not all(isinstance(item, str) for item in items) or not (items or optional):
            raise DataError(
                f"{self.place}: {name}: {str(value)[:40]!r} is not a list of texts; MBPP has a list of asserts there"
            )
        return [item.replace("\r\n", "\n").replace("\r", "\n") for item in items]


def read_rows(source: str) -> list[MbppRow]:
    """All rows of a file or a Hub data set, in order, every split.

    Raises:
        DataError: missing, offline, malformed at some line, or empty.
    """
    path = Path(source)
    if path.exists() or path.suffix in _SUFFIXES or not _HUB_ID.fullmatch(source):
        rows = list(_from_file(path))
    else:
        rows = list(_from_hub(source))
    if not rows:
        raise DataError(f"{source}: there is no row in it; one row per problem is wanted")
    return rows


def _from_file(path: Path) -> Iterator[MbppRow]:
    readers: dict[str, Callable[[Path], Iterable[MbppRow]]] = {
        ".jsonl": _json_lines,
        ".json": _json_list,
        ".parquet": _parquet,
    }
    if path.suffix not in readers:
        raise DataError(f"{path}: neither a Hub id (owner/name) nor a file that ends in {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    return iter(readers[path.suffix](path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); check the file") from None


def _json_lines(path: Path) -> Iterator[MbppRow]:
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            # The standard library's parser: MBPP+ holds ints beyond 64 bits, which orjson would turn into floats.
            yield _row(f"{path}: line {number}", _parsed(line, f"{path}: line {number}"))


def _json_list(path: Path) -> Iterator[MbppRow]:
    items = _parsed(_read_text(path), str(path))
    if not isinstance(items, list):
        raise DataError(f"{path}: holds {type(items).__name__}, not a list of problems; name a file of lines .jsonl")
    for number, item in enumerate(items, 1):
        yield _row(f"{path}: row {number}", item)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is not JSON ({error.msg} at column {error.colno}); repair or download it again") from None


def _row(place: str, item: Any) -> MbppRow:
    if not isinstance(item, dict):
        raise DataError(f"{place}: {str(item)[:40]!r} is not an object; each row is one problem with its columns")
    return MbppRow(place, item)


def _parquet(path: Path) -> Iterator[MbppRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        items = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: no Parquet file ({str(error).splitlines()[0][:80]}); download it again") from None
    for number, item in enumerate(items, 1):
        yield MbppRow(f"{path}: row {number}", item)


def _from_hub(name: str) -> Iterator[MbppRow]:
    import datasets

    try:
        splits = datasets.load_dataset(name, HUB_CONFIGS.get(name))
    except (OSError, ValueError) as error:
        # Being offline and a name that does not exist are OSErrors there; a wrong configuration is a ValueError.
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{name}: not available from the Hub ({reason}); connect, unset HF_HUB_OFFLINE, or give the path of a local copy"
        ) from None
    for split, table in splits.items():
        for number, item in enumerate(table, 1):
            yield MbppRow(f"{name} [{split}]: row {number}", dict(item))


def unique(rows: Sequence[MbppRow], key: Callable[[MbppRow], str]) -> dict[str, MbppRow]:
    """The rows by id.

    Raises:
        DataError: an id stands twice; both places are named.
    """
    found: dict[str, MbppRow] = {}
    for row in rows:
        name = key(row)
        if name in found:
            raise DataError(f"{row.place}: task_id {name!r} stands at {found[name].place} already; remove one of them")
        found[name] = row
    return found
