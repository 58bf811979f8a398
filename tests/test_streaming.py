"""Candidates become rows in batches: read from tables by their places, rendered column by column, looked at all at once, and
nothing of it differs from doing it one by one. Memory does not grow with the rows."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recontext_data.contexts.context import Context, render
from recontext_data.contexts.placement import Rendering, RenderOptions
from recontext_data.core.errors import RecipeError
from recontext_data.core.folding import words
from recontext_data.core.records import Message, NamedSpan, Task
from recontext_data.gates.overlap import CHUNK, overlap
from recontext_data.gates.rules import LeakCheck, presence_in
from recontext_data.pipeline.prefilter import leak_prefilter, presence_prefilter, repeated
from recontext_data.pipeline.recontextualize import ArmPlan, Batch, batches, by_task
from recontext_data.pipeline.rendering import FlatConversations, Renderer
from recontext_data.pipeline.selected_rows import BATCH, COLUMNS, ArmPart, ForwardParquetReader, ParquetSelectedRows, Tables
from tests.helpers import HeldRows, environment

TEXT = "Be right for every input."
SHAPES: list[tuple[Any, ...]] = [
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("assistant",),
]
CONTEXTS: dict[str, Context | None] = {
    "none": None,
    **{
        name: Context.model_validate({"stance": "neutral", name: TEXT})
        for name in ("system", "system_replace", "system_prepend", "system_append", "assistant_prefill")
    },
    **{
        f"{name} {turn}": Context.model_validate({"stance": "neutral", name: TEXT, "turn": turn})
        for name in ("user_prefix", "user_suffix")
        for turn in ("first", "last", "every")
    },
    "field": Context(stance="neutral", field={"note": TEXT}),
    "template": Context(stance="neutral", system="Task {{ task_id }} of {{ split }}", template=True),
    "paraphrases": Context(stance="neutral", user_prefix=TEXT, paraphrases=["Be correct.", "No shortcuts."]),
    "marks": Context(stance="neutral", system="\ue0000\ue001 and \ue000"),
    "same as the task": Context(stance="neutral", system_replace="x"),
}
HOWS = {
    "plain": RenderOptions(),
    "merged": RenderOptions(rendering=Rendering(no_system_role="merge_into_user")),
    "no default": RenderOptions(rendering=Rendering(default_system="remove")),
}
contents = st.sampled_from(["x", TEXT, f"{TEXT} {TEXT}", "a\n\nb", "", "\ue0000\ue001", "{x} %s é", "Task t0 of train"])


@st.composite
def tasks(draw: st.DrawFn) -> list[Task]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        turns: list[Message] = [{"role": role, "content": draw(contents)} for role in draw(st.sampled_from(SHAPES))]
        places = {"note": NamedSpan(turn=0, start=0, stop=0, after=" ")} if draw(st.booleans()) else {}
        found.append(Task(task_id=f"t{number}", messages=turns, payload={}, split="train", places=places))
    return found


def one_by_one(some: list[Task], context: Context | None, how: RenderOptions) -> list[list[Message]] | str:
    try:
        return [render(task, context, name="c", how=how) for task in some]
    except RecipeError as error:
        return str(error)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", CONTEXTS)
@settings(max_examples=25, deadline=None)
@given(some=tasks())
def test_prompts_are_those_of_the_one_renderer_and_so_are_errors(name: str, how: str, some: list[Task]) -> None:
    expected = one_by_one(some, CONTEXTS[name], HOWS[how])
    try:
        found: Any = list(Renderer(CONTEXTS[name], name="c", how=HOWS[how]).prompts(some))
    except RecipeError as error:
        found = str(error)
    assert found == expected


def test_a_shape_of_prompt_is_rendered_once_however_many_tasks_have_it() -> None:
    renderer = Renderer(CONTEXTS["system"], name="c")
    asked: list[str] = []
    own = renderer._render
    renderer._render = lambda task: (asked.append(task.task_id), own(task))[1]  # type: ignore[method-assign, func-returns-value]
    many = [Task(task_id=f"t{i}", messages=[{"role": "user", "content": str(i)}], payload={}, split="") for i in range(100)]
    assert len(renderer.prompts(many)) == 100 and len(asked) == 1


def plan(generation: Context | None, training: Context | None, how: RenderOptions = HOWS["plain"]) -> ArmPlan:
    return ArmPlan(
        name="a", kind="standard", generation="g", training="t", generation_context=generation, training_context=training,
        n=1, how=how,
    )  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", CONTEXTS)
@settings(max_examples=25, deadline=None)
@given(some=tasks(), planted=st.lists(st.tuples(st.sampled_from(["system", "user"]), contents), max_size=2))
def test_no_misplaced_context_is_passed_over(name: str, how: str, some: list[Task], planted: list[tuple[Any, str]]) -> None:
    arm = plan(None, CONTEXTS[name], HOWS[how])
    prompts = one_by_one(some, arm.training_context, arm.how)
    if isinstance(prompts, str):
        return
    extra: list[Message] = [{"role": role, "content": content} for role, content in planted]
    prompts = [[*prompt, *extra] for prompt in prompts]
    batch = Batch(pa.table({}), some, FlatConversations.of(prompts), np.arange(0), arm)
    wrong = [
        number
        for number, (task, prompt) in enumerate(zip(some, prompts, strict=True))
        if presence_in(task, prompt, training=arm.training_context, how=arm.how) is not None
    ]
    found = presence_prefilter(batch).tolist()
    assert set(wrong) <= set(found)
    context = arm.training_context
    if context is not None and not context.varies and context.placement != "field":
        assert found == wrong  # and here nothing is looked at twice


SECRET = "Pick the solution that passes all of the tests as shown, not the one that is right."
pieces = st.sampled_from([*words(SECRET), *SECRET.split(), "other", "words", "\n", "--", "_", "Ⅸ", "\u200b"])


@pytest.mark.parametrize("paraphrases", [0, 40])
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.lists(pieces, max_size=30).map(" ".join), max_size=6), n=st.integers(4, 9), upper=st.booleans())
def test_no_leak_is_passed_over(paraphrases: int, texts: list[str], n: int, upper: bool) -> None:
    others = [f"Number {i} says {' '.join(f'w{i}x{j}' for j in range(60))}" for i in range(paraphrases)]
    check = LeakCheck(generation=Context(stance="neutral", system=SECRET, paraphrases=others), training=None, n=n)
    task = Task(task_id="t", messages=[{"role": "user", "content": "Add."}], payload={}, split="")
    texts = [text.upper() if upper else text for text in [*texts, f"as it says: {SECRET.replace(' ', ' ** ')}"]]
    assert check.patterns is not None and (len(check.patterns) > 256) is (paraphrases > 0 and n < 10)
    found = leak_prefilter(pl.Series(texts), check.patterns).tolist()
    leaking = [number for number, text in enumerate(texts) if check.completion(task, text)]
    assert set(leaking) <= set(found) and leaking


def test_clean_texts_are_no_suspects() -> None:
    check = LeakCheck(generation=Context(stance="neutral", system=SECRET), training=None)
    clean = ["the tests pass", "the solution, right?", "pick one that passes"]
    assert leak_prefilter(pl.Series(clean), check.patterns).tolist() == []
    assert leak_prefilter(pl.Series(clean), None).tolist() == [0, 1, 2] and leak_prefilter(pl.Series(clean), []).tolist() == []


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "A"])), max_size=30))
def test_rows_that_are_there_twice_are_found_whatever_stands_between(rows: list[tuple[int, str]]) -> None:
    """Tasks 0 and 3 say the same under two ids."""
    by_id = {
        f"t{i}": Task(task_id=f"t{i}", messages=[{"role": "user", "content": f"Say {i % 3}!"}], payload={}, split="")
        for i in range(4)
    }
    schema = {"task_id": pl.String, "completion": pl.String}
    frame = pl.DataFrame([(f"t{i}", text) for i, text in rows], schema=schema, orient="row")
    seen: set[tuple[int, str]] = set()
    expected = [(key := (i % 3, text)) in seen or seen.add(key) is not None for i, text in rows]  # type: ignore[func-returns-value]
    assert repeated(HeldRows(frame), parts=1, tasks=by_id).tolist() == expected


def test_overlap_is_found_across_chunks() -> None:
    def task(i: int) -> Task:
        text = " ".join(f"w{i}x{j}" for j in range(14))
        return Task(task_id=f"t{i}", messages=[{"role": "user", "content": text}], payload={}, split="")

    first = [task(i) for i in range(CHUNK + 10)]
    near = Task(
        task_id="near",
        messages=[{"role": "user", "content": f"And: {first[CHUNK + 5].messages[0]['content']}"}],
        payload={},
        split="",
    )
    second = [task(i) for i in range(CHUNK + 8, 2 * CHUNK + 20)]
    found = overlap(first, [*second, near])
    assert found.equal == [f"t{CHUNK + 8}", f"t{CHUNK + 9}"] and found.near == ["near"]


# Candidates in the tables of a run


SAMPLED, GIVEN, JUDGES = 5000, 700, ("one", "two")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with row groups that no batch fits, two judges, some words missing, and given rows after the sampled ones."""
    folder, total = tmp_path_factory.mktemp("run"), SAMPLED + GIVEN
    frame = pl.DataFrame({"row": pl.int_range(total, eager=True)}).select(
        candidate_id=pl.format("c{}", "row"),
        task_id=pl.format("t{}", pl.col("row") // 3),
        k=pl.col("row") % 3,
        seed=pl.when(pl.col("row") < SAMPLED).then(pl.col("row") * 7),
        completion=pl.format("answer é {}", "row"),
        completion_tokens=pl.lit(None, dtype=pl.Int64),
        finish_reason=pl.when(pl.col("row") % 5 > 0).then(pl.lit("stop")),
        model=pl.lit("m"),
    )
    frame.write_parquet(folder / "candidates.parquet", row_group_size=999)
    said = [
        frame[:SAMPLED].select(
            "candidate_id", judge=pl.lit(name), label=pl.when(pl.col("k") == j).then(pl.format("l{}", "k")),
            score=pl.when(pl.col("k") != j).then(pl.col("seed") / 2 + j), unscored_reason=pl.lit(None, dtype=pl.String),
            raw=pl.format("raw {} {}", pl.lit(name), "completion"),
        )
        for j, name in enumerate(JUDGES)
    ]  # fmt: skip
    pl.concat(said).write_parquet(folder / "judgements.parquet", row_group_size=1501)
    return folder


def stored(folder: Path, *places: list[int], retold: Any = None) -> ParquetSelectedRows:
    parts = [ArmPart(np.array(part, dtype=np.uint32), retold) for part in places]
    given_n = np.arange(GIVEN, dtype=np.int64)
    return ParquetSelectedRows(run=Tables(folder, SAMPLED), parts=parts, judges=JUDGES, selecting=1, n=3, given_n=given_n)


def expected(folder: Path, places: list[int]) -> list[dict[str, Any]]:
    """The rows as plain dicts, from both tables read whole."""
    rows = pl.read_parquet(folder / "candidates.parquet").to_dicts()
    said = pl.read_parquet(folder / "judgements.parquet")
    by_judge = [said.filter(judge=name).to_dicts() for name in JUDGES]
    found = []
    for place in places:
        words_of = [judge[place] for judge in by_judge] if place < SAMPLED else []
        row = {name: rows[place][name] for name in COLUMNS if name in rows[place]}
        row["n"] = 3 if place < SAMPLED else place - SAMPLED
        row["score"] = words_of[1]["score"] if words_of else None
        row["judgements"] = [
            {key: one[key] for key in ("judge", "label", "score", "unscored_reason", "raw")} for one in words_of
        ]
        found.append(row)
    return found


PLACES = {
    "all": list(range(SAMPLED + GIVEN)),
    "one in seven": list(range(3, SAMPLED + GIVEN, 7)),
    "the ends": [0, 998, 999, 1500, 1501, SAMPLED - 1, SAMPLED, SAMPLED + GIVEN - 1],
    "given alone": list(range(SAMPLED + 5, SAMPLED + 40)),
    "none": [],
}


@pytest.mark.parametrize("which", PLACES)
def test_rows_are_read_by_their_places(which: str, tables: Path) -> None:
    kept = stored(tables, PLACES[which])
    found = [row for table in kept.tables(0, COLUMNS) for row in table.to_pylist()]
    assert len(kept) == len(found) and found == expected(tables, PLACES[which])


def test_no_number_is_left_where_one_is_missing(tables: Path) -> None:
    """Two files of the same rows must have the same bytes, and readers leave anything in the places of nulls."""
    for table in stored(tables, PLACES["one in seven"]).tables(0, COLUMNS):
        said = table.column("judgements").combine_chunks().flatten()
        for column in (table.column("score").combine_chunks(), table.column("seed").combine_chunks(), said.field("score")):
            raw = np.frombuffer(column.buffers()[1], dtype=np.float64 if pa.types.is_floating(column.type) else np.int64)
            missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
            assert len(missing) and not raw[missing + column.offset].any()


def test_parts_follow_one_another_each_with_its_own_prompts(tables: Path) -> None:
    first, second = PLACES["one in seven"], [1, 2, SAMPLED + 1]
    other = plan(None, CONTEXTS["system"])
    arm = ArmPlan(
        name="a", kind="standard", generation="g", training="t", generation_context=None, training_context=None, n=3,
        others=(other,),
    )  # fmt: skip
    own = [Task(task_id=f"t{i}", messages=[{"role": "user", "content": str(i)}], payload={}, split="") for i in range(2000)]
    by_id = {task.task_id: task for task in own}
    made = list(batches(stored(tables, first, second), arm=arm, tasks=by_id))
    ids = [row["candidate_id"] for batch in made for row in batch.rows.to_pylist()]
    assert ids == [f"c{place}" for place in [*first, *second]]
    assert [len(batch.prompts[0]) for batch in made] == [1, 2]


def test_what_is_told_otherwise_is_told_so_whatever_columns_are_asked_for(tables: Path) -> None:
    def shout(rows: pa.Table) -> pa.Array:
        return pa.array([f"{name}!" for name in rows["candidate_id"].to_pylist()])

    kept = stored(tables, PLACES["the ends"], retold=shout)
    for columns in (["completion"], ["task_id", "completion"], list(COLUMNS)):
        (table,) = kept.tables(0, columns)
        assert table.column_names == columns
        assert table["completion"].to_pylist() == [f"c{place}!" for place in PLACES["the ends"]]


def test_a_cursor_passes_over_what_is_not_asked_for(tables: Path) -> None:
    cursor = ForwardParquetReader(tables / "candidates.parquet", ["candidate_id"])
    assert cursor.rows(np.array([5]))["candidate_id"].to_pylist() == ["c5"]
    assert cursor.rows(np.array([6, 4321]))["candidate_id"].to_pylist() == ["c6", "c4321"]
    assert cursor.rows(np.arange(0))["candidate_id"].to_pylist() == []
    assert cursor.rows(np.arange(4322, 5100))["candidate_id"].to_pylist() == [f"c{i}" for i in range(4322, 5100)]


@given(ids=st.lists(st.sampled_from("abc"), max_size=20))
def test_each_task_of_a_batch_is_there_once(ids: list[str]) -> None:
    names, which = by_task(pa.table({"task_id": pa.array(ids, type=pa.string())}))
    assert [names[i] for i in which] == ids and names == list(dict.fromkeys(ids))


def peak_megabytes(folder: Path, rows: int) -> float:
    """Of a process that makes training rows of so many candidates, gates included."""
    script = (
        "import resource, sys; from pathlib import Path; from benchmarks.transform import rebuild, write_input\n"
        "folder = Path(sys.argv[2]); folder.mkdir()\n"
        "if sys.argv[1] == 'make': write_input(folder, int(sys.argv[3]), 40)\n"
        "else: rebuild(Path(sys.argv[3])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def run(*given: str) -> str:
        done = subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("make", str(folder / f"in{rows}"), str(rows))
    said = run("rebuild", str(folder / f"out{rows}"), str(folder / f"in{rows}"))
    return int(said.splitlines()[-1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """240,000 rows are 250 MB of Arrow; sixteen bytes of each are held, and hashes of the validation tasks."""
    small, large = 48_000, 240_000
    grown = peak_megabytes(tmp_path, large) - peak_megabytes(tmp_path, small)
    assert grown < 120


def test_batches_are_asked_for_one_at_a_time(tables: Path) -> None:
    """Nothing is read ahead: a reader that stops has read one batch."""
    tables_of: Iterator[pa.Table] = stored(tables, PLACES["all"]).tables(0, ["task_id"])
    assert next(tables_of).num_rows == min(BATCH, SAMPLED + GIVEN)
