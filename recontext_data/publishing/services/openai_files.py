"""The files of a fine-tuning job: rows are checked, good ones written, bad ones reported by id and reason. Streams.

<folder>/files/<arm>.<split>.<hash>.jsonl and beside it .rows, the id of each line's row; <folder>/preflight.jsonl, a line
for everything that was found.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from recontext_data.core.errors import DataError
from recontext_data.publishing.services.moderation import Moderator
from recontext_data.publishing.services.preflight import (
    LEAST_EXAMPLES,
    TOKENS_PER_TURN,
    Finding,
    PreflightRow,
    RowLimits,
    Seen,
    check,
    count_tokens,
    encode,
    texts,
)
from recontext_data.store.files import writing

BATCH = 512
SHOWN = 5
"""Findings in a message; the report has all."""
REPORT = "preflight.jsonl"


@dataclass(frozen=True)
class DataFile:
    """One split of an arm, checked and written."""

    arm: str
    split: str
    sha256: str
    num_bytes: int
    num_rows: int
    tokens: int
    path: Path | None = None
    """None in a dry run."""

    @property
    def server_name(self) -> str:
        """What it is called at the server: its content, so that it is found again and never sent twice."""
        return f"recontext-{self.sha256[:40]}.jsonl"


@dataclass
class Preflight:
    """Checks rows and writes files; collects what was found."""

    limits: RowLimits
    moderator: Moderator | None = None
    count: Callable[[PreflightRow], int] = count_tokens
    drop_duplicates: bool = False
    report: "Report | None" = None
    """Where findings go; None: they are only counted."""
    shown: list[Finding] = field(default_factory=list)
    """The first few."""
    first: dict[str, str] = field(default_factory=dict)
    """Reason -> the first row that was left out for it."""
    unpaired: int = 0
    """Rows of preference runs that are in no pair."""
    duplicates: int = 0
    rows_in: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows by the first reason found."""

    async def write(self, examples: Iterable[PreflightRow], *, arm: str, split: str, folder: Path | None) -> DataFile:
        """Checks all rows and writes the good ones; `folder` None: only counts."""
        writer = _Writer(folder, arm, split)
        seen = Seen()
        try:
            async for row_id, line, tokens in self._good(examples, arm, split, seen):
                writer.add(line, row_id, tokens)
            return writer.done()
        finally:
            writer.close()

    async def _good(
        self, examples: Iterable[PreflightRow], arm: str, split: str, seen: Seen
    ) -> AsyncIterator[tuple[str, bytes, int]]:
        for batch in _batches(examples):
            passed: list[tuple[PreflightRow, bytes, int]] = []
            for example in batch:
                self.rows_in[f"{arm}.{split}"] += 1
                tokens = 0 if example.problem else self.count(example)
                line, found = self._check(example, seen, tokens)
                if found:
                    self._note(found, arm, split)
                else:
                    passed.append((example, line, tokens))
            flagged = await self._moderate([example for example, _, _ in passed])
            for example, line, tokens in passed:
                if finding := flagged.get(example.row_id):
                    self._note([finding], arm, split)
                else:
                    yield example.row_id, line, tokens

    def _check(self, example: PreflightRow, seen: Seen, tokens: int) -> tuple[bytes, list[Finding]]:
        found = check(example, self.limits, tokens=tokens)
        if example.line is None:
            return b"", found
        line = encode(example)
        if isinstance(line, Finding):
            return b"", [line, *found]
        first = seen.before(line, example.row_id)
        if first is not None:
            self.duplicates += 1
            if self.drop_duplicates:
                found = [*found, Finding(example.row_id, "duplicate", f"says exactly what {first} says")]
        return line, found

    async def _moderate(self, examples: list[PreflightRow]) -> dict[str, Finding]:
        if self.moderator is None or not examples:
            return {}
        verdicts = await self.moderator.verdicts({text: None for one in examples for _, text in texts(one)})
        flagged: dict[str, Finding] = {}
        for example in examples:
            for where, text in texts(example):
                if verdicts[text] and example.row_id not in flagged:
                    finding = Finding(example.row_id, "moderation", f"{where} is flagged: {verdicts[text]}")
                    flagged[example.row_id] = finding
        return flagged

    def _note(self, found: list[Finding], arm: str, split: str) -> None:
        reason, row_id = found[0].reason, found[0].row_id
        self.dropped[reason] += 1
        self.first.setdefault(reason, row_id)
        if len(self.shown) < SHOWN:
            self.shown.append(found[0])
        if self.report is not None:
            self.report.add(found, arm, split)

    def fail(self, where: str) -> None:
        """Raises DataError if a row is bad, with the first of them."""
        if not self.shown:
            return
        shown = "; ".join(f"{one.row_id}: {one.reason} ({one.detail})" for one in self.shown)
        rows, bad = self.rows_in.total(), self.dropped.total()
        raise DataError(
            f"on_bad=fail: {bad:,} of {rows:,} rows are bad{where} and nothing was sent; first: {shown}; "
            "repair them, or leave them out with on_bad=drop"
        )


