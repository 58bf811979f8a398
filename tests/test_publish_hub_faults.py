"""Interruptions, busy and failing Hubs, somebody else's commits: run again, it is right, and nothing was sent twice."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import hub_world
from tests.fake_hub import FakeHub
from tests.hub_world import ARMS, REPO, kill, publish, published, refusal, start


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_world.make_run(tmp_path_factory.mktemp("built"))


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub", part_bytes=6_000) as server:
        yield server


def is_whole(hub: FakeHub, run: Path) -> bool:
    """One commit of everything, each file as it must be, and nothing sent twice."""
    repo = hub.repo(REPO)
    read = {
        f"{arm}/{split}": pq.read_table(
            io.BytesIO(hub.state.content(REPO, f"data/{arm}/{split}-00000-of-00001.parquet"))
        ).to_pylist()
        for arm in ARMS
        for split in ("train", "validation")
    }
    rows = {f"{arm}/{split}": hub_world.rows_of(run, arm, split) for arm in ARMS for split in ("train", "validation")}
    assert read == rows and len(repo.head.files) == 9
    assert len(set(hub.state.uploaded)) == len(hub.state.uploaded) == 4
    return len(repo.commits) == 2


@pytest.mark.parametrize(
    ("method", "path", "skip"),
    [("POST", "/repos/create", 0), ("PUT", "/_lfs/", 0), ("PUT", "/_lfs/", 5), ("POST", "/verify", 2), ("POST", "/commit/", 0)],
)
def test_killed_in_the_middle_and_run_again_it_is_right(hub: FakeHub, run: Path, method: str, path: str, skip: int) -> None:
    fault = hub.fail(method, path, mode="hang", skip=skip)
    process = start(hub, run)
    assert fault.hit.wait(60)
    kill(process)
    repo = hub.state.repos.get(("dataset", REPO))
    assert repo is None or len(repo.commits) == 1, "a reader sees nothing of it"
    published(hub, run)
    assert is_whole(hub, run)


def test_a_commit_whose_answer_is_lost_is_found_and_not_made_again(hub: FakeHub, run: Path) -> None:
    hub.fail("POST", "/commit/", mode="after", status=502)
    assert published(hub, run, "tag=v1").startswith("published")
    assert is_whole(hub, run) and hub.repo(REPO).tags == {"v1": hub.repo(REPO).head.oid}


def test_a_commit_that_fails_is_one_line_and_the_next_run_sends_no_file_again(hub: FakeHub, run: Path) -> None:
    hub.fail("POST", "/commit/", status=500)
    error = refusal(publish(hub, run), code=1)
    assert error.startswith("error: repo=ann/contexts: the Hub failed with 500 (planted)") and "same command continues" in error
    assert len(hub.repo(REPO).commits) == 1
    published(hub, run)
    assert is_whole(hub, run)


def test_uploads_that_break_are_tried_again_within_the_run(hub: FakeHub, run: Path) -> None:
    hub.fail("PUT", "/_lfs/", mode="half")
    hub.fail("PUT", "/_lfs/", mode="drop", skip=1)
    hub.fail("POST", "/objects/batch", status=429, headers={"Retry-After": "0"})
    published(hub, run)
    assert is_whole(hub, run)


def test_a_rate_limit_says_when(hub: FakeHub, run: Path) -> None:
    hub.fail("POST", "/commit/", status=429, headers={"Retry-After": "37"})
    error = refusal(publish(hub, run), code=1)
    assert error == (
        "error: repo=ann/contexts: the Hub's rate limit is reached; try again in 37 s; "
        "what was sent is kept; the same command continues"
    )
    hub.fail("GET", f"/api/datasets/{REPO}", status=429)
    assert "rate limit is reached; try again later;" in refusal(publish(hub, run), code=1)


def test_a_commit_of_somebody_elses_meanwhile_is_not_lost(hub: FakeHub, run: Path) -> None:
    published(hub, run, f"arms={ARMS[0]}")
    repo = hub.repo(REPO)
    theirs = repo.head.files | {"notes.md": hub.state.store(b"theirs")}
    hub.fail("POST", "/commit/", mode="pass", action=lambda: repo.commit("theirs", "", theirs))
    assert "somebody else changed it meanwhile" in refusal(publish(hub, run), code=1)
    assert repo.head.title == "theirs"
    published(hub, run)
    assert repo.head.files["notes.md"] == theirs["notes.md"] and len(repo.head.files) == 10 and len(repo.commits) == 4


def test_a_hub_that_is_not_there_is_one_line(hub: FakeHub, run: Path) -> None:
    done = publish(hub, run, HF_ENDPOINT="http://127.0.0.1:9")
    assert "repo=ann/contexts: the Hub at http://127.0.0.1:9 cannot be reached" in refusal(done, code=1)
