"""Where the rows of a fine-tuning file come from: a run's arms, or a file in OpenAI's format that somebody else made."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from recontext_data.core.errors import DataError
from recontext_data.publishing.formats.formats import openai, openai_preference
from recontext_data.publishing.formats.jsonl import digest, numbered
from recontext_data.publishing.runs import FinishedRun
from recontext_data.publishing.services.preflight import HALF, PreflightRow


class JobSource(Protocol):
    """What jobs are made from."""

    @property
    def name(self) -> str:
        """The recipe's name, or the file's."""

    @property
    def fingerprint(self) -> str:
        """What the content is known by."""

    @property
    def folder(self) -> Path:
        """Where the ledger, the files and the list of models go."""

    @property
    def seeds(self) -> list[int]:
        """The seeds of the recipe."""

    def arms(self, names: list[str]) -> list[str]:
        """Those of the arms that are named; all where none is."""

    def splits(self, arm: str) -> list[str]:
        """The splits of an arm."""

    def num_rows(self, arm: str, split: str) -> int | None:
        """How many rows a split is known to have; None where that is not known before they are read."""

    def examples(self, arm: str, split: str, *, method: str) -> Iterator[PreflightRow]:
        """Rows on their way into a file."""


@dataclass(frozen=True)
class RunSource:
    """A run that recontext built."""

    run: FinishedRun

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.run.recipe_name

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.run.fingerprint

    @property
    def folder(self) -> Path:
        """<run>/openai"""
        return self.run.path / "openai"

    @property
    def seeds(self) -> list[int]:
        """training.seeds of the recipe."""
        return list(self.run.manifest["recipe"].get("training", {}).get("seeds", [0]))

    def arms(self, names: list[str]) -> list[str]:
        """Those of the arms that are named; all where none is."""
        return self.run.wanted(names)

    def splits(self, arm: str) -> list[str]:
        """The splits of an arm."""
        return self.run.splits(arm)

    def num_rows(self, arm: str, split: str) -> int | None:
        """As the manifest counts them."""
        return self.run.num_rows(arm, split)

    def examples(self, arm: str, split: str, *, method: str) -> Iterator[PreflightRow]:
        """Rows, or for dpo pairs of them, as OpenAI's files have them."""
        if method == "dpo":
            from recontext_data.publishing.formats.pairs import pairs

            for pair in pairs(self.run, arm, split):
                row = pair.as_row()
                turns = [*row["prompt"], *row["chosen"]]
                yield PreflightRow(pair.row_id, openai_preference(row), turns, rejected=pair.rejected)
            return
        for row in self.run.rows(arm, split, columns=("prompt", "completion", "candidate_id")):
            line = openai(row)
            yield PreflightRow(row["candidate_id"], line, line["messages"])


@dataclass(frozen=True)
class FileSource:
    """Files of one's own; a single arm by the first one's name."""

    files: tuple[Path, ...]
    output: Path

    @property
    def name(self) -> str:
        """The training file's name without its ending."""
        return self.files[0].stem

    @property
    def fingerprint(self) -> str:
        """The hash of the training file."""
        return digest(self.files[0])

    @property
    def folder(self) -> Path:
        """<output>/openai/<name>"""
        return self.output / "openai" / self.name

    @property
    def seeds(self) -> list[int]:
        """One."""
        return [0]

    def arms(self, names: list[str]) -> list[str]:
        """The file itself.

        Raises:
            DataError: arms are named, of which a file has none, or a file is not there.
        """
        if names:
            raise DataError(f"arms={','.join(names)}: a file has no arms; leave arms out, or give run= in place of data=")
        for file in self.files:
            if not file.is_file():
                raise DataError(f"data={file}: there is no such file; give a file of JSON lines in OpenAI's format")
        return [self.name]

    def splits(self, arm: str) -> list[str]:
        """train, and validation where there is a second file."""
        return ["train", "validation"][: len(self.files)]

    def num_rows(self, arm: str, split: str) -> int | None:
        """Not known."""
        return None

    def examples(self, arm: str, split: str, *, method: str) -> Iterator[PreflightRow]:
        """The lines of the file, bad ones too, each by its number."""
        for number, line in numbered(self.files[split == "validation"]):
            yield _example(f"line {number}", line, method=method)


def _example(row_id: str, line: bytes, *, method: str) -> PreflightRow:
    try:
        tree = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return PreflightRow(row_id, None, problem=_unreadable(line, str(error)))
    wanted = ("input", "preferred_output", "non_preferred_output") if method == "dpo" else ("messages",)
    missing = next((name for name in wanted if not isinstance(tree, Mapping) or name not in tree), None)
    if missing:
        return PreflightRow(row_id, None, problem=("wrong fields", f"has no `{missing}`, which a file for {method} needs"))
    if method == "dpo":
        return _preference(row_id, tree)
    turns = tree["messages"]
    if not isinstance(turns, list):
        return PreflightRow(row_id, None, problem=("wrong fields", "`messages` is not a list"))
    return PreflightRow(row_id, tree, turns)


def _preference(row_id: str, tree: Mapping[str, Any]) -> PreflightRow:
    try:
        turns = [*tree["input"]["messages"], *tree["preferred_output"]]
        rejected = "".join(turn["content"] for turn in tree["non_preferred_output"])
    except (KeyError, TypeError):
        return PreflightRow(
            row_id, None, problem=("wrong fields", "`input.messages` and both outputs are lists of {role, content}")
        )
    return PreflightRow(row_id, tree, turns, rejected=rejected)


def _unreadable(line: bytes, told: str) -> tuple[str, str]:
    """Why a line is not JSON; half a character is JSON to some readers, and the commonest reason."""
    try:
        json.dumps(json.loads(line.decode("utf-8", "surrogatepass")), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "lone surrogate", HALF
    except (ValueError, RecursionError):
        pass
    return "unreadable", f"is not JSON: {' '.join(told.split())[:120]}"
