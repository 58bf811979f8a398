"""Interruptions, busy and failing Hubs, somebody else's commits, wrong bytes, and keys that must not leave."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import hub_world
from tests.fake_hub import TOKEN, FakeHub
from tests.hub_world import ARMS, REPO, kill, publish, published, refusal, start

SHARD = f"data/{ARMS[0]}/train-00000-of-00001.parquet"


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


def test_other_rows_given_back_fail_and_no_tag_is_set(hub: FakeHub, run: Path) -> None:
    published(hub, run)

    files = hub.repo(REPO).head.files
    table = pq.read_table(io.BytesIO(hub.state.content(REPO, SHARD)))
    values = table.column("k").to_pylist()
    changed = table.set_column(table.schema.get_field_index("k"), "k", [[values[0] + 1, *values[1:]]])
    place = hub.state.objects / files[SHARD].sha256
    pq.write_table(changed, place)
    files[SHARD] = dataclasses.replace(files[SHARD], size=place.stat().st_size)  # the Hub still gives the old hash
    error = refusal(publish(hub, run, "check=true", "tag=v1"), code=1)
    assert f"repo=ann/contexts: {ARMS[0]}, train: the Hub gives back 20 rows with fingerprint" in error
    assert hub.repo(REPO).tags == {}


def test_a_dataset_that_cannot_be_read_back_is_one_line(hub: FakeHub, run: Path) -> None:
    published(hub, run)
    (hub.state.objects / hub.repo(REPO).head.files[SHARD].sha256).write_bytes(b"no parquet")
    error = refusal(publish(hub, run, "check=true", "tag=v1"), code=1)
    assert f"repo=ann/contexts: {ARMS[0]}, train: was sent and cannot be read back" in error and hub.repo(REPO).tags == {}


def test_a_key_in_a_text_or_in_a_row_stops_everything(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    key = "sk-planted-4711-0815-abcdefgh"
    text, row = hub_world.copy_run(run, tmp_path / "text"), hub_world.copy_run(run, tmp_path / "row")
    hub_world.edit_manifest(text, lambda manifest: manifest["ledger"][1].update(dropped={f"policy error: 401 {key}": 1}))
    hub_world.rewrite(row, ARMS[1], "train", lambda rows: [rows[0] | {"model": f"m {TOKEN}"}, *rows[1:]])
    error = refusal(publish(hub, text, OPENAI_API_KEY=key))
    assert "README.md: holds the value of OPENAI_API_KEY; nothing was sent" in error and key not in error
    assert f"arms/{ARMS[1]}/train, column model: holds the value of HF_TOKEN" in refusal(publish(hub, row))
    assert not hub.state.repos and not hub.asked("POST") and not hub.asked("PUT")


def test_no_key_is_in_any_file_commit_line_or_error(hub: FakeHub, run: Path) -> None:
    key = "sk-planted-4711-0815-abcdefgh"
    hub.fail("POST", "/commit/", status=403, headers={"X-Error-Message": f"token {TOKEN} may not; see http://h/x?sig=secret"})
    failed = publish(hub, run, OPENAI_API_KEY=key)
    assert "the token may not do this (token *** may not; see http://h/x)" in refusal(failed)
    done = publish(hub, run, "tag=v1", "check=true", OPENAI_API_KEY=key, HF_DEBUG="1")
    assert done.returncode == 0
    written = [
        hub.state.every_text(),
        done.stdout,
        done.stderr,
        *(path.read_text("latin-1") for path in run.rglob("*") if path.is_file()),
    ]
    assert not [text for text in written if TOKEN in text or key in text]
