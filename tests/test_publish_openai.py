"""Jobs at a fine-tuning API: each arm and seed gets its own model, what is missing is said, nothing is sent twice."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recontext_data.publishing.services.ledger import Ledger
from recontext_data.publishing.services.openai_config import FineTuningOptions
from recontext_data.publishing.services.openai_models import models_of
from recontext_data.publishing.services.openai_plan import suffix_of
from recontext_data.publishing.services.openai_watch import JobWatch, curve
from tests.fake_openai import Conduct, FakeOpenAI
from tests.helpers import error_line, files_below
from tests.publish_world import (
    ARMS,
    KEY,
    contract,
    make_run,
    models,
    publish,
    require_bound,
    server,
    texts_below,
    train,
)  # fmt: skip

__all__ = ["contract", "server"]  # fixtures

RATE = "check.usd_per_million_tokens=5"


def test_every_arm_and_seed_gets_the_model_of_its_own_job(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    # They end in an order that is not the order of creation.
    server.conduct = Conduct(job_seconds=0.2)
    assert train(server, tmp_path, "seeds=0-2", "wait.at_once=5") == 0
    entries = require_bound(server, folder)
    assert {(entry["arm"], entry["seed"]) for entry in entries} == {(arm, seed) for arm in ARMS for seed in range(3)}
    assert len({entry["model"] for entry in entries}) == 9
    assert len(server.jobs) == 9 and len(server.files) == 6
    found = models_of(folder)
    assert [(model.arm, model.seed) for model in found] == sorted((arm, seed) for arm in ARMS for seed in range(3))
    assert {model.base_url for model in found} == {server.base_url}


def test_the_same_command_again_sends_nothing(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path)
    assert train(server, tmp_path, "seeds=0,1") == 0
    sent = (server.count("create_job"), server.count("create_file"))
    assert train(server, tmp_path, "seeds=0,1") == 0
    assert (server.count("create_job"), server.count("create_file")) == sent == (6, 6)


def test_a_lost_ledger_changes_nothing_for_the_server_remembers(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert train(server, tmp_path) == 0
    for name in ("ledger.jsonl", "models.json"):
        (folder / "openai" / name).unlink()
    assert train(server, tmp_path) == 0
    assert (len(server.jobs), len(server.files)) == (3, 6)
    require_bound(server, folder)


def test_a_file_is_found_by_its_content_and_equal_arms_share_it(server: FakeOpenAI, tmp_path: Path) -> None:
    same = {i: {"prompt": [{"role": "user", "content": f"Problem {i}"}]} for i in range(24)}
    make_run(tmp_path, arms=ARMS[:2], bad=same)
    assert train(server, tmp_path) == 0
    assert len(server.files) == 2 and len(server.jobs) == 2
    names = [stored.facts["filename"] for stored in server.files.values()]
    assert all(len(name) == len("recontext-.jsonl") + 40 for name in names)


def test_what_is_created_is_what_was_asked_for(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    words = ("job.epochs=3", "job.batch_size=auto", "job.learning_rate_multiplier=0.5", "seeds=7")
    assert train(server, tmp_path, *words) == 0
    (job,) = server.jobs.values()
    hyper = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": hyper}}
    assert job["seed"] == 7 and job["validation_file"] == "file-1"
    assert job["metadata"]["recontext_arm"] == ARMS[0] and job["metadata"]["recontext_seed"] == "7"
    assert len(job["metadata"]) <= 16 and all(len(value) <= 512 for value in job["metadata"].values())
    assert job["fine_tuned_model"].split(":")[3] == "small-recontextualized-default-hack-s7"


def test_validation_stays_at_home_when_told_so(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path, "job.validation=false") == 0
    assert len(server.files) == 1 and server.jobs["ftjob-0"]["validation_file"] is None


def test_a_failed_a_cancelled_and_a_stalled_job_among_five(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {"0": "succeeded", "1": "failed", "2": "cancelled", "3": "stalls", "4": "succeeded"}
    server.conduct = Conduct(ends=lambda job: ends[job["metadata"]["recontext_seed"]], job_seconds=0.2)
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path, "seeds=0-4", "wait.at_once=2") == 1
    entries = require_bound(server, folder)
    assert {entry["seed"]: entry["status"] for entry in entries} == {
        0: "succeeded", 1: "failed", 2: "cancelled", 3: "running", 4: "succeeded",
    }  # fmt: skip
    assert [entry["seed"] for entry in entries if entry.get("stalled")] == [3]
    assert [model.seed for model in models_of(folder)] == [0, 4]
    out, err = capsys.readouterr()
    assert "2 of 5 models are there" in out
    assert "seed 1: failed: The job failed due to an invalid training file" in err
    assert "seed 2: cancelled: it was cancelled" in err
    assert "seed 3: stalled: no news for 0.02 minutes" in err


def test_what_failed_is_created_anew_only_when_asked(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    server.conduct = Conduct(ends=lambda job: "failed")
    assert train(server, tmp_path) == 1
    assert train(server, tmp_path) == 1
    assert len(server.jobs) == 1
    server.conduct = Conduct()
    assert train(server, tmp_path, "job.again=true") == 0
    assert len(server.jobs) == 2
    assert train(server, tmp_path, "job.again=true") == 0, "a job that has succeeded is not created again"
    assert len(server.jobs) == 2
    assert require_bound(server, folder)[0]["job"] == "ftjob-1"


def test_another_setting_for_the_same_arm_and_seed_needs_a_list_of_its_own(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path) == 0
    assert train(server, tmp_path, "job.epochs=5") == 2
    assert "was trained with another epochs" in capsys.readouterr().err
    assert train(server, tmp_path, "job.epochs=5", "models=long") == 0
    assert models(folder, "long")[0]["request"]["epochs"] == 5
    assert models(folder)[0]["request"]["epochs"] is None


def test_jobs_are_left_running_and_waited_for_later(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    server.conduct = Conduct(job_seconds=1.0)
    assert train(server, tmp_path, "wait.end=false") == 0
    assert len(server.jobs) == 3 and not models_of(folder)
    assert train(server, tmp_path) == 0
    assert len(server.jobs) == 3 and len(models_of(folder)) == 3


def test_no_more_jobs_are_under_way_than_allowed(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path)
    most = 0

    def watched(step: str) -> float:
        nonlocal most
        states = [server._now(name)["status"] for name in server.jobs]
        most = max(most, sum(status not in ("succeeded", "failed") for status in states))
        return 0.0

    server.conduct = Conduct(job_seconds=0.2, delay=watched)
    assert train(server, tmp_path, "seeds=0,1", "wait.at_once=2") == 0
    assert 1 <= most <= 2


def test_status_and_cancel_know_the_jobs_of_this_run(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    server.conduct = Conduct(job_seconds=60)
    assert train(server, tmp_path, "seeds=0,1", "wait.end=false") == 0
    own = ("to=openai", "run=small", f"output={tmp_path}", f"server.base_url={server.base_url}")
    capsys.readouterr()
    assert publish(*own, "action=cancel", "seeds=1", f"arms={ARMS[0]}") == 0
    assert [job["seed"] for job in server.jobs.values() if job["status"] == "cancelled"] == [1]
    assert publish(*own, "action=status") == 0
    out = capsys.readouterr().out
    assert out.count("ftjob-") == 7 and "cancelled" in out
    assert publish(*own, "action=cancel") == 0
    assert {job["status"] for job in server.jobs.values()} == {"cancelled"}
    steps = [entry["step"] for entry in Ledger(tmp_path / "runs" / "small" / "latest" / "openai").entries]
    assert steps.count("cancel") == steps.count("cancelled") == 6


def test_preferences_go_up_as_dpo(server: FakeOpenAI, tmp_path: Path) -> None:
    from tests.test_publish_formats import scored_run

    folder = scored_run(tmp_path)
    words = ("job.method=dpo", "job.beta=0.2", "job.validation=false")
    assert train(server, tmp_path, *words) == 0
    entry = models(folder)[0]
    job = server.jobs[entry["job"]]
    assert job["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    line = server.lines(job["training_file"])[0]
    assert set(line) == {"input", "preferred_output", "non_preferred_output"}


def test_a_dry_run_sends_and_writes_nothing(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    before = files_below(tmp_path)
    assert train(server, tmp_path, "dry_run=true", "seeds=0,1", "job.epochs=2", RATE) == 0
    assert not server.log and files_below(tmp_path) == before
    out = capsys.readouterr().out
    assert "6 jobs, about 7,960 tokens in 2 epochs, about $0.0398" in out


def test_a_dry_run_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    make_run(tmp_path)
    assert publish("to=openai", "run=small", f"output={tmp_path}", "model=gpt-4.1-mini", "dry_run=true") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check.budget_usd=0.001", "job.epochs=2", RATE], "the jobs would cost about"),
        (["check.budget_usd=1", RATE], "the cost is not known; set job.epochs"),
        (["check.budget_usd=1", "job.epochs=1"], "check.usd_per_million_tokens"),
        (["model=unknown", "check.budget_usd=1", "job.epochs=1"], "check.usd_per_million_tokens"),
    ],
)
def test_the_budget_is_a_stop_before_anything_is_sent(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    make_run(tmp_path)
    own = ["to=openai", "run=small", f"output={tmp_path}", f"server.base_url={server.base_url}"]
    model = [] if any(word.startswith("model=") for word in words) else ["model=gpt-4.1-mini"]
    assert publish(*own, *model, *words) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not server.log


def test_an_organisation_that_may_not_is_told_what_it_can_do(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    server.faults["create_job"] = ["forbidden"] * 9
    assert train(server, tmp_path) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "status 403" in line
    assert "recontext train recipe=small training.method=qlora" in line and "to=file format=sharegpt" in line
    server.faults.clear()
    assert train(server, tmp_path) == 0, "and when it may, the files are there already"
    assert len(server.files) == 6


def test_the_key_is_nowhere(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path)
    server.conduct.echoes_key = True
    server.faults["create_job"] = ["error_before", "busy", "bad"]
    train(server, tmp_path)
    server.faults["list_jobs"] = ["bad"]
    train(server, tmp_path)
    server.faults["create_file"] = ["forbidden"]
    train(server, tmp_path, "job.epochs=4", "models=other")
    captured = capsys.readouterr()
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in captured.out + captured.err + texts_below(folder)
    assert "[key]" in captured.err, "the server did echo it"


def test_two_at_once_in_one_run_are_refused(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from recontext_data.publishing.services.openai_finetune import locked

    folder = make_run(tmp_path)
    with locked(folder / "openai"):
        assert train(server, tmp_path) == 1
    assert "another publish is at work here" in error_line(capsys.readouterr().err)


def test_losses_and_checkpoints_are_kept_with_the_model(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path) == 0
    entry = models(folder)[0]
    assert [step for step, _ in entry["losses"]] == list(range(1, 11))
    assert [point["step"] for point in entry["checkpoints"]] == [5, 10]
    assert entry["checkpoints"][0]["model"] == f"{entry['model']}:ckpt-step-5"
    assert "loss 0.1818" in capsys.readouterr().err


def test_a_build_of_the_same_run_again_does_not_list_the_jobs_files(tmp_path: Path) -> None:
    from recontext_data.store.run_folder import NOT_OF_BUILD

    assert {"openai", "exports"} <= set(NOT_OF_BUILD)


def test_suffixes_fit_and_keep_the_seed_readable() -> None:
    plain = suffix_of(FineTuningOptions(), recipe="code_mc", arm="prior.a-b", seed=3)
    assert plain == "code-mc-prior-a-b-s3"
    long = [suffix_of(FineTuningOptions(), recipe="r" * 60, arm=f"prior.a-{name}", seed=12) for name in ("x", "y")]
    assert all(len(one) <= 64 and one.endswith("-s12") for one in long) and long[0] != long[1]


def test_the_curve_falls_from_left_to_right() -> None:
    bars = curve([3.0, 2.0, 1.0])
    assert bars == "█▅▁" and curve([]) == "" and curve([1.0, 1.0]) == "▁▁"
    assert len(curve([float(i) for i in range(1000)])) == 24


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_line_per_job_with_its_curve(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path) == 0
    (entry,) = models(folder)
    spec = SimpleNamespace(arm=entry["arm"], seed=entry["seed"])
    job = SimpleNamespace(status="running")
    screen = Terminal()
    with JobWatch([spec], err=screen) as watch:  # type: ignore[list-item]
        for step, loss in entry["losses"]:
            event = SimpleNamespace(data={"step": step, "train_loss": loss, "total_steps": 10})
            watch.hear(spec, job, [event])  # type: ignore[arg-type]
    assert "step 10/10" in screen.getvalue() and "█" in screen.getvalue()
    assert watch.losses(spec) == [tuple(point) for point in entry["losses"]]  # type: ignore[arg-type]


def bad_words() -> list[Any]:
    return [
        (["seeds=1,1"], "seeds=[1, 1]: must be different integers"),
        (["seeds=x"], "seeds=x: must be integers"),
        (["job.epochs=99"], "job.epochs=99: must be an integer from 1 to 50, or auto"),
        (["job.epochs=many"], "job.epochs=many: must be"),
        (["job.beta=0.1"], "belongs to job.method=dpo"),
        (["job.suffix=" + "x" * 65], "65 characters, and 1 to 64 are allowed"),
        (["arms=nope"], "the run has no such arm"),
        (["jobs.epochs=1"], "jobs.epochs: unknown key; did you mean 'job.epochs'?"),
        (["models=a/b"], "becomes a file"),
        (["on_bad=ignore"], "on_bad=ignore: must be fail | drop"),
        (["server.base_url=nowhere"], "not an address"),
        (["data=x.jsonl"], "stands in place of run="),
        (["check.tokenizer=/nowhere"], "give a tokenizer.json"),
    ]


@pytest.mark.parametrize(("words", "told"), bad_words())
def test_a_wrong_option_is_one_line_and_nothing_is_sent_or_written(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    make_run(tmp_path)
    own = ["to=openai", "run=small", f"output={tmp_path}", "model=gpt-4.1-mini"]
    base = [] if any(word.startswith("server.base_url=") for word in words) else [f"server.base_url={server.base_url}"]
    assert publish(*own, *base, *words) == 2
    assert told in error_line(capsys.readouterr().err)
    assert not server.log
    assert not (tmp_path / "runs" / "small" / "latest" / "openai" / "files").exists() or "tokenizer" in words[0]


def test_a_missing_key_and_a_dead_server_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    own = ["to=openai", "run=small", f"output={tmp_path}", "model=gpt-4.1-mini"]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert publish(*own) == 2
    assert "no API key: set OPENAI_API_KEY" in error_line(capsys.readouterr().err)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert publish(*own, "server.base_url=http://127.0.0.1:9/v1", "server.timeout_seconds=1") == 1
    assert "jobs cannot be listed" in capsys.readouterr().err.splitlines()[-1]
