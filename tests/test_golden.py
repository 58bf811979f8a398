"""What users have on disk stays what it is: datasets are built to the byte, old folders are read and nothing is sampled twice.

`tests/golden/datasets.json` and `tests/golden/old_run.tar.xz` were made by a reference commit (`scripts/make_golden.py`,
`scripts/make_golden_run.py`). Everything here goes through the command line, so that it holds however the package is laid out.
"""

import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts import make_golden

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
CASES = make_golden.read_cases()
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "datasets.json").read_text(encoding="utf-8"))


def environment() -> dict[str, str]:
    """In which a child finds this checkout, and a key for a server that is not asked."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "random", "OPENAI_API_KEY": "sk-test-0123456789abcdef"}


# ---- (a) the same datasets


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case, built with the code at hand."""
    return make_golden.build_cases(make_golden.names_of(CASES), folder=tmp_path_factory.mktemp("golden"), env=environment())


def test_every_case_has_a_golden_record() -> None:
    assert list(EXPECTED["cases"]) == make_golden.names_of(CASES)
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} <= set(CASES["shipped"])


@pytest.mark.parametrize("name", make_golden.names_of(CASES))
def test_a_case_builds_to_the_byte(name: str, rebuilt: Mapping[str, Any]) -> None:
    if name in CASES["classifier"]:
        pytest.importorskip("sklearn")
    facts = dict(rebuilt[name])
    error = facts.pop("error", "")
    if name in CASES["sandbox"] and "bubblewrap" in error:
        pytest.skip(error)
    differences = list(differing(EXPECTED["cases"][name], facts))
    assert not differences, f"case {name} ({' '.join(make_golden.command_of(name, CASES))}):\n" + "\n".join(
        [*differences, error]
    )


def differing(expected: Mapping[str, Any], found: Mapping[str, Any], *, where: str = "") -> Iterator[str]:
    """One line for each fact that differs, by its path. Bytes are compared where the libraries are those of the record."""
    compares_bytes = EXPECTED["versions"] == make_golden.versions()
    for key in dict.fromkeys([*expected, *found]):
        path = f"{where} / {key}" if where else key
        old, new = expected.get(key), found.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differing(old, new, where=path)
        elif old != new and (compares_bytes or not where.endswith(".arrow") or key != "sha256"):
            yield f"  {path}: {'missing' if new is None else new}, and was {'not there' if old is None else old}"


# ---- (b) an old folder: nothing is sampled twice


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the reference commit left it; never written to."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(GOLDEN / "old_run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "old_run"


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(unpacked, tmp_path / "old", symlinks=True)


def results(folder: Path, *commands: Sequence[str], code: int = 0) -> list[dict[str, Any]]:
    """The last JSON object that each command writes to stdout; all must end with that exit code."""
    found = []
    given = [[*command, "output=.", "screen=json"] for command in commands]
    for command, answer in zip(given, make_golden.run_commands(given, folder=folder, env=environment()), strict=True):
        assert answer["code"] == code, f"{command}: exit code {answer['code']}\n{answer['err']}"
        lines = answer["out" if code == 0 else "err"].splitlines()
        found.append(json.loads(lines[-1]))
    return found


def requests(result: Mapping[str, Any]) -> dict[str, int]:
    return {key: result["requests"][key] for key in ("wanted", "found", "sampled")}


