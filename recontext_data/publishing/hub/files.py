"""What goes up, file by file: each with its place in the repository, its bytes, and the hashes that a Hub knows it by.

Texts are made portable on the way: no folder of this machine, no time of day, so that the same run gives the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import orjson
import yaml

from recontext_data.publishing.hub.data import Split
from recontext_data.reports.card import portable

FINGERPRINTS = "fingerprints.json"
FORMAT = 1
PER_BUILD = ("created", "timings_seconds", "files", "requests")
"""Of the manifest: when and how it was built, what was found in a store, and files that are not published."""


@dataclass(frozen=True)
class RepoFile:
    """One file to be in the repository."""

    path: str
    content: bytes | Path

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """How a Hub knows a large file."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        with self.content.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """How a Hub knows a small file: the hash of the git blob."""
        digest = hashlib.sha1(b"blob %d\0" % self.size)
        if isinstance(self.content, bytes):
            digest.update(self.content)
        else:
            with self.content.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()


def portable_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without this machine's folders and without what differs from one build of the same run to the next."""
    kept = {key: value for key, value in manifest.items() if key not in PER_BUILD}
    own = {"contexts": kept.pop("contexts"), "recipe": portable_recipe(kept.pop("recipe"))}
    if "command" in kept:
        own["command"] = portable(kept.pop("command"))
    return own | {key: _without_paths(value) for key, value in kept.items()}


def portable_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with paths cut to their last part. Contexts stay as they are: `/no_think` is not a path there."""
    return {key: value if key == "contexts" else _whole_paths_cut(value) for key, value in recipe.items()}


def _whole_paths_cut(value: Any) -> Any:
    """Texts that are nothing but an absolute path, cut; all else as it is."""
    if isinstance(value, Mapping):
        return {key: _whole_paths_cut(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_paths_cut(inner) for inner in value]
    return last_part(value) if isinstance(value, str) and "\n" not in value else value


def _without_paths(value: Any) -> Any:
    """Every absolute path within every text cut, in keys too: a ledger's reasons are keys."""
    if isinstance(value, Mapping):
        return {portable(key): _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    return portable(value) if isinstance(value, str) else value


def last_part(text: str) -> str:
    """The last part of an absolute path; any other text as it is."""
    for path in (PurePosixPath(text), PureWindowsPath(text)):
        if path.is_absolute() and path.name:
            return path.name
    return text


def json_bytes(value: Any) -> bytes:
    """JSON with one line per value, so that a repository's differences can be read."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def recipe_yaml(recipe: Mapping[str, Any]) -> bytes:
    """A recipe that `recontext build recipe=recipe.yaml` reads."""
    text = yaml.safe_dump(portable_recipe(recipe), allow_unicode=True, sort_keys=False, width=120)
    return f"# Every value as it was when the dataset was built: recontext build recipe=recipe.yaml\n{text}".encode()


def fingerprints(manifest: Mapping[str, Any], splits: Sequence[Split], shards: Mapping[str, Mapping[str, str]]) -> bytes:
    """What the rows of every split are, and which files they are in.

    `shards`: for `<arm>/<split>`, the SHA-256 of each of its files by path.
    """
    arms: dict[str, dict[str, Any]] = {}
    for split in splits:
        facts = {"rows": split.rows, "fingerprint": split.fingerprint, "files": dict(shards[f"{split.arm}/{split.name}"])}
        arms.setdefault(split.arm, {})[split.name] = facts
    return json_bytes({"format": FORMAT, "recipe_fingerprint": manifest["fingerprint"], "arms": arms})
