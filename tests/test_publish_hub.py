"""Datasets on a Hub: what goes up, what load_dataset gives back, what a second and a changed publication do, and who may."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import hub_world
from tests.fake_hub import FakeHub
from tests.fake_hub_state import Repo
from tests.hub_world import ARMS, REPO, client, publish, published

LOAD = """
import json
from datasets import get_dataset_config_names, load_dataset
found = {{}}
for arm in get_dataset_config_names({repo!r}):
    found[arm] = {{name: rows.to_list() for name, rows in load_dataset({repo!r}, arm).items()}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_world.make_run(tmp_path_factory.mktemp("built"))


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    return hub_world.copy_run(built, tmp_path / "run")


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub", part_bytes=4_000) as server:
        yield server


def files(repo: Repo) -> list[str]:
    return sorted(repo.head.files)


def test_arms_are_configurations_that_load_dataset_gives_back_equal(hub: FakeHub, run: Path) -> None:
    out = published(hub, run, "tag=v1", "check=true", fresh=True)
    repo = hub.repo(REPO)
    assert repo.private and len(repo.commits) == 2 and repo.tags == {"v1": repo.head.oid}
    assert out == f"published  {hub.url}/datasets/{REPO}  revision {repo.head.oid[:12]}  tag v1\n"
    data = [f"data/{arm}/{split}-00000-of-00001.parquet" for arm in ARMS for split in ("train", "validation")]
    texts = [".gitattributes", "README.md", "fingerprints.json", "manifest.json", "recipe.yaml"]
    assert files(repo) == sorted([*data, *texts])
    found = client(hub, LOAD.format(repo=REPO))
    assert found == {arm: {split: hub_world.rows_of(run, arm, split) for split in ("train", "validation")} for arm in ARMS}
    assert repo.head.title == "small: 2 arms"
    assert f"+ {ARMS[0]}: 20 rows in train, 12 rows in validation" in repo.head.description
    card = yaml.safe_load(hub.state.content(REPO, "README.md").decode().split("---\n")[1])
    assert [config["config_name"] for config in card["configs"]] == list(ARMS)
    manifest = json.loads(hub.state.content(REPO, "manifest.json"))
    assert manifest["fingerprint"] == json.loads((run / "manifest.json").read_text())["fingerprint"]
    assert str(run.parent) not in hub.state.every_text() and "/tmp" not in hub.state.content(REPO, "recipe.yaml").decode()


def test_the_same_content_makes_no_second_commit_and_sends_nothing(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    published(hub, run)
    commits, uploads = len(hub.repo(REPO).commits), len(hub.state.uploaded)
    hub.requests.clear()
    # Elsewhere, at another time, from batches of another size: the same rows.
    again = hub_world.copy_run(run, tmp_path / "again")
    rows = hub_world.rows_of(again, ARMS[0], "train")
    hub_world.replace_split(again, ARMS[0], "train", [rows[:1], rows[1:]])
    hub_world.edit_manifest(again, lambda manifest: manifest.update(created="2031", timings_seconds={"sample": 99.0}))
    out = published(hub, again, fresh=True)
    assert out.startswith("unchanged, no commit")
    assert len(hub.repo(REPO).commits) == commits and len(hub.state.uploaded) == uploads
    assert not [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]


def test_rows_that_the_hub_has_in_other_bytes_are_not_sent_again(hub: FakeHub, run: Path) -> None:
    """As after another version of pyarrow wrote them."""
    published(hub, run)
    repo, path = hub.repo(REPO), f"data/{ARMS[0]}/train-00000-of-00001.parquet"
    rewritten = client(
        hub,
        f"""
import hashlib, json, io
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
api, found = HfApi(), io.BytesIO()
path = hf_hub_download({REPO!r}, {path!r}, repo_type="dataset")
pq.write_table(pq.read_table(path), found, compression="gzip")
note = json.loads(open(hf_hub_download({REPO!r}, "fingerprints.json", repo_type="dataset")).read())
note["arms"][{ARMS[0]!r}]["train"]["files"][{path!r}] = hashlib.sha256(found.getvalue()).hexdigest()
text = json.dumps(note, indent=2).encode() + b"\\n"
adds = [CommitOperationAdd({path!r}, found.getvalue()), CommitOperationAdd("fingerprints.json", text)]
print(json.dumps(api.create_commit({REPO!r}, adds, commit_message="other bytes", repo_type="dataset").oid))
""",
    )
    assert published(hub, run, "check=true").startswith("unchanged, no commit")
    assert repo.head.oid == rewritten


def test_a_changed_dataset_is_one_commit_that_says_what_changed(hub: FakeHub, run: Path) -> None:
    published(hub, run, "tag=v1")
    first = hub.repo(REPO).head
    uploads = len(hub.state.uploaded)
    hub_world.rewrite(run, ARMS[1], "train", lambda rows: rows[:-3])
    published(hub, run, "tag=v2", "check=true")
    repo = hub.repo(REPO)
    assert len(repo.commits) == 3 and repo.head.title == "small: 1 arm changed"
    assert (
        f"~ {ARMS[1]}: 17 rows in train, 12 rows in validation; before: 20 in train, 12 in validation" in repo.head.description
    )
    assert f"= {ARMS[0]}: the same rows" in repo.head.description
    assert repo.tags == {"v1": first.oid, "v2": repo.head.oid}
    assert len(hub.state.uploaded) == uploads + 1, "only the changed shard was sent"
    changed = {path for path in repo.head.files if repo.head.files[path] != first.files[path]}
    assert changed == {f"data/{ARMS[1]}/train-00000-of-00001.parquet", "README.md", "fingerprints.json", "manifest.json"}


def test_an_arm_that_is_no_more_goes_with_its_files(hub: FakeHub, run: Path) -> None:
    published(hub, run)
    published(hub, run, f"arms={ARMS[0]}", "check=true")
    repo = hub.repo(REPO)
    assert repo.head.title == "small: 1 arm removed" and not [path for path in files(repo) if ARMS[1] in path]
    assert f"- {ARMS[1]}: removed; it had 20 in train, 12 in validation" in repo.head.description
    assert list(client(hub, LOAD.format(repo=REPO))) == [ARMS[0]]
    published(hub, run)
    assert repo.head.title == "small: 1 arm added" and len(repo.commits) == 4


def test_a_hand_written_file_stays_and_a_deleted_shard_comes_back(hub: FakeHub, run: Path) -> None:
    published(hub, run)
    shard = f"data/{ARMS[0]}/train-00000-of-00001.parquet"
    client(
        hub,
        f"""
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
operations = [CommitOperationAdd("notes.md", b"mine"), CommitOperationDelete({shard!r})]
HfApi().create_commit({REPO!r}, operations, commit_message="by hand", repo_type="dataset")
print("null")
""",
    )
    published(hub, run, "check=true")
    repo = hub.repo(REPO)
    assert "notes.md" in files(repo) and shard in files(repo)
    assert "files: " + shard in repo.head.description and repo.head.title.endswith("rows unchanged")


def test_dry_run_lists_files_and_sizes_and_asks_nothing(hub: FakeHub, run: Path) -> None:
    before = sorted(path for path in run.rglob("*"))
    done = publish(hub, run, "dry_run=true", token=None)
    assert done.returncode == 0 and hub.requests == [] and sorted(path for path in run.rglob("*")) == before
    lines = done.stdout.splitlines()
    assert lines[0].startswith("would publish 8 files, ") and lines[0].endswith(f"in {REPO} (private where it is made)")
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[1:]}
    published(hub, run)
    assert {path: file.size for path, file in hub.repo(REPO).head.files.items() if path != ".gitattributes"} == listed
