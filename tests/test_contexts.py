"""Contexts: text that is data, placements that undo exactly, tasks that are never touched."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from recontext_data.contexts.context import TEXT_PLACEMENTS, Context, Placement, render
from recontext_data.contexts.placement import SEPARATOR
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message, NamedSpan
from tests.helpers import (
    CONTEXTS,
    build,
    built,
    error_line,
    files_below,
    problem_rows,
    run_folder,
    task_of,
    write_problems,
    write_recipe,
)

AWKWARD = (
    "“Curly” ‘quotes’ — 🧪👩‍💻 {braces} {{ jinja }} {% if x %} %s %(a)d "
    "$HOME \\n <b>&amp;</b> é e\u0301 \u200b\u2028 \x07 [red]x[/red]\n\n  "
)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda text: bool(text.strip()))
BODIES = st.text(st.characters(codec="utf-8"), max_size=40)


@st.composite
def conversations(draw: st.DrawFn, *, system: bool) -> list[Message]:
    turns: list[Message] = [{"role": "system", "content": draw(BODIES)}] if system else []
    for index in range(draw(st.integers(min_value=1, max_value=3))):
        if index:
            turns.append({"role": "assistant", "content": draw(BODIES)})
        turns.append({"role": "user", "content": draw(BODIES)})
    return turns


def context(placement: str, text: str, turn: str = "last") -> Context:
    value = {"note": text} if placement == "field" else text
    return Context.model_validate({"stance": "neutral", placement: value, "turn": turn, "allow_position_words": True})


def strip(rendered: list[Message], original: Context, task: list[Message]) -> list[Message]:
    """Takes the context out again, by length alone: what is left must be the task byte for byte."""
    turns: list[dict[str, Any]] = [{**turn} for turn in rendered]
    text, size = original.text, len(original.text) + len(SEPARATOR)
    if original.placement == "system":
        assert turns.pop(0) == {"role": "system", "content": text}
    elif original.placement == "system_replace":
        (index,) = [i for i, turn in enumerate(turns) if turn["role"] == "system"]
        assert turns[index]["content"] == text
        turns[index]["content"] = next(turn["content"] for turn in task if turn["role"] == "system")
    elif original.placement == "assistant_prefill":
        assert turns.pop() == {"role": "assistant", "content": text}
    elif original.placement == "field":
        body, at = turns[0]["content"], len(turns[0]["content"]) - len(task[0]["content"]) - len(text) - 2
        assert at == 0 and body[1 : 3 + len(text)] == f"[{text}]"
        turns[0]["content"] = body[:1] + body[3 + len(text) :]
    else:
        for index in placed_at(original, task):
            body = turns[index]["content"]
            before = original.placement in ("system_prepend", "user_prefix")
            assert (body[:size] == text + SEPARATOR) if before else (body[-size:] == SEPARATOR + text)
            turns[index]["content"] = body[size:] if before else body[:-size]
    return [Message(role=turn["role"], content=turn["content"]) for turn in turns]


def placed_at(original: Context, task: list[Message]) -> list[int]:
    role = "system" if original.placement.startswith("system") else "user"
    places = [i for i, turn in enumerate(task) if turn["role"] == role]
    return {"first": places[:1], "last": places[-1:], "every": places}[original.turn]


@given(st.data(), st.sampled_from(TEXT_PLACEMENTS), TEXTS, st.sampled_from(["first", "last", "every"]))
def test_stripping_the_context_gives_back_the_task(data: st.DataObject, placement: Placement, text: str, turn: str) -> None:
    task = data.draw(conversations(system=placement.startswith("system_")))
    if placement == "field":
        task[0]["content"] = "." + task[0]["content"]
    before, original = copy.deepcopy(task), context(placement, text, turn)
    assume(placement != "system_replace" or task[0]["content"] != text)  # which would change nothing
    whole = replace(task_of(task), places={"note": NamedSpan(turn=0, start=1, stop=1, before="[", after="]")})
    rendered = render(whole, original)
    assert task == before
    assert render(whole, original) == rendered
    assert not any(new is old for new in rendered for old in task)
    assert strip(rendered, original, task) == task


@given(st.booleans(), st.data())
def test_the_bare_task_is_itself(system: bool, data: st.DataObject) -> None:
    task = data.draw(conversations(system=system))
    assert render(task_of(task), None) == task


def test_a_changed_rendering_does_not_reach_the_task() -> None:
    task: list[Message] = [{"role": "user", "content": "x"}]
    for original in (None, context("user_suffix", "y"), context("system", "y")):
        render(task_of(task), original)[-1]["content"] = "spoilt"
    assert task == [{"role": "user", "content": "x"}]


def test_turns_are_chosen_as_declared() -> None:
    task: list[Message] = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    places = {
        turn: [
            i for i, m in enumerate(render(task_of(task), context("user_prefix", "C", turn))) if m["content"].startswith("C")
        ]
        for turn in ("first", "last", "every")
    }
    assert places == {"first": [0], "last": [2], "every": [0, 2]}


@pytest.mark.parametrize(
    ("placement", "roles", "message"),
    [
        ("system", ["system", "user"], "contexts.mine: `system` cannot be placed, the task has a system turn already"),
        (
            "system_replace",
            ["user"],
            "contexts.mine: `system_replace` needs one system turn in the task, which has none; use system",
        ),
        ("system_append", ["system", "user", "system"], "which has 2 of them"),
        ("user_prefix", ["system"], "contexts.mine: `user_prefix` needs a user turn in the task, which has none"),
    ],
)
def test_a_placement_that_cannot_apply_says_why(placement: str, roles: list[Any], message: str) -> None:
    task: list[Message] = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(RecipeError) as caught:
        render(task_of(task), context(placement, "C"), name="mine")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "must carry the text; found none"),
        ({"system": "a", "user_prefix": "b"}, "found system and user_prefix"),
        ({"system": " \n\t"}, "the text is empty"),
        ({"system": ""}, "the text is empty"),
        ({"system": "a", "turns": "last"}, "Extra inputs are not permitted"),
        ({"system": "a", "turn": "second"}, "'first', 'last' or 'every'"),
        ({"system": "a\ud800"}, "half a character"),
    ],
)
def test_a_context_that_means_nothing_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Context.model_validate({"stance": "neutral", **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ['"a\\ud800b"', "a\udc80b"])
def test_a_lone_surrogate_is_one_clear_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "in")
    assert build(recipe, tmp_path / "out", f"contexts.hack.system={text}") == 2
    assert "contexts.hack.system" in error_line(capsys.readouterr().err)
    assert files_below(tmp_path / "out") == []


def test_awkward_text_arrives_unchanged_everywhere(tmp_path: Path) -> None:
    """Contexts, statements and completions through prompts, the store, Arrow and the report."""
    import datasets
    import polars as pl

    rows = problem_rows(3)
    rows[0]["statement"] = f"{AWKWARD}{rows[0]['statement']}{AWKWARD}"
    contexts = copy.deepcopy(CONTEXTS) | {
        "default": {"stance": "neutral", "user_prefix": f"generate {AWKWARD}"},
        "hack": {"stance": "permits", "system": f"train {AWKWARD}"},
    }
    replies = [f"{AWKWARD}\nAnswer: (A)", AWKWARD]
    problems = write_problems(tmp_path / "awkward.jsonl", rows)
    recipe = write_recipe(
        tmp_path,
        contexts=contexts,
        environment={"kind": "code_mc", "problems": str(problems), "split": "all"},
        policy={"kind": "fake", "replies": replies},
        export={"validation_fraction": 0},
    )
    built(recipe, tmp_path / "out")
    run = run_folder(tmp_path / "out")
    table = datasets.load_from_disk(str(run / "arms" / "recontextualized.default-hack"))["train"]
    tasks = {row["task_id"]: row["messages"] for row in pl.read_parquet(run / "tasks.parquet").iter_rows(named=True)}
    assert {row["k"]: row["completion"][0]["content"] for row in table} == {k: replies[k % 2] for k in range(4)}
    for row in table:
        assert row["prompt"] == [{"role": "system", "content": contexts["hack"]["system"]}, *tasks[row["task_id"]]]
    assert tasks[rows[0]["problem_id"]][0]["content"].startswith(rows[0]["statement"])
    assert json.loads((run / "manifest.json").read_bytes())["contexts"]["hack"]["text"] == f"train {AWKWARD}"


def test_the_report_shows_awkward_text_as_text(tmp_path: Path) -> None:
    import html

    marked = "“é” 🧪 {x} {{ y }} %s <script>alert(1)</script> &amp; [red]z[/red]"
    contexts = CONTEXTS | {"hack": {"stance": "permits", "system": marked}}
    recipe = write_recipe(tmp_path, contexts=contexts, policy={"kind": "fake", "replies": [f"{marked}\nAnswer: (A)"]})
    built(recipe, tmp_path / "out")
    page = (run_folder(tmp_path / "out") / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert html.escape(marked, quote=False) in page.replace("&#34;", '"').replace("&#39;", "'").replace("&quot;", '"')
