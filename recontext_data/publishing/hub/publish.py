"""Publishes a run on a Hub: `python -m recontext_data.publish to=hub run=code_mc repo=USER/NAME [key=value ...]`.

    data/<arm>/<split>-*.parquet     each arm a configuration: load_dataset("USER/NAME", "<arm>")
    README.md  manifest.json  recipe.yaml  fingerprints.json
    <arm>/seed-<s>/                  in models_repo: trained models

What is there already is found by the hashes of its files, so nothing is sent twice and the same run makes no second
commit. All changes are one commit, which is read back and compared before it gets its tag. docs/hub.md has the rest.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recontext_data.core.errors import BuildStopped, RecipeError
from recontext_data.publishing.hub.dataset import Dataset
from recontext_data.publishing.hub.files import RepoFile
from recontext_data.publishing.hub.models import Models
from recontext_data.publishing.hub.options import HubOptions
from recontext_data.publishing.hub.repo import Change, Remote, Repository, stored_token
from recontext_data.publishing.hub.secrets import KnownSecrets
from recontext_data.publishing.runs import FinishedRun, open_run

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

OPTIONS = HubOptions


class RepoSource(Protocol):
    """What a repository is brought to hold: the arms of a run, or its models."""

    kind: str
    """`dataset` or `model`"""
    option: str
    """The option that names the repository."""
    name: str

    def items(self, remote: Remote | None) -> list[RepoFile]:
        """Every file that is to be there and may not be; `remote` None: all of them."""

    def stale(self, remote: Remote) -> list[str]:
        """Files of an earlier publication that are none of this one's. Called after `items`."""

    def message(self, remote: Remote, change: Change) -> tuple[str, str]:
        """Title and description of the commit."""

    def verify(self, revision: str) -> None:
        """Compares what the Hub gives back with the run."""


def publish(run: FinishedRun | Path, options: HubOptions, *, output: Path = Path(), screen: "Screen | None" = None) -> int:
    """Publishes a run's datasets in `repo`, its trained models in `models_repo`, or both; returns the exit code.

    Raises:
        RecipeError: an option is wrong, or the repository is not one to publish in.
        SetupError: no token, or one that may not.
        DataError: the run cannot be read, or holds a key of this machine's.
        BuildStopped: the Hub is busy or fails, or what it gives back is not what was sent; the same command continues.
    """
    from recontext_data.reports.screen import Screen as Shown

    wanted, shown = options, screen or Shown()
    opened = open_run(str(run)) if isinstance(run, Path) else run
    token = stored_token()
    secrets = KnownSecrets.here(more={"the Hub's login": token} if token else {})
    with tempfile.TemporaryDirectory(prefix="recontext-hub-") as folder:
        sources: list[RepoSource] = []
        if wanted.repo is not None:
            sources.append(Dataset(opened, wanted, secrets=secrets, screen=shown, folder=Path(folder)))
        if wanted.models_repo is not None:
            sources.append(Models(opened, wanted, screen=shown, folder=Path(folder)))
        for source in sources:
            if wanted.dry_run:
                _show(source, wanted, secrets)
            else:
                _Publication(source, wanted, secrets=secrets, screen=shown).run()
    return 0


def _show(source: RepoSource, options: HubOptions, secrets: KnownSecrets) -> None:
    """`dry_run=true`: what would go up."""
    items = source.items(None)
    _check(items, secrets)
    visibility = "public" if options.private is False else "private where it is made"
    print(f"would publish {len(items)} files, {_bytes(items)}, in {source.name} ({visibility})")
    for item in items:
        print(f"  {item.size:>15,}  {item.path}")


class _Publication:
    """One repository, brought to what its source says."""

    def __init__(self, source: RepoSource, options: HubOptions, *, secrets: KnownSecrets, screen: "Screen") -> None:
        self.source, self.options, self.secrets, self.screen = source, options, secrets, screen
        self.repository = Repository(source.name, kind=source.kind, option=source.option, secrets=secrets)

    def run(self) -> None:
        """Looks, sends what is missing in one commit, reads it back, tags it."""
        source, tag = self.source, self.options.tag
        remote = self._found()
        items = source.items(remote)
        _check(items, self.secrets)
        if remote is None:
            remote = self._made(items)
        change = Change([item for item in items if not remote.has(item)], source.stale(remote))
        self._check_tag(remote, change)
        revision = self._commit(remote, change) if change else remote.head
        if self.options.check:
            source.verify(revision)
        if tag is not None and tag not in remote.tags:
            self.repository.tag(tag, revision=revision)
        said = "published" if change else "unchanged, no commit"
        print(f"{said}  {self.repository.url}  revision {revision[:12]}{f'  tag {tag}' if tag else ''}")

    def _found(self) -> Remote | None:
        """The repository, if it is there and may be published in."""
        remote, option = self.repository.look(), f"{self.source.option}={self.source.name}"
        if remote is None and not self.options.create:
            raise RecipeError(f"{option}: there is no such repository, or the token may not see it; create=true makes it")
        if remote is not None and not remote.private and self.options.private is not False:
            raise RecipeError(f"{option}: is public; write private=false to publish there, or make it private on the Hub first")
        if remote is not None and remote.private and self.options.private is False:
            self.screen.warn(f"{option}: is private and stays so; make it public on the Hub")
        return remote

    def _made(self, items: Sequence[RepoFile]) -> Remote:
        """A new repository, made once its card is known to be taken."""
        self._check_card(items)
        self.repository.create(private=self.options.private is not False)
        remote = self.repository.look()
        if remote is None:
            raise RecipeError(
                f"{self.source.option}={self.source.name}: is there and this token may not see it; "
                "use its owner's token or another name"
            )
        return remote

    def _check_card(self, items: Sequence[RepoFile]) -> None:
        for item in items:
            if item.path == "README.md":
                self.repository.check_card(item)

    def _check_tag(self, remote: Remote, change: Change) -> None:
        tag = self.options.tag
        taken = remote.tags.get(tag) if tag is not None else None
        if taken is not None and (change or taken != remote.head):
            raise RecipeError(f"tag={tag}: names revision {taken[:12]} of {self.source.name} already; take another name")

    def _commit(self, remote: Remote, change: Change) -> str:
        title, description = self.source.message(remote, change)
        self._check_card(change.add)
        try:
            with self.screen.stage(f"upload {_bytes(change.add)}", len(change.add), unit="files") as tracker:
                return self.repository.commit(change, parent=remote.head, words=(title, description), tracker=tracker)
        except BuildStopped:
            # The answer may have been lost and not the commit: the Hub is asked, and nothing is committed twice.
            now = self.repository.look()
            if now is None or now.head == remote.head or not all(now.has(item) for item in change.add):
                raise
            return now.head


def _check(items: Sequence[RepoFile], secrets: KnownSecrets) -> None:
    secrets.check((item.path, item.content) for item in items if isinstance(item.content, bytes))


def _bytes(items: Sequence[RepoFile]) -> str:
    count = sum(item.size for item in items)
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
