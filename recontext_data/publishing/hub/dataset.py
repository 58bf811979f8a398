"""The arms of a run as a dataset repository: what files it is to hold, and which of them it holds already."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import RecipeError
from recontext_data.publishing.hub.card import repository_card
from recontext_data.publishing.hub.check import check_rows
from recontext_data.publishing.hub.data import Split, read_split, shard_path, write_shards
from recontext_data.publishing.hub.files import (
    FINGERPRINTS,
    RepoFile,
    fingerprints,
    json_bytes,
    portable_manifest,
    recipe_yaml,
)
from recontext_data.publishing.hub.message import dataset_message
from recontext_data.publishing.hub.options import HubOptions
from recontext_data.publishing.hub.repo import Change, Remote
from recontext_data.publishing.hub.secrets import KnownSecrets
from recontext_data.publishing.runs import FinishedRun

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

DATA = "data/"
"""Where a repository keeps its shards."""
NOT_DATA = (".gitattributes", ".gitignore", "README.md", "LICENSE")
"""What a repository may hold that was made by hand."""


class Dataset:
    """A dataset repository with one configuration for each arm."""

    kind, option = "dataset", "repo"

    def __init__(self, run: FinishedRun, options: HubOptions, *, secrets: KnownSecrets, screen: "Screen", folder: Path) -> None:
        assert options.repo is not None
        self.name, self.run, self.options, self.screen, self.folder = options.repo, run, options, screen, folder
        wanted = [(arm, split) for arm in run.wanted(options.arms) for split in run.splits(arm)]
        self.splits: list[Split] = []
        self._shards: dict[str, dict[str, str]] = {}
        """`<arm>/<split>` -> path -> SHA-256 of each of its files."""
        with screen.stage("read", sum(run.num_rows(*split) for split in wanted), unit="rows") as tracker:
            for arm, name in wanted:
                self.splits.append(read_split(run, arm, name, secrets=secrets))
                tracker.advance(self.splits[-1].rows)

    def items(self, remote: Remote | None) -> list[RepoFile]:
        """Card, records and shards; no shards of a split whose rows the repository has.

        Raises:
            RecipeError: the repository holds somebody else's data.
        """
        if remote is not None and not self.options.overwrite:
            self._require_ours(remote)
        before = noted(remote)
        data: list[RepoFile] = []
        for split in self.splits:
            kept = files_with(split, before, remote)
            made = [] if kept else [RepoFile(path, place) for path, place in write_shards(split, self.folder)]
            self._shards[f"{split.arm}/{split.name}"] = kept or {item.path: item.sha256 for item in made}
            data += made
        return [*self._texts(), *data]

    def stale(self, remote: Remote) -> list[str]:
        """Shards of arms or splits that are no more."""
        wanted = {path for files in self._shards.values() for path in files}
        return sorted(path for path in remote.files if path.startswith(DATA) and path not in wanted)

    def message(self, remote: Remote, change: Change) -> tuple[str, str]:
        """What changed, arm by arm."""
        return dataset_message(self.run, self.splits, before=noted(remote), change=change)

    def verify(self, revision: str) -> None:
        """Streams all rows back."""
        check_rows(self.name, self.splits, revision=revision, screen=self.screen)

    def _texts(self) -> list[RepoFile]:
        manifest = self.run.manifest
        card = repository_card(manifest, repo=self.name, splits=self.splits, licence=self.options.licence)
        return [
            RepoFile("README.md", card.encode()),
            RepoFile("manifest.json", json_bytes(portable_manifest(manifest))),
            RepoFile("recipe.yaml", recipe_yaml(manifest["recipe"])),
            RepoFile(FINGERPRINTS, fingerprints(manifest, self.splits, self._shards)),
        ]

    def _require_ours(self, remote: Remote) -> None:
        others = [path for path in remote.files if path not in NOT_DATA]
        if others and FINGERPRINTS not in remote.files:
            raise RecipeError(
                f"repo={self.name}: holds {others[0]} and other files that recontext_data did not put there; name another "
                "repository, or write overwrite=true to replace its README.md and what is in its data/"
            )


def noted(remote: Remote | None) -> dict[str, Any]:
    """What a repository says of its own rows: arm -> split -> {rows, fingerprint, files}; empty where it says nothing."""
    try:
        arms = orjson.loads(remote.note)["arms"] if remote is not None else {}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return arms if isinstance(arms, dict) else {}


def files_with(split: Split, before: Mapping[str, Any], remote: Remote | None) -> dict[str, str]:
    """The files of the repository that hold these very rows, else nothing.

    Another version of pyarrow writes other bytes for the same rows, which is no reason for a commit. The repository's note
    is believed only where the files that are really there have the hashes that it gives.
    """
    facts = before.get(split.arm, {}).get(split.name, {})
    files: dict[str, str] = facts.get("files") or {}
    if remote is None or facts.get("fingerprint") != split.fingerprint or facts.get("rows") != split.rows:
        return {}
    named = {shard_path(split, index, of=len(files)) for index in range(len(files))}
    return files if named == set(files) and all(remote.files.get(path) == sha256 for path, sha256 in files.items()) else {}
