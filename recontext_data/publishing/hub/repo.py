"""One repository on a Hub: what it holds, and how it is changed by one commit. The only room that talks to a Hub.

HF_ENDPOINT names another Hub than the public one; huggingface_hub reads it when it is first imported. The token is the one
that every tool of the Hub's finds: HF_TOKEN, or what `hf auth login` stored.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from recontext_data.core.errors import SetupError
from recontext_data.publishing.hub.errors import Refusals, refusals
from recontext_data.publishing.hub.files import FINGERPRINTS, RepoFile
from recontext_data.publishing.hub.secrets import KnownSecrets

if TYPE_CHECKING:
    pass

PUBLIC = "huggingface.co"
AT_ONCE = 8
"""Large files that are sent between two steps of the progress bar."""


@dataclass(frozen=True)
class Remote:
    """A repository at one commit."""

    head: str
    private: bool
    files: Mapping[str, str]
    """Path -> SHA-256 of a large file, git's hash of a small one."""
    large: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    note: bytes = b""
    """Its fingerprints.json; empty where it has none."""

    def has(self, item: RepoFile) -> bool:
        """Whether this very file is there, by its content."""
        return self.files.get(item.path) == (item.sha256 if item.path in self.large else item.git_oid)


@dataclass(frozen=True)
class Change:
    """What one commit does."""

    add: Sequence[RepoFile]
    delete: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def stored_token() -> str | None:
    """The token that the Hub's own tools find."""
    from huggingface_hub import get_token

    found: str | None = get_token()
    return found


class Repository:
    """A dataset or model repository.

    Raises, from every method:
        SetupError: no token, or one that may not do this.
        RecipeError: there is no such repository.
        BuildStopped: the Hub is busy, fails or cannot be reached; the same command continues.
    """

    def __init__(self, name: str, *, kind: str, option: str, secrets: KnownSecrets) -> None:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars

        # Its bars and its "Retrying in 1s" would write over ours.
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        if urlsplit(constants.ENDPOINT).hostname != PUBLIC and "HF_HUB_DISABLE_XET" not in os.environ:
            # Other Hubs do not speak Xet as a rule, and with it every upload of a large file fails there.
            constants.HF_HUB_DISABLE_XET = True
        self.name, self.kind = name, kind
        self.endpoint = str(constants.ENDPOINT)
        self._api: HfApi = HfApi(library_name="recontext_data")
        self._refusals = Refusals(where=f"{option}={name}", endpoint=self.endpoint, secrets=secrets)
        if stored_token() is None:
            raise SetupError("no token for the Hub: set HF_TOKEN, or run `hf auth login`; it needs write permission")

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def look(self) -> Remote | None:
        """What is there; None where there is no such repository, or none that this token may see."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._guarded():
            try:
                info: Any = self._api.repo_info(self.name, repo_type=self.kind)
            except RepositoryNotFoundError:
                return None
            entries = list(self._api.list_repo_tree(self.name, repo_type=self.kind, recursive=True, revision=info.sha))
            refs = self._api.list_repo_refs(self.name, repo_type=self.kind)
        files = {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}
        return Remote(
            head=str(info.sha),
            private=bool(info.private),
            files={path: entry.lfs.sha256 if entry.lfs else entry.blob_id for path, entry in files.items()},
            large=frozenset(path for path, entry in files.items() if entry.lfs),
            tags={tag.name: tag.target_commit for tag in refs.tags},
            note=self._read(FINGERPRINTS, revision=str(info.sha)) if FINGERPRINTS in files else b"",
        )

    def create(self, *, private: bool) -> None:
        """Makes it."""
        with self._guarded():
            self._api.create_repo(self.name, repo_type=self.kind, private=private, exist_ok=True)

    def _read(self, path: str, *, revision: str) -> bytes:
        """A small file, past every cache."""
        with self._guarded(), tempfile.TemporaryDirectory() as folder:
            found = self._api.hf_hub_download(
                self.name, path, repo_type=self.kind, revision=revision, cache_dir=folder, force_download=True
            )
            with open(found, "rb") as handle:
                return handle.read()

    def commit(self, change: Change, *, parent: str, words: tuple[str, str], tracker: Any) -> str:
        """Sends the files and then makes one commit of them on `parent`, so that a reader sees all of it or nothing.

        Large files that are on the Hub already are not sent again, whichever commit or attempt they came with. `words`: the
        commit's title and description.

        Raises:
            InputError: the Hub refuses the card or a file.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._guarded():
            adds = [CommitOperationAdd(item.path, _content(item)) for item in change.add]
            for start in range(0, len(adds), AT_ONCE):
                part = adds[start : start + AT_ONCE]
                self._api.preupload_lfs_files(self.name, additions=part, repo_type=self.kind)
                tracker.advance(len(part))
            deletes = [CommitOperationDelete(path, is_folder=False) for path in change.delete]
            made = self._api.create_commit(
                self.name,
                [*adds, *deletes],
                commit_message=words[0],
                commit_description=words[1],
                repo_type=self.kind,
                parent_commit=parent,
            )
            return str(made.oid)

    def check_card(self, card: RepoFile) -> None:
        """Has the Hub look at a card's header before anything is sent.

        Raises:
            InputError: it refuses it.
        """
        from huggingface_hub.utils import build_hf_headers, get_session

        assert isinstance(card.content, bytes)
        body = {"content": card.content.decode(), "repoType": self.kind}
        with self._guarded():
            answer = get_session().post(f"{self.endpoint}/api/validate-yaml", json=body, headers=build_hf_headers())
            if answer.status_code == 400:
                said = "; ".join(str(error.get("message")) for error in answer.json().get("errors", ()))
                raise self._refusals.card(said)

    def tag(self, name: str, *, revision: str) -> None:
        """Names a commit."""
        with self._guarded():
            self._api.create_tag(self.name, tag=name, revision=revision, repo_type=self.kind)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Every error of the client as one line of ours, without its traceback: that holds headers, and a header the token."""
        with refusals(self._refusals):
            yield


def _content(item: RepoFile) -> Any:
    return item.content if isinstance(item.content, bytes) else str(item.content)
