"""What a server or the network does at the worst moment: no file twice, no job twice, and the words of the failure."""

from pathlib import Path

import pytest

from recontext_data.publishing.services.ledger import Ledger
from tests.fake_openai import Conduct, FakeOpenAI
from tests.publish_world import ARMS, contract, make_run, models, publish, require_bound, server, train

__all__ = ["contract", "server"]  # fixtures

PARTS = ("server.single_file_mb=0.0005", "server.part_mb=0.001")
"""Files of a few kilobytes go up in parts of one."""


@pytest.mark.parametrize("fault", ["lost", "error_after", "timeout"])
def test_one_job_although_the_answer_to_its_creation_is_lost(server: FakeOpenAI, tmp_path: Path, fault: str) -> None:
    folder = make_run(tmp_path)
    server.conduct = Conduct(hang_seconds=1.5)
    server.faults["create_job"] = [fault] * 4
    assert train(server, tmp_path, "seeds=0,1", "server.timeout_seconds=1", "server.lookup_seconds=3") == 0
    assert len(server.jobs) == server.count("create_job") == 6
    assert len(require_bound(server, folder)) == 6


@pytest.mark.parametrize("fault", ["lost", "error_after"])
def test_one_file_although_the_answer_to_its_upload_is_lost(server: FakeOpenAI, tmp_path: Path, fault: str) -> None:
    make_run(tmp_path)
    server.faults["create_file"] = [fault] * 4
    assert train(server, tmp_path) == 0
    assert len(server.files) == server.count("create_file") == 6


def test_lists_that_lag_behind_are_asked_until_they_have_it(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path)
    server.conduct = Conduct(lag_seconds=1.0)
    server.faults["create_job"], server.faults["create_file"] = ["lost"], ["lost"]
    assert train(server, tmp_path, "server.lookup_seconds=10") == 0
    assert len(server.jobs) == 3 and len(server.files) == 6


