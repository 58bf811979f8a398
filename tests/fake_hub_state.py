"""What the fake Hub knows: users, repositories with their commits, and the bytes of files on disk."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ZERO = "0" * 40


@dataclass(frozen=True)
class User:
    """Whom a token belongs to."""

    name: str
    orgs: tuple[str, ...] = ()
    writes: bool = True


@dataclass(frozen=True)
class File:
    """One file of a tree."""

    size: int
    git_oid: str
    """SHA-1 of the git blob: of the pointer where the file is large."""
    sha256: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """One revision."""

    oid: str
    title: str
    description: str
    files: dict[str, File]


@dataclass
class Repo:
    """One repository."""

    kind: str
    name: str
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        """The newest revision."""
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The revision of a branch, tag or hash."""
        if revision in ("main", "HEAD"):
            return self.head
        oid = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    def commit(self, title: str, description: str, files: dict[str, File]) -> Commit:
        """Adds a revision."""
        parent = self.commits[-1].oid if self.commits else ZERO
        seed = f"{self.kind}/{self.name} {parent} {title} {sorted(files)} {time.time_ns()}"
        made = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, description, files)
        self.commits.append(made)
        return made


class State:
    """Everything."""

    def __init__(self, folder: Path, *, part_bytes: int) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True, exist_ok=True)
        self.part_bytes = part_bytes
        """Uploads above this size are asked for in parts."""
        self.url = ""
        self.storage_url = ""
        """Where large files go to and come from: the same server under another name, as a Hub's storage is another host."""
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.uploaded: list[str] = []
        """SHA-256 of every large file that was accepted, in order."""
        self.page_size = 1000

    def create(self, name: str, *, kind: str = "dataset", private: bool = True) -> Repo:
        """A repository with its first commit, as the Hub makes it."""
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.commit("initial commit", "", {".gitattributes": self.store(b"*.parquet filter=lfs\n")})
        return repo

    def store(self, content: bytes) -> File:
        """A small file."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.objects / sha256).write_bytes(content)
        return File(len(content), git_blob(content), sha256, lfs=False)

    def large(self, sha256: str, size: int) -> File:
        """A large file that has been uploaded."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return File(size, git_blob(pointer), sha256, lfs=True)

    def has(self, sha256: str, size: int | None = None) -> bool:
        """Whether a file of these bytes is here."""
        path = self.objects / sha256
        return path.is_file() and (size is None or path.stat().st_size == size)

    def content(self, repo: str, path: str, *, kind: str = "dataset", revision: str = "main") -> bytes:
        """The bytes of a file in a repository."""
        commit = self.repos[kind, repo].at(revision)
        assert commit is not None
        return (self.objects / commit.files[path].sha256).read_bytes()

    def every_text(self) -> str:
        """Every byte that was ever stored, and every commit's words: for looking for what must not be there."""
        files = [path.read_bytes().decode("latin-1") for path in sorted(self.objects.iterdir()) if path.is_file()]
        words = [f"{commit.title}\n{commit.description}" for repo in self.repos.values() for commit in repo.commits]
        return "\n".join([*files, *words])


def git_blob(content: bytes) -> str:
    """The hash that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree_entry(path: str, file: File) -> dict[str, Any]:
    """A file as the Hub lists it."""
    entry: dict[str, Any] = {"type": "file", "oid": file.git_oid, "size": file.size, "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
    return entry