class Report:
    """<folder>/preflight.jsonl: every finding as it comes; in place when it is closed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / REPORT
        self._temporary = folder / f".{REPORT}.tmp"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = self._temporary.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with writing(self.path):
            self._handle.close()
            if kind is None:
                self._temporary.replace(self.path)
            else:
                self._temporary.unlink(missing_ok=True)

    def add(self, found: list[Finding], arm: str, split: str) -> None:
        """What is wrong with one row."""
        with writing(self.path):
            for one in found:
                entry = {"arm": arm, "split": split, "row": one.row_id, "reason": one.reason, "detail": one.detail}
                self._handle.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))


def check_size(file: DataFile, dropped: int) -> None:
    """Raises DataError where a training file has too few rows for the service."""
    if file.split == "train" and file.num_rows < LEAST_EXAMPLES:
        left = f" ({dropped} were left out as bad)" if dropped else ""
        raise DataError(
            f"{file.arm}: {file.num_rows} rows{left}; the service takes files of at least {LEAST_EXAMPLES} examples"
        )


class _Writer:
    """A file that gets its name, which has its hash, when it is whole."""

    def __init__(self, folder: Path | None, arm: str, split: str) -> None:
        self._arm, self._split, self._folder = arm, split, folder
        self._hash = sha256()
        self._bytes = self._rows = self._tokens = 0
        self._temporary = folder / f".{arm}.{split}.{os.getpid()}.tmp" if folder else None
        self._ids = self._temporary.with_suffix(".rows.tmp") if self._temporary else None
        self._handles: list[IO[bytes]] = []
        if folder and self._temporary and self._ids:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._handles = [self._temporary.open("wb"), self._ids.open("wb")]

    def add(self, line: bytes, row_id: str, tokens: int) -> None:
        self._hash.update(line)
        self._bytes += len(line)
        self._rows += 1
        self._tokens += tokens
        if self._handles:
            with writing(Path(self._handles[0].name)):
                self._handles[0].write(line)
                self._handles[1].write(row_id.encode("utf-8", "backslashreplace") + b"\n")

    def done(self) -> DataFile:
        name, path = self._hash.hexdigest(), None
        if self._folder and self._temporary and self._ids:
            path = self._folder / f"{self._arm}.{self._split}.{name[:12]}.jsonl"
            with writing(path):
                for handle in self._handles:
                    handle.flush()
                    os.fsync(handle.fileno())
                self._ids.replace(path.with_suffix(".rows"))
                self._temporary.replace(path)
        return DataFile(self._arm, self._split, name, self._bytes, self._rows, self._tokens, path)

    def close(self) -> None:
        for handle in self._handles:
            handle.close()
        for path in (self._temporary, self._ids):
            if path:
                path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Takes away what a killed run left half written."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _batches(examples: Iterable[PreflightRow]) -> Iterator[list[PreflightRow]]:
    stream = iter(examples)
    while batch := list(islice(stream, BATCH)):
        yield batch


def counter(tokenizer: str | None) -> Callable[[PreflightRow], int]:
    """How tokens are counted: with a tokenizer.json, or by characters.

    Raises:
        DataError: the file is not a tokenizer.
    """
    if tokenizer is None:
        return count_tokens
    from tokenizers import Tokenizer

    path = Path(tokenizer).expanduser()
    try:
        tree = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"check.tokenizer={tokenizer}: cannot be read ({error.strerror}); give a tokenizer.json") from None
    except orjson.JSONDecodeError:
        tree = None
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise DataError(f"check.tokenizer={tokenizer}: is not a tokenizer.json; give the file of that name in a model's folder")
    loaded = Tokenizer.from_file(str(path))
    # A trainer may have left its own cutting and padding in the file.
    loaded.no_truncation()
    loaded.no_padding()

    def count(example: PreflightRow) -> int:
        if count_tokens(example) == 0:
            return 0
        spoken = [text for _, text in texts(example)]
        return sum(len(loaded.encode(text, add_special_tokens=False).ids) + TOKENS_PER_TURN for text in spoken)

    return count
