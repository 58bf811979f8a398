"""`recontext status`: what is here, read off the files; writes nothing, waits for nobody."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recontext_data.core.errors import RecipeError
from recontext_data.reports.status import lines, runs_table, show_status, spent, stores_line
from recontext_data.status import main
from recontext_data.store.overview import is_held, overview
from tests.helpers import environment

BUILD = ["recipe=code_mc", "environment.tasks=4", "sampler.n=1", "measure.contexts=[]"]
QUICK = "policy={kind: fake, replies: [sure]}"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recontext_data.build import main as build

    folder = tmp_path_factory.mktemp("output")
    for tasks in (4, 5):
        words = [BUILD[0], *BUILD[2:], QUICK, f"environment.tasks={tasks}", f"output={folder}", "screen=quiet"]
        assert build(words) == 0
    return folder


def test_runs_with_their_numbers(output: Path) -> None:
    runs = overview(output)["runs"]
    assert sorted((run["tasks"], run["rows"], run["sampled"], run["failed"]) for run in runs) == [(4, 8, 4, 0), (5, 10, 5, 0)]
    assert [run["is_latest"] for run in sorted(runs, key=lambda run: run["tasks"])] == [False, True]
    assert {run["state"] for run in runs} == {"done"} and {run["cost_usd"] for run in runs} == {None}


def test_the_table_says_what_a_person_asks(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"output={output}"]) == 0
    said = capsys.readouterr().out
    assert "code_mc/" in said and "built" in said and "5 replies" in said and "* the newest of its recipe" in said
    assert max(len(line) for line in said.splitlines() if "/replies" not in line) <= 80


def test_json_is_the_same_facts(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"output={output}", "screen=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("result") == "status"
    assert found == json.loads(json.dumps(overview(output)))


def test_labels_and_previews_beside_the_runs_are_no_runs(output: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(output, copy, symlinks=True)
    (copy / "runs" / "code_mc" / "labels").mkdir()
    (copy / "runs" / "code_mc" / "preview.html").write_text("")
    assert len(overview(copy)["runs"]) == 2


def test_an_empty_folder_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(tmp_path)
    assert "no runs in" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_one_recipe_alone(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(output, recipe="code_mc")
    with pytest.raises(RecipeError, match="recipe=code_m: no run of this recipe is here; did you mean 'code_mc'"):
        show_status(output, recipe="code_m")


def test_a_wrong_option_and_a_missing_folder_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outptu=x"]) == 2
    assert capsys.readouterr().err == "error: outptu: unknown key; did you mean 'output'?\n"
    assert main([f"output={tmp_path / 'nothing'}"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_nothing_is_written(output: Path) -> None:
    def listing() -> dict[str, int]:
        return {str(path): path.stat().st_size for path in output.rglob("*") if path.name != ".lock"}

    before = listing()
    show_status(output)
    assert listing() == before


def test_a_build_under_way_is_seen_and_a_killed_one_is_unfinished(tmp_path: Path) -> None:
    slow = "policy={kind: fake, replies: [sure], delay_seconds: 0.5}"
    command = [sys.executable, "-m", "recontext_data", "build", BUILD[0], "environment.tasks=200", slow]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not [run for run in overview(tmp_path)["runs"] if run["state"] == "building"]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        facts = overview(tmp_path)
        assert facts["runs"][0]["rows"] is None and facts["runs"][0]["failed"] is None
        assert any("a build is under way" in line for line in lines(facts))
        while not (store := overview(tmp_path)["stores"]) or not store[0]["writers"]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        assert "1 journal open, 1 in use" in stores_line(overview(tmp_path)["stores"][0])
    finally:
        process.kill()
        process.wait()
    after = overview(tmp_path)
    assert [run["state"] for run in after["runs"]] == ["unfinished"]
    assert any("the same build command continues it" in line for line in lines(after))


def test_a_damaged_manifest_is_said_and_hides_no_other_run(output: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(output, copy, symlinks=True)
    broken = sorted((copy / "runs" / "code_mc").glob("*/manifest.json"))[0]
    broken.write_text("{")
    facts = overview(copy)
    assert sorted(run["state"] for run in facts["runs"]) == ["damaged", "done"]
    assert any(line.startswith("✗ ") and "is damaged" in line for line in lines(facts))


def test_a_run_whose_files_are_gone_is_unfinished(output: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(output, copy, symlinks=True)
    next((copy / "runs" / "code_mc" / "latest").resolve().glob("candidates.parquet")).unlink()
    assert sorted(run["state"] for run in overview(copy)["runs"]) == ["done", "unfinished"]


def test_spend_counts_judges_and_is_a_dash_where_nothing_is_known() -> None:
    assert spent({"cost_usd": 1.25, "judging_usd": 0.5}) == "$1.75"
    assert spent({"cost_usd": None, "judging_usd": 0.5}) == "$0.5000"
    assert spent({"cost_usd": None, "judging_usd": None}) == "–"


def test_models_and_evaluations_count_as_state(output: Path) -> None:
    run = overview(output)["runs"][0]
    states = [
        runs_table([run | changes])[1][0][-1]
        for changes in ({}, {"models": 3}, {"models": 3, "is_evaluated": True}, {"state": "unfinished", "models": 3})
    ]
    assert states == ["built", "3 models", "evaluated", "unfinished"]


def test_a_lock_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert is_held(tmp_path / ".lock") is False
    assert list(tmp_path.iterdir()) == []
