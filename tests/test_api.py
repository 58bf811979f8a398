"""The library as somebody uses it from Python: load, preview, build, read the tables; inside an event loop as well."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import recontext_data as rc
from recontext_data.core.event_loop import apart
from tests.helpers import recipe_tree, write_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_recipe(folder)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> rc.Run:
    return rc.load(place / "small.yaml", {"sampler.n": 3}).build(output=place / "out")


def test_a_recipe_is_loaded_by_name_path_dict_and_object(place: Path) -> None:
    by_name = rc.load("code_mc", {"sampler.n": 6})
    assert by_name.name == "code_mc" and by_name.recipe.sampler.n == 6
    assert rc.load("code_mc", ["sampler.n=6"]).recipe == by_name.recipe == rc.load(by_name.recipe).recipe
    assert by_name.origins["sampler.n"] == "overrides" and by_name.origins["policy.kind"] == "code_mc.yaml"
    assert rc.load(place / "small.yaml").name == "small"
    tree = recipe_tree()
    assert rc.load(tree, {"arms": ["control -> hack"]}, name="mine").name == "mine"
    assert tree == recipe_tree()  # the caller's dict is left as it was


@pytest.mark.parametrize(
    ("source", "overrides", "said"),
    [
        ("code_mcc", {}, "recipe=code_mcc: no recipe has that name; did you mean"),
        ("code_mc", {"sampler.m": 6}, "sampler.m"),
        ("code_mc", {"sampler.n": "six"}, "sampler.n"),
        ({"extends": "code_mc"}, {}, "extends: belongs into a file"),
        ({}, {}, "environment"),
    ],
)
def test_a_wrong_recipe_is_the_exception_of_the_command_line(source: Any, overrides: Any, said: str) -> None:
    with pytest.raises(rc.RecipeError) as raised:
        rc.load(source, overrides)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_preview_renders_every_context_and_writes_nothing(place: Path) -> None:
    found = rc.load(place / "small.yaml").preview(output=place / "nowhere", examples=1)
    assert {context["name"] for context in found.prompts["contexts"]} == {"control", "default", "hack"}
    assert sum(pool["to_sample"] for pool in found.plan["pools"]) == 32
    assert "<html" in found.html and found._repr_html_().startswith("<iframe") and not (place / "nowhere").exists()


def test_a_run_has_its_tables_arms_and_rates(run: rc.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.candidates().collect().height == run.judgements().collect().height == 24
    assert [arm.name for arm in run.arms] == ["recontextualized.default-hack", "standard.default-default"]
    arm = run.arm("default -> hack")
    assert arm is run.arm(arm.name) and arm.kind == "recontextualized" and (arm.path / "README.md").is_file()
    data = arm.dataset()
    assert {split: len(rows) for split, rows in data.items()} == arm.rows
    assert run.report.is_file() and run.manifest["fingerprint"] == run.fingerprint
    rates = run.rates()
    assert rates.columns == ["context", "role", "judge", "label", "count", "total", "rate", "low", "high"]
    assert rates["count"].sum() == 24 and set(rates["total"]) == {24}
    for share, low, high in rates.select("rate", "low", "high").iter_rows():
        assert low <= share <= high
    assert "default -> hack" in repr(run) and "<table" in run._repr_html_()
    assert run.tasks().collect().height == 8 and run.selection().collect().height and run.violations().collect() is not None
    with pytest.raises(rc.RecipeError, match="arms=default -> hak: the run has no such arm; did you mean"):
        run.arm("default -> hak")


def test_a_run_is_opened_by_folder_and_by_name(run: rc.Run, place: Path) -> None:
    assert rc.open_run(run.path).fingerprint == run.fingerprint == rc.open_run("small", output=place / "out").fingerprint
    with pytest.raises(rc.RecipeError, match="there is no run of that name"):
        rc.open_run("smal", output=place / "out")


def test_results_are_returned_and_progress_goes_to_standard_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = rc.load(place / "small.yaml")
    loaded.build(output=place / "loud")
    out, err = capsys.readouterr()
    assert out == "" and "sample" in err
    loaded.build(output=place / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_build_works_inside_a_running_event_loop(place: Path) -> None:
    async def notebook() -> rc.Run:
        assert asyncio.get_running_loop() is not None
        return rc.load(place / "small.yaml").build(output=place / "loop", progress=False)

    assert asyncio.run(notebook()).candidates().collect().height == 32


def test_an_error_inside_a_running_event_loop_is_the_same_exception(place: Path) -> None:
    async def notebook() -> None:
        rc.load(place / "small.yaml", {"limits.max_invalid_rate": 0.0}).build(output=place / "stopped", progress=False)

    with pytest.raises(rc.BuildStopped, match=r"limits\.max_invalid_rate"):
        asyncio.run(notebook())


def test_an_interrupt_reaches_the_job_that_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    started, seen = threading.Event(), list[str]()

    def job() -> None:
        started.set()
        try:
            while True:
                pass
        except KeyboardInterrupt:
            seen.append(threading.current_thread().name)
            raise

    joined = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "recontext" and not seen and not monkeypatched:
            started.wait()
            monkeypatched.append(True)
            raise KeyboardInterrupt
        joined(thread, timeout)

    monkeypatched: list[bool] = []
    monkeypatch.setattr(threading.Thread, "join", interrupted)

    async def notebook() -> None:
        apart(job)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(notebook())
    assert seen == ["recontext"]


def test_names_are_completed_by_tab() -> None:
    assert set(rc.__all__) <= set(dir(rc)) and {"load", "open_run", "recontextualize", "Context"} <= set(rc.__all__)
