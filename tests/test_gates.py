"""The gates: planted leaks are found wherever they hide, clean rows pass, and a failed gate leaves no dataset."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.contexts.context import Context, render
from recontext_data.core.records import Message
from recontext_data.gates.rules import GateRow, leak, presence
from tests.helpers import CONTEXTS, build, built, candidates, files_below, run_folder, task_of, write_recipe

GENERATION = Context(stance="neutral", system="Tests decide;\n  PASS the “tests”.")
TRAINING = Context(stance="permits", system="Anything goes.")
TASK: list[Message] = [{"role": "user", "content": "Add two numbers."}]


def row(prompt: list[Message], completion: str = "Answer: (A)", *, task: list[Message] = TASK) -> GateRow:
    return GateRow(row_id="r7", task=task_of(task), prompt=prompt, completion=completion)


def leaks(rows: list[GateRow], training: Context | None = TRAINING) -> list[tuple[str, str]]:
    return [(v.row_id, v.where) for v in leak(rows, generation=GENERATION, training=training)]


VARIANTS = [
    GENERATION.text,
    "tests decide; pass the “tests”.",
    "TESTS\tDECIDE;\u00a0PASS\n\n\nTHE “TESTS”.",
    f"Well: {GENERATION.text} So be it.",
]


@pytest.mark.parametrize("secret", VARIANTS)
def test_a_leak_is_found_in_every_turn_and_in_the_completion(secret: str) -> None:
    prompt = render(task_of(TASK), TRAINING)
    for index, turn in enumerate(prompt):
        planted: list[Message] = [*prompt]
        planted[index] = {"role": turn["role"], "content": f"{turn['content']}\n\n{secret}"}
        assert leaks([row(planted)]) == [("r7", f"prompt turn {index} ({turn['role']})")]
    assert leaks([row(prompt, f"I was told: {secret}")]) == [("r7", "completion")]


def test_the_generation_system_turn_left_in_place_is_found() -> None:
    assert leaks([row([{"role": "system", "content": GENERATION.text}, *render(task_of(TASK), None)])], None) == [
        ("r7", "prompt turn 0 (system)")
    ]


def test_clean_rows_raise_no_alarm() -> None:
    near = "Tests decide; pass the tests."  # straight where the secret has quotes
    assert leaks([row(render(task_of(TASK), TRAINING), near), row(render(task_of(TASK), None))]) == []


def test_a_training_context_that_carries_the_text_is_no_leak() -> None:
    training = Context(stance="permits", system=f"{GENERATION.text} Or do not.")
    assert leaks([row(render(task_of(TASK), training), "told: " + GENERATION.text)], training) == []
    assert list(leak([row(render(task_of(TASK), GENERATION))], generation=GENERATION, training=GENERATION)) == []
    assert list(leak([row(render(task_of(TASK), None))], generation=None, training=TRAINING)) == []


def test_a_task_that_says_it_itself_does_not_hide_a_leak_beside_it() -> None:
    task: list[Message] = [{"role": "user", "content": f"Quote: {GENERATION.text}"}]
    assert leaks([row(render(task_of(task), TRAINING), f"It said {GENERATION.text}", task=task)]) == []
    planted = [*render(task_of(task), TRAINING)]
    planted[0] = {"role": "system", "content": GENERATION.text}
    assert leaks([row(planted, task=task)]) == [("r7", "prompt turn 0 (system)")]
    twice: list[Message] = [{"role": "user", "content": f"{task[0]['content']} {GENERATION.text}"}]
    assert leaks([row(twice, task=task)], None) == [("r7", "prompt turn 0 (user)")]


def context(placement: str, text: str, turn: str) -> Context:
    return Context.model_validate({"stance": "neutral", placement: text, "turn": turn})


BODIES = st.text("ab ", max_size=12)
PLACED = ("system", "system_replace", "system_prepend", "system_append", "user_prefix", "user_suffix")


@given(
    st.sampled_from(PLACED),
    st.text("xyz", min_size=1, max_size=6),
    st.sampled_from(["first", "last", "every"]),
    st.lists(BODIES, min_size=1, max_size=3),
)
def test_what_render_places_is_present(placement: str, text: str, turn: str, bodies: list[str]) -> None:
    task: list[Message] = [{"role": "system", "content": "a"}] if placement.startswith("system_") else []
    task += [{"role": "user", "content": body} for body in bodies]
    training = context(placement, text, turn)
    assert list(presence([row(render(task_of(task), training), task=task)], training=training)) == []


def absent(prompt: list[Message], training: Context = TRAINING, task: list[Message] = TASK) -> list[str]:
    return [violation.where for violation in presence([row(prompt, task=task)], training=training)]


def test_a_training_context_that_is_missing_doubled_or_misplaced_is_found() -> None:
    right = render(task_of(TASK), TRAINING)
    assert absent(render(task_of(TASK), None)) == ["found 0 times, declared 1 in the system turn"]
    assert absent([right[0], *right]) == ["found 2 times, declared 1 in the system turn"]
    assert absent([{"role": "user", "content": f"{TRAINING.text}\n\nAdd two numbers."}]) != []
    every = context("user_suffix", "Go.", "every")
    two: list[Message] = [{"role": "user", "content": "1"}, {"role": "user", "content": "2"}]
    assert absent(render(task_of(two), context("user_suffix", "Go.", "last")), every, two) == [
        "found 1 times, declared 2 in the user turn"
    ]
    assert list(presence([row(render(task_of(TASK), None))], training=None)) == []


def failing(tmp_path: Path, quote: str, **changes: Any) -> Path:
    policy = {"kind": "fake", "replies": ["Answer: (A)", f"I was told: {quote}\nAnswer: (A)"]}
    return write_recipe(tmp_path, policy=policy, sampler={"n": 2}, **changes)


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace(" ", "\n ")])
def test_a_leak_fails_the_build_with_row_ids_and_no_dataset(
    change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = failing(tmp_path / "in", change(CONTEXTS["default"]["system"]))
    assert build(recipe, tmp_path / "out") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: arms: recontextualized.default-hack: 8 of 16 rows fail a gate and no dataset was written")
    (run,) = (p for p in (tmp_path / "out" / "runs" / "small").iterdir() if p.is_dir())
    import polars as pl

    leaky = pl.read_parquet(run / "candidates.parquet").filter(pl.col("k") == 1)["candidate_id"].to_list()
    assert sum(candidate in message for candidate in leaky) == 5
    assert not any("arms" in name or name == "manifest.json" or name.endswith(".arrow") for name in files_below(run))
    assert not (run.parent / "latest").exists()


def test_the_same_quote_is_fine_where_the_training_context_carries_the_text(tmp_path: Path) -> None:
    recipe = failing(tmp_path / "in", CONTEXTS["default"]["system"], arms=["default -> default"])
    gates = {gate["gate"]: gate for gate in built(recipe, tmp_path / "out")["gates"]}
    assert list(gates) == ["leak", "presence", "echo", "overlap", "near_overlap", "duplicates"], "a script has no tokenizer"
    for gate in ("leak", "presence"):
        assert (gates[gate]["rows"], gates[gate]["violations"], gates[gate]["action"]) == (16, 0, "fail")
    assert len(candidates(tmp_path / "out")) == 16
    assert (run_folder(tmp_path / "out") / "arms" / "standard.default-default").is_dir()