def newest(folder: Path, recipe: str) -> Path:
    return (folder / "runs" / recipe / "latest").resolve()


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every Arrow file and the content of every table below a folder."""
    tables = {path: make_golden.content_of(path).encode() for path in folder.glob("*.parquet")}
    arrows = {path: path.read_bytes() for path in folder.rglob("*.arrow")}
    return {path.relative_to(folder).as_posix(): value for path, value in (tables | arrows).items()}


@pytest.mark.parametrize("name", ["fake", "tiny"])
def test_a_finished_run_is_found_and_left_as_it_is(old: Path, name: str) -> None:
    shutil.rmtree(old / "calibrations")  # which was measured later, and would be shown on a new page
    manifest = newest(old, name) / "manifest.json"
    before = json.loads(manifest.read_text(encoding="utf-8"))
    (result,) = results(old, ["build", f"recipe=./{name}.yaml"])
    after = json.loads(manifest.read_text(encoding="utf-8"))
    assert (result["folder"], after["created"]) == (f"runs/{name}/{newest(old, name).name}", before["created"])


@pytest.mark.parametrize("name", ["fake", "tiny"])
def test_a_run_that_is_gone_is_built_again_from_its_replies(old: Path, unpacked: Path, name: str) -> None:
    run = newest(old, name)
    before = content(run)
    shutil.rmtree(old / "runs")
    (result,) = results(old, ["build", f"recipe=./{name}.yaml"])
    assert newest(old, name).name == run.name
    assert requests(result) == {"wanted": result["requests"]["wanted"], "found": result["requests"]["wanted"], "sampled": 0}
    assert content(newest(old, name)) == before


def test_a_killed_build_asks_for_exactly_what_is_missing(old: Path) -> None:
    (journal,) = (old / "replies").glob("*.jsonl")
    held = sum(len(json.loads(line)["replies"]) for line in journal.read_text(encoding="utf-8").splitlines())
    first, again = results(old, ["build", "recipe=./half.yaml"], ["build", "recipe=./half.yaml", "limits.max_failure_rate=1"])
    assert 0 < held < 12 and requests(first) == {"wanted": 12, "found": held, "sampled": 12 - held}
    assert again["fingerprint"] == first["fingerprint"]


@pytest.mark.parametrize(("name", "n", "pool"), [("fake", 4, 6), ("tiny", 2, 6)])
def test_a_larger_n_asks_for_the_further_ranks_alone(old: Path, name: str, n: int, pool: int) -> None:
    (before,) = results(old, ["build", f"recipe=./{name}.yaml"])
    wanted = before["requests"]["wanted"]
    (result,) = results(old, ["build", f"recipe=./{name}.yaml", f"sampler.n={n + 2}"])
    assert requests(result) == {"wanted": wanted + 2 * pool, "found": wanted, "sampled": 2 * pool}


# ---- (c) every file is read by the verb that reads it


def test_status_and_replies_count_what_is_there(old: Path) -> None:
    status, count, check = results(old, ["status"], ["replies"], ["replies", "check"])
    runs = {(run["recipe"], run["fingerprint"]): run for run in status["runs"]}
    states = {recipe: {run["state"] for (name, _), run in runs.items() if name == recipe} for recipe, _ in runs}
    assert states.pop("half") == {"unfinished"} and set().union(*states.values()) == {"done"}
    tiny = runs["tiny", newest(old, "tiny").name]
    assert (tiny["models"], tiny["is_evaluated"], tiny["rows"], tiny["sampled"]) == (1, True, 12, 12)
    assert runs["fake", newest(old, "fake").name]["rows"] == 48
    (store,) = status["stores"]
    assert (store["journals"], store["set_aside"]) == (1, [])
    assert store["replies"] == count["replies"] == check["replies"] and check["damaged"] == 0


def test_a_finished_training_evaluation_iteration_and_sweep_are_found(old: Path) -> None:
    """No model is trained and no reply is sampled."""
    pytest.importorskip("peft")
    run, before = newest(old, "tiny"), replies(old)
    record = next(run.glob("models/*/seed-0/training.json"))
    marks = {path: path.read_bytes() for path in [record, *old.glob("runs/tiny/rounds/*/rounds.json")]}
    outcomes = make_golden.content_of(run / "evaluation" / "outcomes.parquet")
    sweep = "over={sampler.temperature: [0.7, 1.0]}"
    answers = make_golden.run_commands(
        [
            ["train", "recipe=./tiny.yaml", "output=."],
            ["evaluate", "recipe=./tiny.yaml", "output=.", "screen=json"],
            ["iterate", "recipe=./tiny.yaml", "output=.", "rounds=2"],
            ["sweep", "recipe=./tiny.yaml", "output=.", sweep],
        ],
        folder=old,
        env=environment(),
    )
    assert [answer["code"] for answer in answers] == [0, 0, 0, 0], [answer["err"] for answer in answers]
    assert {path: path.read_bytes() for path in marks} == marks and replies(old) == before
    assert make_golden.content_of(run / "evaluation" / "outcomes.parquet") == outcomes
    assert "rounds are there already" in answers[2]["err"] + answers[2]["out"]
    measured = json.loads(answers[1]["out"].splitlines()[-1])
    assert [model["name"] for model in measured["models"]] == ["before", "recontextualized.default-hack/seed-0"]


def test_rounds_whose_record_is_gone_are_found_by_their_runs_and_models(old: Path) -> None:
    pytest.importorskip("peft")
    (mark,) = old.glob("runs/tiny/rounds/*/rounds.json")
    known, before = json.loads(mark.read_text(encoding="utf-8")), replies(old)
    mark.unlink()
    (answer,) = make_golden.run_commands(
        [["iterate", "recipe=./tiny.yaml", "output=.", "rounds=2"]], folder=old, env=environment()
    )
    assert answer["code"] == 0, answer["err"]
    assert json.loads(mark.read_text(encoding="utf-8")) == known | {"created": json.loads(mark.read_text())["created"]}
    assert replies(old) == before


def replies(folder: Path) -> int:
    """How many the store has."""
    (count,) = results(folder, ["replies"])
    return int(count["replies"])


def test_a_model_whose_weights_are_gone_is_named(old: Path) -> None:
    (said,) = results(old, ["evaluate", "recipe=./tiny.yaml", "models=whole"], code=2)
    assert "whole/recontextualized.default-hack/seed-0" in said["text"] and "model.safetensors" in said["text"]


def test_a_calibration_is_found_by_the_judge_that_it_is_about(old: Path) -> None:
    shutil.rmtree(old / "runs" / "fake")
    (result,) = results(old, ["build", "recipe=./fake.yaml"])
    ((known,),) = (judge["calibrations"] for judge in result["judging"])
    (path,) = (old / "calibrations").glob("*.json")
    assert known == json.loads(path.read_text(encoding="utf-8"))
    results(old, ["calibrate", "judge=choice", "recipe=./fake.yaml", "labels=labels.jsonl"])
    again = json.loads(path.read_text(encoding="utf-8"))
    assert [*(old / "calibrations").glob("*.json")] == [path]
    assert {key for key in known if known[key] != again.get(key)} <= {"created"}


def test_labels_that_people_gave_are_read(old: Path) -> None:
    import pyarrow.parquet as pq

    lines = (old / "runs" / "fake" / "labels" / "ann.jsonl").read_text(encoding="utf-8").splitlines()
    said = {event["candidate_id"]: event["value"] for event in map(json.loads, lines) if event["question"] == "behaviour"}
    judges = "judges=[{kind: choice}, {kind: human, file: runs/fake/labels, names: {not_hack: general}}]"
    (result,) = results(old, ["build", "recipe=./fake.yaml", judges, "select.judge=choice", "measure.contexts=[]"])
    ids = pq.read_table(newest(old, "fake") / "candidates.parquet").column("candidate_id").to_pylist()
    labels = ["hack" if said[one] == "hack" else "general" for one in ids if one in said]
    (found,) = (rate["counts"] for rate in result["rates"] if rate["judge"] == "human")
    assert labels and +Counter(found) == Counter(labels) and requests(result)["sampled"] == 0


def test_the_list_of_fine_tuned_models_is_read(old: Path) -> None:
    path = newest(old, "fake") / "openai" / "models.json"
    server = json.loads(path.read_text(encoding="utf-8"))["base_url"]
    train = ["publish", "to=openai", "run=fake", "model=gpt-4.1-mini", "seeds=0,1", "job.epochs=1"]
    results(old, [*train, f"server.base_url={server}", "dry_run=true"])
    (said,) = results(old, [*train, "server.base_url=http://127.0.0.1:9/v1"], code=2)
    assert server in said["text"], "models of another server are not kept apart"


def test_exports_of_an_old_run_are_the_same_files(old: Path) -> None:
    exports = newest(old, "fake") / "exports" / "openai"
    before = {path.name: path.read_bytes() for path in exports.iterdir()}
    shutil.rmtree(exports)
    results(old, ["publish", "to=file", "format=openai", "run=fake"])
    assert len(before) == 4 and {path.name: path.read_bytes() for path in exports.iterdir()} == before
