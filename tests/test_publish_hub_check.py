"""What must be found out: other rows than were sent, keys in what goes up or is shown, and Xet where it is not spoken."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import hub_world
from tests.fake_hub import TOKEN, FakeHub
from tests.hub_world import ARMS, REPO, publish, published, refusal

SHARD = f"data/{ARMS[0]}/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_world.make_run(tmp_path_factory.mktemp("built"))


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub") as server:
        yield server


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


def test_xet_is_off_on_another_hub_unless_the_user_says_otherwise(hub: FakeHub, run: Path) -> None:
    error = refusal(publish(hub, run, HF_HUB_DISABLE_XET="0"), code=1)
    assert "the upload failed" in error and hub.asked("xet-write-token")
    hub.requests.clear()
    published(hub, run)
    assert not hub.asked("xet") and len(hub.state.uploaded) == 4
