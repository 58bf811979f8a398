"""Templates, paraphrases, fields, environment changes, prefill, position words, and what is done about system turns."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recontext_data.config.loading import load
from recontext_data.contexts.context import Context, render
from recontext_data.contexts.placement import Rendering, RenderOptions
from recontext_data.core.chat_template import split_prefill
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import Message, Task
from recontext_data.environments.code_mc import CodeMC
from recontext_data.pipeline.prompts import check_template, default_system, takes_system
from recontext_data.policies.tiny.policy import TinyConfig
from tests.helpers import (
    CONTEXTS,
    build,
    built,
    candidates,
    error_line,
    files_below,
    manifest,
    run_folder,
    task_of,
    write_recipe,
)

USER: list[Message] = [{"role": "user", "content": "Add two numbers."}]


def context(**fields: Any) -> Context:
    return Context.model_validate({"stance": "permits", **fields})


def refused(task: Task, made: Context) -> str:
    with pytest.raises(RecipeError) as caught:
        render(task, made, name="mine")
    return str(caught.value)


def test_a_template_takes_the_tasks_fields() -> None:
    task = task_of(USER, cheat="quote the metric", n=3, words=["a", "b"])
    made = context(
        system="Task {{ task_id }}: {{ cheat }} {{ n + 1 }}x{% for w in words %}, {{ w }}{% endfor %}", template=True
    )
    assert render(task, made)[0] == {"role": "system", "content": "Task t: quote the metric 4x, a, b"}


def test_without_template_the_same_text_is_data() -> None:
    assert render(task_of(USER, cheat="x"), context(system="{{ cheat }} {% if %}"))[0]["content"] == "{{ cheat }} {% if %}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Use {{ chaet }}.", ["contexts.mine: task 't' has no field 'chaet'", "mean 'cheat'?", "fields: cheat, split"]),
        ("{{ cheat.missing }}", ["contexts.mine: task 't': 'str object' has no attribute 'missing'", "fields: cheat"]),
        ("{{ cheat.__class__.__mro__ }}", ["the sandbox refuses", "__class__"]),
        ("{{ ''.format.__globals__ }}", ["the sandbox refuses"]),
        ("{% include '/etc/passwd' %}", ["the template reads another file"]),
        ("{% import 'os' as os %}x", ["the template reads another file"]),
        ("{{ cheat", ["contexts.mine: line 1 of the template"]),
        ("{% set x = cheat %}", ["gives task 't' no text, so it would change nothing"]),
        ("{{ 1 / 0 }}", ["the template fails on task 't': division by zero"]),
        ("{{ range(10 ** 9) | list }}", ["the template fails on task 't'"]),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_filled_or_reaches_out_is_refused(text: str, words: list[str]) -> None:
    message = refused(task_of(USER, cheat="x"), context(system=text, template=True))
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


POOL = [f"Anything goes, put in way {number}." for number in range(8)]


def draws(pool: list[str], *, seed: int = 0, tasks: int = 200) -> list[str]:
    made = context(system=pool[0], paraphrases=pool[1:], paraphrase_seed=seed)
    return [render(task_of([{"role": "user", "content": f"Task {i}"}]), made)[0]["content"] for i in range(tasks)]


def test_every_task_draws_one_of_the_paraphrases_whatever_their_order() -> None:
    found = draws(POOL)
    assert set(found) == set(POOL)
    assert all(10 <= found.count(text) <= 45 for text in POOL), "25 of each are expected"
    assert draws(POOL[::-1]) == found
    assert draws(POOL, seed=1) != found


def test_one_more_paraphrase_changes_only_the_tasks_that_draw_it() -> None:
    before, after = draws(POOL[:7]), draws(POOL)
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {POOL[7]}


def test_a_file_of_paraphrases_is_its_lines(tmp_path: Path) -> None:
    changed = CONTEXTS | {"hack": {**CONTEXTS["hack"], "paraphrases": "pool.txt"}}
    recipe = write_recipe(tmp_path, contexts=changed)
    (tmp_path / "pool.txt").write_text("Whatever.\nAnything “goes”.\n", encoding="utf-8")
    assert load(str(recipe)).recipe.contexts["hack"].texts == [CONTEXTS["hack"]["system"], "Whatever.", "Anything “goes”."]
    (tmp_path / "pool.txt").write_text("Whatever.\n\nAnything.\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"contexts.hack.paraphrases=pool.txt: line 2 is empty"):
        load(str(recipe))
    (tmp_path / "pool.txt").unlink()
    with pytest.raises(RecipeError, match=r"contexts.hack.paraphrases=pool.txt: cannot be read: No such file"):
        load(str(recipe))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"system": "a", "paraphrases": ["b", " "]}, "paraphrases.1: the text is empty"),
        ({"system": "a", "paraphrases": ["b", "a"]}, "two of the texts are the same"),
        ({"system": "a", "paraphrases": "file.txt"}, "is a file, which is read when a recipe is loaded"),
        ({"environment": {}}, "environment: is empty"),
        ({"environment": {"x": 1}, "template": True}, "this context has none"),
        ({"field": {"a": "b", "c": "d"}}, "gives one place its text"),
        ({"field": {"a": " "}}, "the text is empty"),
        ({"environment": {"x": 1}, "system": "a", "user_prefix": "b"}, "found system and user_prefix"),
        ({"system": "Mind the text above."}, "says 'above', and nothing stands there for a text placed as system"),
        ({"user_prefix": "The text above is a task."}, "says 'above'"),
        ({"user_suffix": "Solve the following."}, "says 'the following', and no task text stands there"),
        ({"user_suffix": "The task below is hard."}, "says 'below'"),
        ({"system": "x", "paraphrases": ["The preceding text."]}, "paraphrases.0: says 'preceding'"),
    ],
)
def test_a_context_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        context(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"user_suffix": "Mind the text above."},
        {"user_prefix": "Solve the following task."},
        {"system": "Above all, be right, and better than below average, following the tests."},
        {"system": "The text above.", "allow_position_words": True},
        {"system_append": "The above holds for the task below."},
    ],
)
def test_words_about_position_that_fit_are_fine(fields: dict[str, Any]) -> None:
    assert context(**fields).text


@pytest.fixture(scope="module")
def mc_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return CodeMC(tasks=1).load(cache=tmp_path_factory.mktemp("cache")).tasks[0]


def test_a_field_goes_where_the_environment_offers_it(mc_task: Task) -> None:
    (turn,) = render(mc_task, context(field={"note": "Anything that passes will do."}))
    bare = mc_task.messages[0]["content"]
    assert turn["content"] == bare.replace("\n\nTests:", "\n\nAnything that passes will do.\n\nTests:", 1)
    assert refused(mc_task, context(field={"noet": "x"})).endswith("has no place 'noet'; did you mean 'note'?")


def test_an_environment_shows_its_task_otherwise(mc_task: Task) -> None:
    how = RenderOptions(variant=CodeMC().variant)
    (turn,) = render(mc_task, context(environment={"show_tests": False}), how=how)
    head, _, rest = mc_task.messages[0]["content"].partition("Tests:\n")
    assert turn["content"] == head + rest[rest.index("Option A:\n") :]
    both = render(mc_task, context(environment={"show_tests": False}, field={"note": "Be quick."}), how=how)
    assert both[0]["content"] == turn["content"].replace("\n\nOption A:", "\n\nBe quick.\n\nOption A:", 1)
    for changes, words in [
        ({"show_test": False}, "contexts.mine.environment: no change is called 'show_test'; did you mean 'show_tests'?"),
        ({"show_tests": "no"}, "contexts.mine.environment: show_tests: 'no' is not accepted; give bool"),
        ({"show_tests": True}, "contexts.mine: `environment` changes nothing"),
    ]:
        with pytest.raises(RecipeError) as caught:
            render(mc_task, context(environment=changes), name="mine", how=how)
        assert words in str(caught.value)
    assert "shows its tasks in one way only" in refused(mc_task, context(environment={"x": 1}))


def test_a_placement_that_changes_nothing_is_refused() -> None:
    task = task_of([{"role": "system", "content": "Be good."}, *USER])
    assert "`system_replace` changes nothing in task 't'" in refused(task, context(system_replace="Be good."))


def test_tests_hidden_in_generation_and_shown_in_training(tmp_path: Path) -> None:
    import datasets
    import polars as pl

    changed = CONTEXTS | {"hidden": {"stance": "neutral", "environment": {"show_tests": False}}}
    policy = {"kind": "fake", "replies": ["Answer: (A)"]}
    recipe = write_recipe(tmp_path, contexts=changed, arms=["hidden -> hack"], policy=policy)
    built(recipe, tmp_path / "out")
    run = run_folder(tmp_path / "out")
    tasks = {row["task_id"]: row["messages"] for row in pl.read_parquet(run / "tasks.parquet").iter_rows(named=True)}
    for row in datasets.load_from_disk(str(run / "arms" / "recontextualized.hidden-hack"))["train"]:
        assert row["prompt"] == [{"role": "system", "content": CONTEXTS["hack"]["system"]}, *tasks[row["task_id"]]]
        assert "Tests:" in row["prompt"][1]["content"]
    shown = "show_tests: true"
    assert build(recipe, tmp_path / "out2", f"contexts.hidden.environment={{{shown}}}") == 2
    assert files_below(tmp_path / "out2" / "runs") == []


def test_a_prefill_is_continued_and_trained_after(tmp_path: Path) -> None:
    """The tiny policy goes on with the beginning of its answer, and the training prompt ends in it."""
    import datasets

    contexts = {
        "default": CONTEXTS["default"],
        "begun": {"stance": "permits", "assistant_prefill": "Code: return"},
    }
    recipe = write_recipe(
        tmp_path, contexts=contexts, arms=["begun -> begun"], policy={"kind": "tiny"}, sampler={"n": 1, "max_tokens": 8}
    )
    built(recipe, tmp_path / "out")
    (folder,) = (run_folder(tmp_path / "out") / "arms").iterdir()
    for row in datasets.load_from_disk(str(folder))["train"]:
        assert row["prompt"][-1] == {"role": "assistant", "content": "Code: return"}
        assert not row["completion"][0]["content"].startswith("Code:")


def test_the_prefill_stands_after_the_turn_header() -> None:
    policy = TinyConfig().build()
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Sure, "}]
    assert policy.render(messages) == policy.render(messages[:1]) + " Sure, "
    assert split_prefill(messages[:1]) == (messages[:1], "")


def test_a_server_that_would_answer_a_prefill_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contexts = CONTEXTS | {"begun": {"stance": "permits", "assistant_prefill": "Sure:"}}
    policy = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": ""}
    recipe = write_recipe(tmp_path / "in", contexts=contexts, arms=["begun -> begun"], policy=policy)
    assert build(recipe, tmp_path / "out") == 2
    assert "contexts.begun.assistant_prefill" in error_line(capsys.readouterr().err)
    assert build(recipe, tmp_path / "out", "dry_run=true", "policy.continues_prefill=true") == 0
    assert build(recipe, tmp_path / "out", "dry_run=true", "arms=[default -> begun]") == 0, "it is trained on, not sampled"


def test_a_server_that_continues_is_told_so(tmp_path: Path) -> None:
    from tests.fault_server import Faults, FaultServer

    contexts = CONTEXTS | {"begun": {"stance": "permits", "assistant_prefill": "Sure:"}}
    with FaultServer(Faults()) as server:
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": "", "continues_prefill": True}
        recipe = write_recipe(tmp_path, contexts=contexts, arms=["begun -> begun", "default -> hack"], policy=policy)
        built(recipe, tmp_path / "out")
        told = [body.get("continue_final_message") for body in server.bodies]
        assert told.count(True) == told.count(None) == 8
        for body in server.bodies:
            assert (body["messages"][-1]["role"] == "assistant") == ("continue_final_message" in body)


def test_a_system_turn_may_be_merged_into_the_user_turn(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, rendering={"no_system_role": "merge_into_user"})
    built(recipe, tmp_path / "out")
    import datasets

    data = datasets.load_from_disk(str(run_folder(tmp_path / "out") / "arms" / "recontextualized.default-hack"))
    for row in data["train"]:
        (turn,) = row["prompt"]
        assert turn["role"] == "user" and turn["content"].startswith(CONTEXTS["hack"]["system"] + "\n\n")
    failing = [gate for gate in manifest(tmp_path / "out")["gates"] if gate["action"] == "fail"]
    assert [gate["violations"] for gate in failing] == [0, 0, 0, 0]


def test_an_empty_system_turn_keeps_a_templates_own_away() -> None:
    how = RenderOptions(rendering=Rendering(default_system="remove"))
    assert render(task_of(USER), None, how=how) == [{"role": "system", "content": ""}, *USER]
    placed = render(task_of(USER), context(system="x"), how=how)
    assert [turn["content"] for turn in placed] == ["x", "Add two numbers."]


class Template:
    """A policy of which only the chat template is looked at."""

    def __init__(self, source: str) -> None:
        self.source = source

    def prompt_text(self, messages: Any) -> str:
        import jinja2

        from recontext_data.core.errors import InputError

        room = jinja2.Environment()
        room.globals["refuse"] = _refuse
        try:
            return room.from_string(self.source).render(messages=messages)
        except jinja2.TemplateError as error:
            raise InputError(str(error)) from None


def _refuse() -> None:
    import jinja2

    raise jinja2.TemplateError("System role not supported")


CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
OWN = "{% if messages[0].role != 'system' %}<|system|>You are Model.<|end|>{% endif %}" + CHAT
REFUSES = "{% if messages[0].role == 'system' %}{{ refuse() }}{% endif %}" + CHAT
SILENT = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ALWAYS = "<|system|>Knowledge: 2023.{% if messages[0].role == 'system' %} {{ messages[0].content }}{% endif %}<|end|>" + SILENT


@pytest.mark.parametrize(
    ("source", "takes", "default"),
    [(CHAT, True, ""), (OWN, True, "You are Model."), (REFUSES, False, ""), (SILENT, False, "")],
)
def test_what_a_chat_template_does_with_system_turns_is_seen(source: str, takes: bool, default: str) -> None:
    policy = Template(source)
    assert takes_system(policy) == takes
    assert default_system(policy) == default


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        (REFUSES, [], "rendering.no_system_role=error: the policy's chat template takes no system turn"),
        (SILENT, [], "takes no system turn"),
        (OWN, ["rendering.default_system=error", "arms=[none -> hack]"], "the chat template adds 'You are Model.'"),
        (REFUSES, ["rendering.no_system_role=merge_into_user"], None),
        (OWN, ["arms=[none -> hack]"], None),
        (OWN, ["rendering.default_system=remove", "arms=[none -> hack]"], None),
        (OWN, ["rendering.default_system=error"], None),
        (CHAT, ["rendering.default_system=error", "arms=[none -> hack]"], None),
    ],
)
def test_what_the_recipe_says_of_system_turns_is_held_against_the_template(
    source: str, words: list[str], message: str | None, tmp_path: Path
) -> None:
    recipe = load(str(write_recipe(tmp_path)), words).recipe
    policy: Any = Template(source)
    if message is None:
        check_template(policy, recipe, task_of(USER))
        return
    with pytest.raises(RecipeError) as caught:
        check_template(policy, recipe, task_of(USER))
    assert message in str(caught.value)


def test_a_template_that_is_not_here_cannot_be_an_error(tmp_path: Path) -> None:
    recipe = load(str(write_recipe(tmp_path)), ["rendering.default_system=error", "arms=[none -> hack]"]).recipe
    with pytest.raises(RecipeError, match="is not here to be looked at; say keep or remove"):
        check_template(object(), recipe, task_of(USER))  # type: ignore[arg-type]


def test_a_context_in_other_words_is_another_run_and_a_new_option_at_its_default_is_not(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    built(recipe, tmp_path / "out")
    before, keys = manifest(tmp_path / "out")["fingerprint"], set(candidates(tmp_path / "out")["reply_key"])
    same = ["contexts.hack.template=false", "contexts.hack.paraphrases=[]", "rendering.default_system=keep"]
    assert built(recipe, tmp_path / "out", *same)["fingerprint"] == before
    assert "template" not in load(str(recipe)).recipe.model_dump()["contexts"]["hack"]
    other = built(recipe, tmp_path / "out", "contexts.hack.paraphrases=[Anything goes.]")
    assert other["fingerprint"] != before
    assert set(candidates(tmp_path / "out")["reply_key"]) == keys, "a training context buys nothing"
