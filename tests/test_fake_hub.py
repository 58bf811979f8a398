"""The fake Hub refuses what a real one refuses; a fake that takes everything would prove nothing."""

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.fake_hub import READ_ONLY, STRANGER, TOKEN, FakeHub
from tests.hub_world import client


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub", part_bytes=1_000) as server:
        yield server


def ask(
    hub: FakeHub, method: str, path: str, body: bytes = b"", *, token: str | None = TOKEN
) -> tuple[int, dict[str, str], bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{hub.url}{path}", data=body or None, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read()


def lines(*operations: dict[str, Any], parent: str | None = None) -> bytes:
    header = {"key": "header", "value": {"summary": "s", "description": "", "parentCommit": parent}}
    return b"\n".join(json.dumps(line).encode() for line in (header, *operations))


def test_bytes_of_another_hash_are_not_kept(hub: FakeHub) -> None:
    sha256 = hashlib.sha256(b"right").hexdigest()
    assert ask(hub, "PUT", f"/_lfs/{sha256}", b"wrong", token=None)[0] == 400
    assert not hub.state.has(sha256)
    assert ask(hub, "PUT", f"/_lfs/{sha256}", b"right", token=None)[0] == 200
    assert hub.state.has(sha256, 5)


def test_storage_refuses_a_token(hub: FakeHub) -> None:
    assert ask(hub, "PUT", f"/_lfs/{hashlib.sha256(b'x').hexdigest()}", b"x")[0] == 400


def test_a_commit_on_a_stale_parent_or_of_a_missing_object_is_refused(hub: FakeHub) -> None:
    repo = hub.state.create("ann/x")
    stale = repo.head.oid
    repo.commit("another", "", repo.head.files)
    commit = "/api/datasets/ann/x/commit/main"
    assert ask(hub, "POST", commit, lines(parent=stale))[0] == 412
    missing = {"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "0" * 64, "size": 1}}
    assert ask(hub, "POST", commit, lines(missing, parent=repo.head.oid))[0] == 422
    assert len(repo.commits) == 2


@pytest.mark.parametrize(
    ("token", "read", "write"), [(TOKEN, 200, 200), (READ_ONLY, 404, 404), (STRANGER, 404, 404), (None, 401, 401)]
)
def test_a_private_repository_is_its_owners(hub: FakeHub, token: str | None, read: int, write: int) -> None:
    hub.state.create("ann/x")
    assert ask(hub, "GET", "/api/datasets/ann/x", token=token)[0] == read
    assert ask(hub, "POST", "/api/datasets/ann/x/commit/main", lines(), token=token)[0] == write


def test_a_token_that_only_reads_does_not_write(hub: FakeHub) -> None:
    hub.state.create("lab/x")
    assert ask(hub, "GET", "/api/datasets/lab/x", token=READ_ONLY)[0] == 200
    assert ask(hub, "POST", "/api/datasets/lab/x/commit/main", lines(), token=READ_ONLY)[0] == 403
    assert ask(hub, "GET", "/api/datasets/lab/x", token="hf_nobody")[0] == 401


def test_official_client_sends_parts_lists_pages_tags_and_downloads(hub: FakeHub) -> None:
    hub.state.page_size = 3
    found = client(
        hub,
        """
import json
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
api = HfApi()
api.create_repo("ann/x", repo_type="dataset", private=True)
api.create_repo("ann/x", repo_type="dataset", private=True, exist_ok=True)
adds = [CommitOperationAdd(f"d/{i}.parquet", bytes([i]) * 2500) for i in range(4)] + [CommitOperationAdd("a.txt", b"a")]
made = api.create_commit("ann/x", adds, commit_message="m", repo_type="dataset")
again = api.create_commit("ann/x", [CommitOperationAdd("a.txt", b"a")], commit_message="m", repo_type="dataset")
api.create_tag("ann/x", tag="v1", repo_type="dataset")
try:
    api.create_tag("ann/x", tag="v1", repo_type="dataset")
    twice = None
except HfHubHTTPError as error:
    twice = error.response.status_code
print(json.dumps({
    "who": api.whoami()["name"], "same": made.oid == again.oid, "twice": twice,
    "files": sorted(api.list_repo_files("ann/x", repo_type="dataset", revision="v1")),
    "bytes": open(hf_hub_download("ann/x", "d/3.parquet", repo_type="dataset"), "rb").read() == bytes([3]) * 2500,
}))
""",
    )
    assert found == {
        "who": "ann",
        "same": True,
        "twice": 409,
        "files": [".gitattributes", "a.txt", "d/0.parquet", "d/1.parquet", "d/2.parquet", "d/3.parquet"],
        "bytes": True,
    }
    assert len(hub.asked("PUT /_lfs/")) == 12 and len(hub.repo("ann/x").commits) == 2