def test_what_the_server_never_took_is_sent_again(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    server.faults["create_job"], server.faults["create_file"] = ["error_before", "busy"], ["error_before", "busy"]
    assert train(server, tmp_path, "server.lookup_seconds=0.2") == 0
    assert len(server.jobs) == 1 and len(server.files) == 2
    require_bound(server, folder)


def test_a_server_that_keeps_no_metadata_is_asked_by_files_and_seed(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    server.conduct = Conduct(keeps_metadata=False)
    server.faults["create_job"] = ["lost"] * 3
    assert train(server, tmp_path, "seeds=0,1") == 0
    assert len(server.jobs) == 6
    assert len(require_bound(server, folder)) == 6
    assert train(server, tmp_path, "seeds=0,1") == 0, "and again by the ledger"
    assert len(server.jobs) == 6


def test_a_spent_quota_ends_the_job_and_not_the_others(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path)
    server.faults["create_job"] = ["quota"]
    assert train(server, tmp_path, "wait.at_once=1") == 1
    assert len(models(folder)) == 2 and server.count("create_job") == 3
    assert "not created: " in capsys.readouterr().err
    assert train(server, tmp_path) == 0
    assert len(server.jobs) == 3


def test_a_busy_server_is_waited_for_and_a_stumbling_one_asked_on(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    server.conduct = Conduct(job_seconds=1.0)
    server.faults["retrieve_job"] = ["error_before"] * 3
    server.faults["list_events"] = ["error_before"] * 2
    server.faults["list_checkpoints"] = ["bad"]
    assert train(server, tmp_path) == 0
    (entry,) = require_bound(server, folder)
    assert entry["status"] == "succeeded" and entry["checkpoints"] == []


def test_a_file_that_the_server_still_works_on_is_waited_for(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    server.conduct = Conduct(processing_seconds=1.0)
    assert train(server, tmp_path) == 0
    assert server.count("create_job") == 1 and len(server.jobs) == 1


def test_large_files_go_up_in_parts_and_are_found_like_others(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path, *PARTS) == 0
    assert server.count("create_file") == 0 and server.count("create_upload") == 2
    job = server.jobs[models(folder)[0]["job"]]
    (path,) = (folder / "openai" / "files").glob("*.train.*.jsonl")
    assert server.content(job["training_file"]) == path.read_bytes()
    (folder / "openai" / "ledger.jsonl").unlink()
    assert train(server, tmp_path, *PARTS) == 0
    assert server.count("create_upload") == 2


def test_an_upload_in_parts_goes_on_where_it_was_killed(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1], train=40)
    words = (*PARTS, "job.validation=false", "server.lookup_seconds=0.2")
    server.faults["add_part"] = ["none", "none", "none", *["busy"] * 30]
    assert train(server, tmp_path, *words) == 1
    assert not server.files and not server.jobs
    sent = sum(len(upload["parts"]) for upload in server.uploads.values())
    assert sent == 3
    server.faults.clear()
    assert train(server, tmp_path, *words) == 0
    (upload,) = server.uploads.values()
    assert len(server.files) == 1 and upload["file"] is not None
    num_bytes = next(iter(server.files.values())).facts["bytes"]
    assert len(upload["parts"]) == -(-num_bytes // 1000), "each part once"


@pytest.mark.parametrize("fault", ["lost", "error_after"])
def test_a_completion_whose_answer_is_lost_gives_one_file(server: FakeOpenAI, tmp_path: Path, fault: str) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    server.faults["complete_upload"] = [fault]
    assert train(server, tmp_path, *PARTS) == 0
    assert len(server.files) == 2 and server.count("create_upload") == 2


def test_an_upload_that_the_server_forgot_is_begun_anew(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    server.faults["add_part"] = ["none", *["busy"] * 40]
    words = (*PARTS, "job.validation=false", "server.lookup_seconds=0.2")
    assert train(server, tmp_path, *words) == 1
    server.faults.clear()
    server.uploads["upload-0"]["file"] = {"id": "gone"}
    assert train(server, tmp_path, *words) == 0
    assert len(server.uploads) == 2 and len(server.files) == 1 and len(server.jobs) == 1


def test_a_refused_file_is_told_in_the_servers_words(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    server.faults["create_file"] = ["bad"]
    assert train(server, tmp_path) == 1
    out, err = capsys.readouterr()
    assert "cannot be uploaded: status 400: that will not do" in err and "0 of 1 models are there" in out


def test_a_ledger_whose_last_line_was_cut_is_read_and_written_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("create", key="a")
    ledger.add("created", key="a", job="j")
    with ledger.path.open("ab") as handle:
        handle.write(b'{"time":1,"step":"create","ke')
    again = Ledger(tmp_path)
    assert [entry["step"] for entry in again.entries] == ["create", "created"]
    again.add("create", key="b")
    third = Ledger(tmp_path)
    assert [entry["step"] for entry in third.entries] == ["create", "created", "create"]
    assert third.open_since("create", "created", key="a") is None
    assert third.open_since("create", "created", key="b") is not None
    assert third.last("created", key="a", job="j") is not None and third.last("created", key="b") is None


def test_every_step_is_in_the_ledger_before_and_after(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path, "job.validation=false") == 0
    steps = [entry["step"] for entry in Ledger(folder / "openai").entries]
    assert steps == ["upload", "uploaded", "create", "created", "ended"]


def test_a_damaged_list_of_models_is_one_line(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    (folder / "openai").mkdir()
    (folder / "openai" / "models.json").write_text("{")
    assert train(server, tmp_path) == 1
    assert "models.json: is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert not server.log


def test_two_servers_do_not_share_a_list(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path) == 0
    other = server.base_url.replace("127.0.0.1", "localhost")
    own = ("to=openai", "run=small", f"output={tmp_path}", "model=gpt-4.1-mini", f"server.base_url={other}")
    assert publish(*own) == 2
    assert "keep those of" in capsys.readouterr().err.splitlines()[-1]
