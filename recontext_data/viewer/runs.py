"""The runs that may be looked at, and what of each is on disk now. A run may still be written: files appear one by one.

What a request names is looked up among the runs that were found; no path is ever made from a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recontext_data.core.errors import InputError, did_you_mean

TABLES = ("tasks", "candidates", "judgements", "selection")
NO_RUNS = ("labels", "rounds", "sweeps")
"""Folders beside the runs of a recipe: what is about several of them."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """One run's folder."""

    recipe: str
    name: str
    """The folder's name: the start of the fingerprint."""
    path: Path

    @property
    def key(self) -> str:
        """What a link calls it."""
        return f"{self.recipe}/{self.name}"

    @property
    def output(self) -> Path | None:
        """The folder that holds runs/ and replies/; None for a run that was moved out of it."""
        return self.path.parents[2] if self.path.parents[1].name == "runs" else None

    @property
    def labels(self) -> Path:
        """Where labels go: beside the runs of the recipe, since they hold for all of them."""
        return (self.path.parent if self.output else self.path) / "labels"

    @property
    def replies(self) -> Path | None:
        """The store of replies that it was built from."""
        folder = self.output / "replies" if self.output else None
        return folder if folder is not None and folder.is_dir() else None

    def files(self, table: str) -> list[Path]:
        """The files of a table, in order; none while it is not written."""
        one = self.path / f"{table}.parquet"
        if one.is_file():
            return [one]
        return sorted(path for path in (self.path / table).glob("*.parquet")) + sorted(
            path for path in one.glob("*.parquet") if not path.name.startswith(".")
        )

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished run; None while it is built, and for one that cannot be read."""
        try:
            manifest = orjson.loads((self.path / "manifest.json").read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return manifest if isinstance(manifest, dict) and "recipe" in manifest else None

    def state(self) -> str:
        """Changes whenever a table, an arm or the manifest appears or is replaced."""
        files = [path for table in TABLES for path in self.files(table)]
        files += [path for path in (self.path / "manifest.json", self.path / "arms") if _changed(path)]
        return "-".join(f"{file.name}:{_changed(file):x}" for file in files)


@dataclass(frozen=True, slots=True)
class Library:
    """Where runs are looked for: one run, or every run below an output folder."""

    output: Path
    only: RunTables | None = None

    def runs(self) -> list[RunTables]:
        """The runs, newest first."""
        if self.only is not None:
            return [self.only]
        found = [RunTables(path.parent.name, path.name, path) for path in _folders(self.output / "runs")]
        return sorted(found, key=lambda run: _changed(run.path), reverse=True)

    def get(self, recipe: str, name: str) -> RunTables | None:
        """The run that a link names, if there is one."""
        return next((run for run in self.runs() if (run.recipe, run.name) == (recipe, name)), None)


def _changed(path: Path) -> int:
    """When a file was last replaced; 0 for what is not there, or went away a moment ago."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _folders(runs: Path) -> Iterator[Path]:
    for recipe in sorted(runs.iterdir()) if runs.is_dir() else ():
        for path in sorted(recipe.iterdir()) if recipe.is_dir() else ():
            if path.is_dir() and not path.is_symlink() and path.name not in NO_RUNS:
                yield path


def library(output: Path, run: str | None) -> Library:
    """The runs of an output folder; with `run`, the one of that path, recipe, recipe/folder or fingerprint.

    Raises:
        InputError: there is none.
    """
    everything = Library(output)
    if run is None:
        if not everything.runs():
            raise InputError(f"output={output}: no run is in {output / 'runs'}; build one, or say where with output= or run=")
        return everything
    path = Path(run).expanduser()
    if path.is_dir() and (
        RunTables("", "", path).files("candidates") or (path / "manifest.json").exists() or (path / ".lock").exists()
    ):
        whole = path.resolve()
        return Library(output, RunTables(whole.parent.name, whole.name, whole))
    return Library(output, _named(everything, run))


def _named(everything: Library, run: str) -> RunTables:
    runs = everything.runs()
    for one in runs:
        if run in (one.key, one.name):
            return one
    of_recipe = [one for one in runs if one.recipe == run]
    if not of_recipe:
        known = {one.recipe for one in runs}
        raise InputError(f"run={run}: no run of that name is in {everything.output / 'runs'}; {did_you_mean(run, known)}")
    latest = everything.output / "runs" / run / "latest"
    return next((one for one in of_recipe if latest.exists() and latest.resolve() == one.path.resolve()), of_recipe[0])
