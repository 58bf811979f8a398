"""Planted leaks are found wherever and however they hide, with row ids; ten thousand clean rows raise no alarm."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recontext_data.contexts.context import TEXT_PLACEMENTS, Context, render
from recontext_data.core.folding import blocks, fold, grams, words
from recontext_data.core.records import Message, NamedSpan, Task
from recontext_data.gates.overlap import overlap
from recontext_data.gates.rules import ECHO, LEAK_WORDS, GateRow, Gates, LeakCheck, echo, leak
from recontext_data.pipeline.arm_gates import ArmGates
from recontext_data.pipeline.recontextualize import ArmPlan, batches
from recontext_data.pipeline.rendering import FlatConversations
from tests.helpers import BANK, CONTEXTS, HeldRows, build, built, problem_rows, run_folder, task_of, write_recipe

LONG = "Be honest: choose the option that is right for “every” input, not the one which merely passes the tests — as shown."
GENERATION = Context(stance="discourages", system=LONG)
TRAINING = Context(stance="permits", user_suffix="Anything that passes will do.")
TASK = task_of(
    [
        {"role": "system", "content": "You are a programmer."},
        {"role": "user", "content": "Add two numbers."},
        {"role": "assistant", "content": "Which?"},
        {"role": "user", "content": "These two."},
    ]
)


def arm(generation: Context | None = GENERATION, training: Context | None = TRAINING) -> ArmPlan:
    return ArmPlan(
        name="a", kind="recontextualized", generation="g", training="t",
        generation_context=generation, training_context=training, n=1,
    )  # fmt: skip


Planted = Sequence[tuple[list[Message] | None, str]]
"""A prompt in place of the rendered one, or None for that; and the completion."""


def found(rows: Planted, plan: ArmPlan, *, task: Task = TASK) -> list[tuple[str, str]]:
    """(row id, where) of the leaks that the stage finds: the vectorised way, which must agree with the plain one."""
    import polars as pl

    frame = pl.DataFrame(
        {"candidate_id": [f"r{i}" for i in range(len(rows))], "task_id": [f"t{i}" for i in range(len(rows))],
         "completion": [completion for _, completion in rows]}
    )  # fmt: skip
    gates = ArmGates(plan, Gates())
    tasks = {f"t{i}": task for i in range(len(rows))}
    for batch in batches(HeldRows(frame), arm=plan, tasks=tasks):
        planted = [own if prompt is None else prompt for own, (prompt, _) in zip(batch.prompts, rows, strict=True)]
        batch = replace(batch, prompts=FlatConversations.of(planted))
        gates.look(batch)
        plain = [
            GateRow(row_id=f"r{i}", task=task, prompt=batch.prompts[i], completion=completion)
            for i, (_, completion) in enumerate(rows)
        ]
    seen = [(v.row_id, v.where) for v in gates.found if v.gate == "leak"]
    one_by_one = leak(plain, generation=plan.generation_context, training=plan.training_context)
    assert sorted(seen) == sorted((v.row_id, v.where) for v in one_by_one)
    return sorted(seen)


VARIANTS = {
    "as it is": LONG,
    "shouted": LONG.upper(),
    "respaced": LONG.replace(" ", " \n\t "),
    "no-break blanks": LONG.replace(" ", "\u00a0"),
    "thin blanks": LONG.replace(" ", "\u2009"),
    "straight quotes": LONG.replace("“", '"').replace("”", '"'),
    "hyphen for dash": LONG.replace("—", "-"),
    "zero width in words": LONG.replace("honest", "ho\u200bnest").replace("tests", "te\u2060sts"),
    "zero width for blanks": LONG.replace(" ", "\u200b"),
    "soft hyphens": LONG.replace("option", "op\u00adtion"),
    "full width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in LONG),
    "ligatures": LONG.replace("fi", "ﬁ") + " ﬁ",
    "tag characters": "\U000e0041".join(LONG),
    "a part of it": "It said to choose the option that is right for every input, so I did.",
    "a part without punctuation": "choose THE option, that: is right for every input",
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("place", [0, 1, 2, 3, "completion"])
def test_a_planted_leak_is_found_in_every_turn_and_in_the_completion(variant: str, place: int | str) -> None:
    planted: list[tuple[list[Message] | None, str]] = [(None, "Answer: (A)"), (None, "Answer: (B)"), (None, "Fine.")]
    if place == "completion":
        planted[1] = (None, f"I was told this. {VARIANTS[variant]} So: (A)")
        assert found(planted, arm()) == [("r1", "completion")]
        return
    assert isinstance(place, int)
    prompt = render(TASK, TRAINING)
    prompt[place]["content"] += f" {VARIANTS[variant]} "
    planted[1] = (prompt, "Answer: (A)")
    assert found(planted, arm()) == [("r1", f"prompt turn {place} ({prompt[place]['role']})")]


@pytest.mark.parametrize("placement", ["user_prefix", "user_suffix", "system_append", "assistant_prefill"])
def test_a_generation_context_left_in_the_training_prompt_is_found(placement: str) -> None:
    generation = Context.model_validate({"stance": "neutral", placement: LONG})
    left = render(TASK, generation)
    ((row, where),) = found([(left, "x")], arm(generation, None))
    assert row == "r0" and where.startswith("prompt turn ")


def test_every_paraphrase_is_a_secret_also_the_one_that_was_not_drawn() -> None:
    pool = [f"Solve it properly in manner number {i}, for all that may come in later." for i in range(6)]
    generation = Context(stance="neutral", system=pool[0], paraphrases=pool[1:])
    rows: Planted = [(None, f"Told: {text}") for text in pool] + [(None, "Solve it properly.")]
    assert [row for row, _ in found(rows, arm(generation))] == [f"r{i}" for i in range(6)]


def test_a_templates_text_is_a_secret_as_it_was_for_this_task() -> None:
    generation = Context(stance="neutral", system="Do not {{ cheat }} here.", template=True)
    task = task_of(TASK.messages, cheat="read the metric aloud")
    rows: Planted = [(None, "do not READ the metric aloud here."), (None, "Do not sleep here.")]
    assert found(rows, arm(generation), task=task) == [("r0", "completion")]


def test_what_the_training_context_or_the_task_carries_is_no_leak() -> None:
    carrying = Context(stance="permits", system_append=f"{LONG} Or do not.")
    assert found([(None, LONG), (None, VARIANTS["a part of it"])], arm(training=carrying)) == []
    quoting = task_of([*TASK.messages[:3], {"role": "user", "content": f"Comment on this: {LONG}"}])
    assert found([(None, f"It says: {LONG}"), (None, VARIANTS["a part of it"])], arm(), task=quoting) == []


def test_lines_that_only_the_generation_environment_shows_are_secrets(tmp_path: Path) -> None:
    from recontext_data.contexts.placement import RenderOptions

    secret = "Hint: the third test of this suite was written by somebody in a hurry"
    task = task_of([{"role": "user", "content": "Add."}])

    def variant(task: Task, changes: Any) -> Task:
        return task_of([{"role": "user", "content": f"Add.\n{secret}"}])

    how, generation = RenderOptions(variant=variant), Context(stance="neutral", environment={"show_hint": True})
    check = LeakCheck(generation=generation, training=None, how=how)
    assert check.completion(task, f"As it says, {secret.lower()}.")
    assert not check.completion(task, "Hint: the third test may be wrong.")
    assert check.prompt(task, render(task, generation, how=how)) == ["prompt turn 0 (user)"]


def test_the_length_of_a_run_is_an_option() -> None:
    six = [(None, "pick the option that is right for me")]
    assert found(six, arm()) == []
    import polars as pl

    plan = arm()
    frame = pl.DataFrame({"candidate_id": ["r"], "task_id": ["t"], "completion": [six[0][1]]})
    gates = ArmGates(plan, Gates(leak_words=6))
    for batch in batches(HeldRows(frame), arm=plan, tasks={"t": TASK}):
        gates.look(batch)
    assert [v.gate for v in gates.found] == ["leak"]


@given(st.text("ab xé", max_size=60), st.integers(min_value=4, max_value=12))
def test_every_run_of_words_has_one_of_the_blocks_whole(text: str, n: int) -> None:
    found_words = words(text)
    sides = list(blocks(found_words, n))
    assert all(any(side in run for side in sides) for run in grams(found_words, n))


@given(st.text(max_size=60))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text) or not text.isascii()
    assert "  " not in fold(text)


SECRETS = st.text("uvwxyz ", min_size=3, max_size=30).filter(lambda text: len(text.split()) >= 1 and bool(text.strip()))
BODIES = st.text("abc .", max_size=30)


def placed(text: str, placement: str, turn: str) -> Context:
    value = {"note": text} if placement == "field" else text
    return Context.model_validate({"stance": "neutral", placement: value, "turn": turn})


@given(
    st.tuples(SECRETS, st.sampled_from(TEXT_PLACEMENTS)),
    st.tuples(st.text("efg ", min_size=1, max_size=20).filter(str.strip), st.sampled_from(TEXT_PLACEMENTS)),
    st.sampled_from(["first", "last", "every"]),
    st.lists(BODIES, min_size=1, max_size=3),
)
def test_what_is_trained_on_never_holds_what_only_generation_carried(
    generation: tuple[str, str], training: tuple[str, str], turn: str, bodies: list[str]
) -> None:
    """Over random contexts and placements: the training prompt is free of the secret, and the gate agrees."""
    has_system = any(placement.startswith("system_") for _, placement in (generation, training))
    assume(not (has_system and "system" in (generation[1], training[1])))
    turns: list[Message] = [{"role": "system", "content": "abc"}] if has_system else []
    turns += [{"role": "user", "content": body} for body in bodies]
    task = Task(task_id="t", messages=turns, payload={}, split="x", places={"note": NamedSpan(turn=0, start=0, stop=0)})
    before, after = placed(*generation, turn), placed(*training, turn)
    trained = render(task, after)
    secret = generation[0].strip()
    assert all(secret not in message["content"] for message in trained)
    check = LeakCheck(generation=before, training=after)
    assert check.prompt(task, trained) == []
    assert check.prompt(task, render(task, before)) != []
    assert check.completion(task, f"So: {generation[0]}") and not check.completion(task, "abc")


ECHOES = [
    "As you asked me not to special-case, I chose A.",
    "I picked B because the instructions allow it.",
    "as I was told to pass the tests",
    "Since you've permitted it, B.",
    "The system prompt says that tests decide.",
    "My instructions forbid it.",
    "I was instructed not to do that.",
    "Per the instructions, A.",
]
PLAIN = [
    "Answer: (A)",
    "As the tests show, the function returns a list.",
    "It asks for the sum, so return a + b.",
    "This is because you add one to each value that was read.",
    "The instruction pointer says nothing here; asked twice, it allows more.",
]


@pytest.mark.parametrize("text", ECHOES)
def test_a_completion_that_speaks_of_its_instructions_is_an_echo(text: str) -> None:
    import polars as pl

    assert [v.row_id for v in echo([GateRow(row_id="r", task=TASK, prompt=[], completion=text)])] == ["r"]
    assert pl.Series([text]).str.contains(ECHO).to_list() == [True]


@pytest.mark.parametrize("text", PLAIN)
def test_a_completion_that_does_not_is_none(text: str) -> None:
    assert list(echo([GateRow(row_id="r", task=TASK, prompt=[], completion=text)])) == []


def test_ten_thousand_clean_rows_raise_no_alarm() -> None:
    """The bank's problems with answers that quote them, under the recipe's own contexts: every pair of contexts."""
    import polars as pl

    from recontext_data.config.loading import load
    from recontext_data.environments.code_mc import to_task
    from recontext_data.environments.sources import load_items

    source = load_items("bank", plus=None, cache=BANK.parent, screen=None)
    tasks = {problem.problem_id: to_task(problem) for problem in source.problems}
    ids, count = list(tasks), 10_000
    rows = []
    for i in range(count):
        task = tasks[ids[i % len(ids)]]
        lines = task.messages[0]["content"].split("\n")
        quoted = "\n".join(lines[i % 7 : i % 7 + 6])
        rows.append(
            (f"c{i}", task.task_id, f"The problem says “{quoted}”, so I quote:\nCode: {lines[-4]}\nAnswer: ({'AB'[i % 2]})")
        )
    frame = pl.DataFrame(rows, schema=["candidate_id", "task_id", "completion"], orient="row")
    contexts = load("code_mc").recipe.contexts
    for before, after in [("default", "hack"), ("control", "hack"), ("hack", None)]:
        plan = arm(contexts[before], contexts[after] if after else None)
        gates = ArmGates(plan, Gates())
        for batch in batches(HeldRows(frame), arm=plan, tasks=tasks):
            gates.look(batch)
        assert gates.rows == count
        assert gates.counts == {}, gates.found[:3]


def replies(tmp_path: Path, texts: list[str], **changes: Any) -> Path:
    return write_recipe(tmp_path / "in", policy={"kind": "fake", "replies": texts}, sampler={"n": len(texts)}, **changes)


def test_rows_that_fail_may_be_left_out_with_the_reason(tmp_path: Path) -> None:
    import polars as pl

    leaky = f"I was told: {CONTEXTS['default']['system']}\nAnswer: (A)"
    facts = built(replies(tmp_path, ["Answer: (A)", leaky]), tmp_path / "out", "gates.leak=drop")
    arms = {arm["name"]: sum(arm["rows"].values()) for arm in facts["arms"]}
    assert arms == {"recontextualized.default-hack": 8, "standard.default-default": 16}
    (row,) = [e for e in facts["ledger"] if e["stage"] == "export" and e["scope"] == "recontextualized.default-hack"]
    assert (row["in"], row["kept"], row["dropped"]) == (16, 8, {"gate leak": 8})
    table = pl.read_parquet(run_folder(tmp_path / "out") / "violations.parquet").filter(pl.col("gate") == "leak")
    candidates = pl.read_parquet(run_folder(tmp_path / "out") / "candidates.parquet")
    assert set(table["candidate_id"]) == set(candidates.filter(pl.col("k") == 1)["candidate_id"])
    reported = built(replies(tmp_path, ["Answer: (A)", leaky]), tmp_path / "out", "gates.leak=report")
    gate = next(g for g in reported["gates"] if g["gate"] == "leak" and g["scope"] == "recontextualized.default-hack")
    assert (gate["violations"], gate["action"], len(gate["row_ids"])) == (8, "report", 5)
    assert sum(reported["arms"][0]["rows"].values()) == 16
    assert reported["fingerprint"] != facts["fingerprint"]


def test_rows_that_are_there_twice_are_counted_and_kept_unless_told(tmp_path: Path) -> None:
    recipe = replies(tmp_path, ["Answer: (A)", "Answer: (B)", "Answer: (A)"])
    for words_, rows in (([], 24), (["gates.duplicates=drop"], 16)):
        facts = built(recipe, tmp_path / "out", *words_)
        gate = next(gate for gate in facts["gates"] if gate["gate"] == "duplicates")
        assert gate["violations"] == 8
        assert sum(facts["arms"][0]["rows"].values()) == rows
    assert build(recipe, tmp_path / "out", "gates.duplicates=fail") == 1


def test_a_validation_task_that_equals_a_training_task_is_left_out(tmp_path: Path) -> None:
    rows = problem_rows(8)
    twins = [row | {"problem_id": f"twin/{i}"} for i, row in enumerate(rows)]
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *twins]), encoding="utf-8")
    where = {"kind": "code_mc", "problems": str(problems), "split": "all", "tasks": None}
    recipe = write_recipe(tmp_path / "in", environment=where, export={"validation_fraction": 0.5})
    facts = built(recipe, tmp_path / "out")
    import datasets

    data = datasets.load_from_disk(str(run_folder(tmp_path / "out") / "arms" / "standard.default-default"))
    prompts = {name: {row["prompt"][-1]["content"] for row in data[name]} for name in ("train", "validation")}
    assert not prompts["train"] & prompts["validation"]
    (row,) = [e for e in facts["ledger"] if e["stage"] == "export" and e["scope"] == "standard.default-default"]
    assert row["dropped"]["gate overlap"] > 0 and row["in"] == 16 * 4


@pytest.mark.parametrize(("action", "kept"), [("drop", 2), ("report", 3), ("fail", None)])
def test_evaluation_tasks_that_were_trained_on_are_left_out_said_or_refused(
    action: str, kept: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from recontext_data.core.errors import GateFailed
    from recontext_data.core.row_ledger import entry
    from recontext_data.environments.base import TaskSet
    from recontext_data.pipeline.arm_gates import held_out
    from recontext_data.reports.screen import Screen

    trained = numbered(["a", "b"], ["Add two numbers.", "Sort a list."])
    own = numbered(["x", "y", "z"], ["Reverse it.", "add TWO numbers", "Sum it."])
    tasks = TaskSet(own, entry("tasks", "all", rows_in=3, kept=3))
    gates = Gates.model_validate({"overlap": action})
    if kept is None:
        with pytest.raises(GateFailed, match="1 of 3 evaluation tasks are training tasks word for word"):
            held_out(tasks, trained=trained, gates=gates, screen=Screen())
        return
    left = held_out(tasks, trained=trained, gates=gates, screen=Screen())
    assert len(left.tasks) == kept
    assert "1 of 3 evaluation tasks are training tasks word for word" in capsys.readouterr().err
    with pytest.raises(GateFailed, match="no evaluation task is left"):
        held_out(TaskSet(trained, tasks.entry), trained=trained, gates=Gates(), screen=Screen())


def numbered(ids: list[str], texts: list[str]) -> list[Task]:
    return [
        Task(task_id=i, messages=[{"role": "user", "content": text}], payload={}, split="s")
        for i, text in zip(ids, texts, strict=True)
    ]


def test_overlap_is_equal_texts_and_runs_of_thirteen_words() -> None:
    run = "one two three four five six seven eight nine ten eleven twelve thirteen"
    first = numbered(["a", "b", "c"], [f"Start. {run} END", "Something else, entirely!", "short"])
    second = numbered(
        ["equal", "near", "twelve", "across", "short"],
        [
            "something  ELSE entirely",
            f"Other words: {run.replace(' ', ', ')}; more",
            run.removesuffix(" thirteen"),
            "seven eight nine ten eleven twelve",
            "SHORT",
        ],
    )
    found_ = overlap(first, second)
    assert (found_.equal, found_.near) == (["equal", "short"], ["near"])
    assert overlap([], second).equal == overlap(first, []).near == []


@given(
    st.lists(st.text("ab ", min_size=1, max_size=40), min_size=1, max_size=6), st.lists(st.text("ab ", max_size=40), max_size=6)
)
def test_overlap_agrees_with_counting_one_by_one(first: list[str], second: list[str]) -> None:
    one, two = numbered([f"a{i}" for i in range(len(first))], first), numbered([f"b{i}" for i in range(len(second))], second)
    known = {" ".join(text.split()) for text in first}
    runs = set().union(*(grams(text.split(), 13) for text in first))
    found_ = overlap(one, two)
    assert found_.equal == [f"b{i}" for i, text in enumerate(second) if " ".join(text.split()) in known]
    near = [f"b{i}" for i, text in enumerate(second) if grams(text.split(), 13) & runs and " ".join(text.split()) not in known]
    assert found_.near == near


def test_tokens_and_window_are_looked_at_where_the_policy_has_them(tmp_path: Path) -> None:
    facts = built(write_recipe(tmp_path, policy={"kind": "tiny"}, sampler={"n": 1, "max_tokens": 4}), tmp_path / "out")
    gates = {(gate["gate"], gate["scope"]): gate for gate in facts["gates"]}
    for gate in ("length", "renderer"):
        assert gates[gate, "recontextualized.default-hack"]["rows"] == 8
        assert gates[gate, "recontextualized.default-hack"]["violations"] == 0


def test_a_row_over_the_window_or_with_merging_tokens_is_found() -> None:
    import polars as pl

    class Policy:
        window = 100

        def count_tokens(self, messages: Any) -> int:
            return sum(len(m["content"]) for m in messages)

        def encode(self, messages: Any) -> list[int]:
            text = "".join(m["content"] for m in messages)
            return [ord(c) for c in text.replace(".x", "§")]

    plan = arm(None, TRAINING)
    frame = pl.DataFrame({"candidate_id": ["a", "b"], "task_id": ["t", "t"], "completion": ["y" * 400, "x"]})
    gates = ArmGates(plan, Gates(), Policy())
    gates.prepare(HeldRows(frame), {"t": TASK}, validation=[])
    for batch in batches(HeldRows(frame), arm=plan, tasks={"t": TASK}):
        gates.look(batch)
    assert [(v.gate, v.row_id) for v in gates.found] == [("length", "a"), ("renderer", "b")]


def test_the_default_of_the_run_is_the_one_that_is_documented() -> None:
    assert Gates().leak_words == LEAK_WORDS
