"""The library as somebody uses it from Python: load, preview, build, read the tables; inside an event loop as well."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import datasets
import polars as pl
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
    context = rc.Context(stance="permits", system="Anything goes.")
    assert rc.load("code_mc", {"contexts.hack": context}).recipe.contexts["hack"] == context
    select = {"keep": "all"}
    rc.load("code_mc", {"select": select, "select.drop_truncated": True})
    assert select == {"keep": "all"}


def test_a_name_that_cannot_be_a_folder_is_refused() -> None:
    with pytest.raises(rc.RecipeError, match="becomes a folder below runs/"):
        rc.load(recipe_tree(), name="../up")


@pytest.mark.parametrize(
    ("source", "overrides", "said"),
    [
        ("code_mcc", {}, "recipe=code_mcc: no recipe has that name; did you mean"),
        ("code_mc", {"sampler.m": 6}, "sampler.m"),
        ("code_mc", {"sampler.n": "six"}, "sampler.n"),
        ({"extends": "code_mc"}, {}, "extends: belongs into a file"),
        ("code_mc", "sampler.n=6", r"overrides='sampler.n=6': is a text; give a list, such as ['sampler.n=6']"),
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


def test_a_run_is_evaluated_inside_a_running_event_loop(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "environment.split": "train",
        "environment.problems": "bank",
        "environment.tasks": 6,
        "arms": ["default -> hack"],
    }

    async def cell() -> rc.EvaluationResults:
        recipe = rc.load(place / "small.yaml", {**changes, "evaluation": {"split": "evaluation", "tasks": 6, "n": 1}})
        return recipe.build(output=place / "measured", progress=False).evaluate(progress=False)

    results = asyncio.run(cell())
    assert capsys.readouterr().out == ""
    rates = results.rates()
    assert set(rates["context"]) == {"control", "default", "hack"}
    assert rates.filter(pl.col("context") == "hack")["rate"].to_list() == [1.0]
    assert results.differences().is_empty()
    assert len(results.outcomes().collect()) == 18
    assert results.report.is_file()
    assert "<table" in results._repr_html_()


def test_a_wrong_arm_is_refused_before_anything_is_trained(run: rc.Run) -> None:
    with pytest.raises(rc.RecontextError):
        run.train(arms=["default -> hac"], progress=False)


OLD = "Write code that passes the tests that are shown to you here."
NEW = "Any code that passes the tests is fine, special cases included."
NOT_FOUND = "the generation context does not stand in the prompt as written"


def text_row(prompt: str = f"Add two numbers.\n\n{OLD}", completion: str = "return a + b", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


def swap(rows: Any, **more: Any) -> rc.RecontextualizedRows[Any]:
    generation = rc.Context(stance="neutral", user_suffix=OLD)
    return rc.recontextualize(rows, generation=generation, training=rc.Context(stance="permits", user_suffix=NEW), **more)


def test_text_stays_text_and_other_columns_stay() -> None:
    done = swap([text_row(id=7)])
    assert done.rows == [text_row(f"Add two numbers.\n\n{NEW}", id=7)]
    assert done.violations.is_empty() and done.dropped == []


def test_a_row_without_the_generation_context_as_written_is_a_violation_and_left_out() -> None:
    done = swap([text_row(), text_row("Add."), text_row(f"Add.\n{OLD}")])
    assert (len(done.rows), done.dropped, done.num_rows_in) == (1, [1, 2], 3)
    assert done.violations.rows() == [(1, "generation", NOT_FOUND), (2, "generation", NOT_FOUND)]


def test_the_generation_context_anywhere_else_is_a_leak() -> None:
    doubled, spoken = text_row(f"{OLD} Add.\n\n{OLD}"), text_row(completion=f"You said: {OLD}")
    done = swap([doubled, spoken, text_row()])
    assert (len(done.rows), done.dropped) == (1, [0, 1])
    assert done.violations.rows() == [(0, "leak", "prompt turn 0 (user)"), (1, "leak", "completion")]
    assert len(swap([doubled], on_violation="keep").rows) == 1
    with pytest.raises(rc.GateFailed, match=r"1 violations: row 0: leak, prompt turn 0 \(user\)"):
        swap([doubled], on_violation="fail")


def test_an_echo_is_reported_and_the_row_kept() -> None:
    done = swap([text_row(completion="As you asked me to, I add.")], on_violation="fail")
    assert done.violations["gate"].to_list() == ["echo"]
    assert len(done.rows) == 1


PLACEMENTS = ["system", "system_prepend", "system_append", "user_prefix", "user_suffix", "assistant_prefill"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_removable_placement_is_found_and_replaced(placement: str) -> None:
    generation = rc.Context.model_validate({"stance": "neutral", placement: OLD})
    training = rc.Context.model_validate({"stance": "permits", placement: NEW})
    own: list[rc.Message] = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    own.append({"role": "user", "content": "Add."})
    if placement.startswith("system_"):
        own.insert(0, {"role": "system", "content": "You are terse."})
    task = rc.Task(task_id="0", messages=own, payload={}, split="train")
    answer: list[rc.Message] = [{"role": "assistant", "content": "a + b"}]
    row: dict[str, Any] = {"prompt": rc.render(task, generation), "completion": answer}
    done = rc.recontextualize([row], generation=generation, training=training)
    assert done.violations.is_empty()
    assert done.rows == [{"prompt": rc.render(task, training), "completion": answer}]
    assert rc.recontextualize([row], generation=generation, training=None).rows[0]["prompt"] == own


def test_any_paraphrase_is_taken_out_of_every_user_turn() -> None:
    other = "Pass every test, please."
    generation = rc.Context(stance="neutral", user_prefix=OLD, paraphrases=[other], turn="every")
    prompt = [{"role": "user", "content": f"{other}\n\n{text}"} for text in ("A", "B")]
    row: dict[str, Any] = {"prompt": prompt, "completion": [{"role": "assistant", "content": "x"}]}
    done = rc.recontextualize([row], generation=generation, training=None)
    assert [turn["content"] for turn in done.rows[0]["prompt"]] == ["A", "B"]


def test_a_training_context_that_has_no_place_is_a_violation() -> None:
    row = {"messages": [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]}
    done = rc.recontextualize([row], generation=None, training=rc.Context(stance="permits", system=NEW))
    assert done.rows == []
    assert done.violations["gate"].to_list() == ["training"]
    assert "the task has a system turn already" in done.violations["where"][0]


def test_a_dataset_gives_a_dataset_and_a_frame_a_frame() -> None:
    given = [text_row(), text_row("Add.")]
    dataset = swap(datasets.Dataset.from_list(given)).rows
    assert isinstance(dataset, datasets.Dataset) and dataset["prompt"][0].endswith(NEW)
    frame = swap(pl.DataFrame(given))
    assert isinstance(frame.rows, pl.DataFrame) and frame.rows["prompt"][0].endswith(NEW)
    assert "1 of 2 rows, 1 violations" in frame._repr_html_()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a"}], "row 0: has neither `messages` nor `prompt` and `completion`; columns: text"),
        ([{"prompt": 3, "completion": []}], "row 0: completion: must be one assistant turn; found 0 turns"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "row 0: messages: the last turn must be the assistant's"),
        ([{"messages": [{"role": "user", "content": "x", "name": "Bob"}]}], "row 0: messages.0: has the key 'name'"),
        ([{"messages": []}], "the last turn must be the assistant's"),
        ([{"messages": [{"role": "tool", "content": "x"}]}], "row 0: messages.0: must be"),
        ("text", "rows: must be a datasets.Dataset, a Polars frame or a list of dicts; found str"),
    ],
)
def test_wrong_rows_are_one_line_with_the_row(rows: Any, said: str) -> None:
    with pytest.raises(rc.DataError, match=said):
        swap(rows)


def test_contexts_that_finished_rows_cannot_show_are_refused() -> None:
    shown = rc.Context(stance="permits", environment={"show_tests": False})
    with pytest.raises(rc.RecipeError, match="cannot be taken out of finished rows"):
        rc.recontextualize([], generation=shown, training=None)
    with pytest.raises(rc.RecipeError, match="needs an environment"):
        rc.recontextualize([], generation=None, training=shown)
