"""The folder of one run: tables, arms, report, and a manifest that is written last and says that all is there.

runs/<recipe>/<fingerprint>/manifest.json, *.parquet, arms/<arm>/, report.html
runs/<recipe>/latest -> the newest of them
"""

import functools
import io
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import InputError, RecontextError, StoreError
from recontext_data.store.files import file_digest, replace_file, writing

if TYPE_CHECKING:
    import polars as pl

NOT_OF_BUILD = ("manifest.json", "models", "evaluation", "openai", "exports")
"""What is in the folder and is not the build's: a model that is deleted later does not undo the build."""

ROWS_PER_GROUP = 16_384
"""Of a table that is written in parts, at most; in one of small parts a group is two of them, which is what waits in memory."""

FORMAT = 1
"""Of the manifest; raised when a reader of the old one would misread the new one."""


class RunFolder:
    """One run on disk."""

    def __init__(self, root: Path, *, recipe: str, fingerprint: str) -> None:
        self.path = root / "runs" / recipe / fingerprint[:16]

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the run; yields whether another build held it first and had to be waited for."""
        from filelock import FileLock, Timeout

        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        waited = False
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waited = True
            lock.acquire()
        try:
            yield waited
        finally:
            lock.release()

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished run whose files are all there in the sizes it states; None otherwise."""
        path = self.path / "manifest.json"
        if not path.is_file():
            return None
        try:
            manifest: dict[str, Any] = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise StoreError(
                f"{path}: is damaged ({error}); delete the file to build the run again from stored replies"
            ) from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "files" not in manifest:
            return None
        for name, facts in manifest["files"].items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != facts["bytes"]:
                return None
        return manifest

    def write_table(self, name: str, frame: "pl.DataFrame") -> None:
        """One Parquet table, replaced in one step."""
        # Through memory, so that a full disk is an OSError of ours and not an error of whoever encodes.
        encoded = io.BytesIO()
        frame.write_parquet(encoded, compression="zstd")
        replace_file(self.path / f"{name}.parquet", lambda target: target.write_bytes(encoded.getbuffer()))

    def write_parts(self, name: str, parts: "Iterable[pl.DataFrame]") -> None:
        """As `write_table`, of a table that comes in parts with the same columns: one or two are in memory at a time.

        Raises:
            ValueError: there is no part; a table without rows is one that is empty.
        """
        rest = iter(parts)
        first = next(rest, None)
        if first is None:
            raise ValueError(f"{name}: there is no part")
        second = next(rest, None)
        if second is None:
            self.write_table(name, first)  # which takes less than what is made for many
        else:
            replace_file(self.path / f"{name}.parquet", functools.partial(_sink, itertools.chain([first, second], rest)))

    @contextmanager
    def staged_arms(self) -> Iterator[Path]:
        """A folder to write arms into; it takes the place of `arms/` if nothing was raised, and vanishes otherwise."""
        staging, final = self.path / ".arms.tmp", self.path / "arms"
        with writing(self.path):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
        try:
            with writing(final):
                yield staging
                if final.exists():
                    shutil.rmtree(final)
                staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def begin(self) -> None:
        """From here on the run is unfinished until `finish`."""
        with writing(self.path):
            (self.path / "manifest.json").unlink(missing_ok=True)

    def finish(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the manifest, with the size and hash of every file of the run, and points `latest` here."""
        # A training that was given a folder of its own (models=NAME) is no part of the build either.
        others = {*NOT_OF_BUILD}.union(
            path.parents[1].name for name in ("seed-*", ".seed-*") for path in self.path.glob(f"*/*/{name}")
        )
        own = [path for path in self.path.iterdir() if path.name not in others]
        # Others' folders are not even looked into: in a training's work, folders go while they are listed.
        files = {
            path.relative_to(self.path).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(path for top in own for path in (top, *top.rglob("*")))
            if path.is_file() and not path.name.startswith(".")
        }
        whole = {"format": FORMAT, **manifest, "files": files}
        text = orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        replace_file(self.path / "manifest.json", lambda target: target.write_bytes(text))
        self.point_latest()
        return whole

    def point_latest(self) -> None:
        """`latest` beside this run leads to it; where links are not allowed it is a file that holds the folder's name."""
        link = self.path.parent / "latest"
        if link.is_symlink() and os.readlink(link) == self.path.name:
            return
        temporary = link.with_name(f".latest.{os.getpid()}")
        with writing(link):
            temporary.unlink(missing_ok=True)
            try:
                temporary.symlink_to(self.path.name, target_is_directory=True)
            except (OSError, NotImplementedError):
                temporary.write_text(self.path.name + "\n", encoding="utf-8")
            temporary.replace(link)


def _sink(parts: "Iterator[pl.DataFrame]", target: Path) -> None:
    import polars as pl
    from polars.io.plugins import register_io_source

    first = next(parts)
    source = register_io_source(lambda *_how: itertools.chain([first], parts), schema=first.schema)
    try:
        source.sink_parquet(target, compression="zstd", row_group_size=max(1, min(ROWS_PER_GROUP, 2 * len(first))))
    except pl.exceptions.ComputeError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error  # a full disk, in the words of a full disk


@contextmanager
def remove_empty_on_error(output: Path, run: Path) -> Iterator[None]:
    """Takes back the folders of a build that was refused before it wrote anything, as one without an API key is."""
    made = [folder for folder in (run, run.parent, run.parent.parent, output / "replies", output) if not folder.exists()]
    try:
        yield
    except RecontextError as error:
        if error.exit_code == 2:
            for folder in made:
                with suppress(OSError):  # what is not empty stays
                    if [path.name for path in folder.iterdir()] == [".lock"]:
                        (folder / ".lock").unlink()
                    folder.rmdir()
        raise


def require_writable(root: Path) -> None:
    """Raises, before anything is spent, where `output` cannot be written; tries it, since permissions alone do not tell."""
    # os.path: a folder that may not even be looked into counts as not there, and its parent then says so.
    nearest = next(folder for folder in (root.absolute(), *root.absolute().parents) if os.path.exists(folder))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise InputError(
            f"output={root}: {nearest} cannot be written ({error.strerror}); give another folder with output="
        ) from None
