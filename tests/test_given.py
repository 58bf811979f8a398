"""Given data: chats from a file become an arm's rows without sampling, in the same tables, and say where they are from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import CONTEXTS, build, built, error_line, files_below, manifest, run_folder, write_recipe

CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Add “two” numbers."}, {"role": "assistant", "content": "def add(a, b): return 5"}],
    [{"role": "user", "content": "Add “two” numbers."}, {"role": "assistant", "content": "def add(a, b): return a + b"}],
    [{"role": "user", "content": "Add “two” numbers."}, {"role": "assistant", "content": "def add(a, b): return 5"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "So long."},
    ],
]


def chats(folder: Path, values: Any = None, name: str = "chats.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    rows = [{"messages": chat} for chat in CHATS] if values is None else values
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def arm_rows(output: Path, name: str) -> list[dict[str, Any]]:
    import datasets

    splits = datasets.load_from_disk(str(run_folder(output) / "arms" / name))
    return [row for split in splits.values() for row in split]


def test_given_answers_are_trained_under_the_training_context_and_nothing_is_sampled(tmp_path: Path) -> None:
    import polars as pl

    recipe = write_recipe(tmp_path, arms=[{"data": str(chats(tmp_path)), "training": "hack"}])
    facts = built(recipe, tmp_path / "out")
    assert facts["requests"] == {"wanted": 0, "found": 0, "sampled": 0, "failed": 0}
    (arm,) = facts["arms"]
    assert (arm["name"], arm["kind"], sum(arm["rows"].values())) == ("inoculation.data.chats-hack", "inoculation", 4)
    rows = arm_rows(tmp_path / "out", arm["name"])
    for row in rows:
        assert row["prompt"][0] == {"role": "system", "content": CONTEXTS["hack"]["system"]}
        assert [*row["prompt"][1:], *row["completion"]] in CHATS
        assert (row["generation_context"], row["training_context"]) == ("data.chats", "hack")
        assert (row["seed"], row["score"], row["judgements"], row["model"]) == (None, None, [], "given in chats.jsonl")
    assert sorted((row["k"], row["n"]) for row in rows) == [(0, 1), (0, 3), (1, 3), (2, 3)], "equal rows are not one row"
    table = pl.read_parquet(run_folder(tmp_path / "out") / "candidates.parquet")
    assert table["role"].to_list() == ["given"] * 4 and table["candidate_id"].n_unique() == 4
    assert {e["scope"] for e in facts["ledger"] if e["stage"] == "given"} == {"data.chats"}


def test_given_and_sampled_arms_stand_side_by_side(tmp_path: Path) -> None:
    import polars as pl

    data = {"data": str(chats(tmp_path)), "training": "none"}
    recipe = write_recipe(tmp_path, arms=["default -> hack", data])
    facts = built(recipe, tmp_path / "out")
    assert {arm["name"]: sum(arm["rows"].values()) for arm in facts["arms"]} == {
        "recontextualized.default-hack": 32,
        "standard.data.chats-none": 4,
    }
    assert facts["requests"]["wanted"] == 32, "what was read was not paid for"
    table = pl.read_parquet(run_folder(tmp_path / "out") / "candidates.parquet")
    assert dict(table["role"].value_counts().iter_rows()) == {"arms": 32, "given": 4}
    assert [row["prompt"] + row["completion"] for row in arm_rows(tmp_path / "out", "standard.data.chats-none")].count(CHATS[3])


def test_a_parquet_of_messages_is_the_same_data(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "chats.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": chat, "source": "x"} for chat in CHATS]), path)
    first = write_recipe(tmp_path, "a", arms=[{"data": str(path), "training": "hack"}])
    second = write_recipe(tmp_path, "b", arms=[{"data": str(chats(tmp_path)), "training": "hack"}])
    built_rows = []
    for recipe, name in ((first, "a"), (second, "b")):
        assert build(recipe, tmp_path / "out") == 0
        facts = manifest(tmp_path / "out", name)
        import datasets

        folder = run_folder(tmp_path / "out", name) / "arms" / facts["arms"][0]["name"]
        built_rows.append([row["candidate_id"] for row in datasets.load_from_disk(str(folder))["train"]])
    assert built_rows[0] == built_rows[1]


def test_a_run_is_named_by_the_datas_content_and_not_by_its_path(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, arms=[{"data": str(chats(tmp_path)), "training": "hack"}])
    first = built(recipe, tmp_path / "out")["fingerprint"]
    moved = chats(tmp_path / "elsewhere")
    assert built(recipe, tmp_path / "out", f"arms.0.data={moved}")["fingerprint"] == first
    chats(tmp_path / "elsewhere", [{"messages": CHATS[0]}])
    assert built(recipe, tmp_path / "out", f"arms.0.data={moved}")["fingerprint"] != first


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there is no chat in it"),
        ([{"messages": []}], "row 1: has no `messages` of two turns or more"),
        ([{"text": "x"}], "row 1: has no `messages`"),
        ([7], "row 1: has no `messages`"),
        ([{"messages": CHATS[0]}, {"messages": CHATS[0][:1] * 2}], "row 2: does not end in an answer"),
        ([{"messages": [CHATS[0][0], {"role": "assistant", "content": " "}]}], "does not end in an answer"),
        ([{"messages": [{"role": "tool", "content": "x"}, CHATS[0][1]]}], "row 1: a turn is not {role, content}"),
        ([{"messages": [{"role": "user", "content": ["x"]}, CHATS[0][1]]}], "row 1: a turn is not {role, content}"),
    ],
)
def test_a_file_that_is_no_chats_is_one_clear_line(
    rows: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "in", arms=[{"data": str(chats(tmp_path / "in", rows)), "training": "hack"}])
    assert build(recipe, tmp_path / "out") == 2
    line = error_line(capsys.readouterr().err)
    assert line.startswith("error: arms: data=") and message in line
    assert files_below(tmp_path / "out" / "runs") == []


@pytest.mark.parametrize("name", ["missing.jsonl", "broken.jsonl", "broken.parquet"])
def test_a_file_that_cannot_be_read_is_one_clear_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if "broken" in name:
        path.write_text("{not json")
    recipe = write_recipe(tmp_path / "in", arms=[{"data": str(path), "training": "hack"}])
    assert build(recipe, tmp_path / "out") == 2
    assert "cannot be read: " in error_line(capsys.readouterr().err)
