"""A finished run as something to publish: found by path or by its recipe's name, its arms, and their rows in batches.

    run = open_run("code_mc", output=Path())            # runs/code_mc/latest
    for batch in run.batches("standard.default-default", "train"): ...

Nothing is loaded whole: a split is an Arrow stream that is read batch by batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import DataError, RecipeError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "validation")
ROWS = 1024
"""Rows in one batch; bounds memory."""


@dataclass(frozen=True)
class FinishedRun:
    """One finished run on disk."""

    path: Path
    """runs/<recipe>/<fingerprint>"""
    manifest: Mapping[str, Any]

    @property
    def recipe_name(self) -> str:
        """The recipe's name."""
        return str(self.manifest["recipe_name"])

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint, in hex."""
        return str(self.manifest["fingerprint"])

    @property
    def arms(self) -> list[str]:
        """The folders of all arms, in the recipe's order."""
        return [str(arm["name"]) for arm in self.manifest["arms"]]

    def wanted(self, names: Sequence[str]) -> list[str]:
        """The folders of some arms, by folder or pair (`default -> hack`), in the recipe's order; of all where none is named.

        Raises:
            RecipeError: there is no such arm.
        """
        whole = sorted(self.manifest["arms"], key=lambda arm: "parts" not in arm)  # of two with a pair the one that is only it
        by_pair = {f"{arm['generation_context']} -> {arm['training_context']}": arm["name"] for arm in whole}
        chosen = set()
        for name in names:
            pair = " -> ".join(side.strip() for side in name.split("->"))
            folder = name if name in self.arms else by_pair.get(pair)
            if folder is None:
                known = did_you_mean(pair if "->" in name else name, [*self.arms, *by_pair])
                raise RecipeError(f"arms={name}: the run has no such arm; {known}")
            chosen.add(folder)
        return [arm for arm in self.arms if arm in chosen or not names]

    def splits(self, arm: str) -> list[str]:
        """The splits that an arm has, train first."""
        return [split for split in SPLITS if (self.path / "arms" / arm / split).is_dir()]

    def num_rows(self, arm: str, split: str) -> int:
        """Rows of one split, as the manifest counts them."""
        facts = next(facts for facts in self.manifest["arms"] if facts["name"] == arm)
        return int(facts["rows"].get(split, 0))

    def batches(self, arm: str, split: str, *, size: int = ROWS) -> "Iterator[pa.RecordBatch]":
        """The rows of one split, at most `size` at a time, with the columns of `tables.TRAINING_ROWS`.

        Raises:
            DataError: the split is not there or cannot be read.
        """
        import pyarrow as pa

        folder = self.path / "arms" / arm / split
        files = sorted(folder.glob("*.arrow"))
        if not files:
            raise DataError(f"{folder}: has no Arrow file; build the run again")
        for file in files:
            try:
                with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
                    for batch in stream:
                        yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{file}: cannot be read ({str(error).splitlines()[0]}); build the run again") from None

    def rows(self, arm: str, split: str, *, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of one split, one by one; all columns, or some."""
        for batch in self.batches(arm, split):
            yield from (batch.select(list(columns)) if columns else batch).to_pylist()


def open_run(name: str, *, output: Path = Path()) -> FinishedRun:
    """The run in a folder, or the latest run of the recipe of that name.

    Raises:
        RecipeError: there is no such run, or it is not finished.
        DataError: its manifest cannot be read.
    """
    path = _found(name, output)
    file = path / "manifest.json"
    if not file.is_file():
        raise RecipeError(f"run={name}: {path} holds no finished run (no manifest.json); build it with recontext build")
    try:
        manifest = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); build the run again") from None
    if not isinstance(manifest, dict) or not {"recipe_name", "fingerprint", "arms"} <= manifest.keys():
        raise DataError(f"{file}: is not a manifest of a run; give the folder that recontext build wrote")
    return FinishedRun(path, manifest)


def _found(name: str, output: Path) -> Path:
    direct, runs = Path(name).expanduser(), output / "runs"
    if (direct / "manifest.json").is_file():
        return direct.resolve()
    latest = (direct if "/" in name else runs / name) / "latest"
    if latest.is_file():  # where links are not allowed it holds the folder's name
        return latest.parent / latest.read_text(encoding="utf-8").strip()
    if latest.is_dir():
        return latest.resolve()
    if direct.is_dir() or "/" in name:
        return direct
    known = sorted(folder.name for folder in runs.glob("*") if folder.is_dir())
    raise RecipeError(f"run={name}: there is no run of that name in {runs}; {did_you_mean(name, known)}")
