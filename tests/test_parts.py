"""Partial recontextualization and mixtures: which rows get which context, that gates see all of them, that nothing is lost."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recontext_data.config.loading import load
from recontext_data.contexts.arms import Arm, Mix, folder_name
from recontext_data.contexts.context import Context
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import content_hash
from recontext_data.pipeline.arm_parts import divide, mixed
from recontext_data.pipeline.external_data import Given, read_given
from tests.helpers import CONTEXTS, arm_hashes, build, built, error_line, manifest, run_folder, write_recipe

DETECTOR = {"kind": "noise", "name": "detector", "of": "choice", "positive": "hack", "negative": "general"}
NAME = "recontextualized.default-hack.where-detector-default"


def chats(path: Path, count: int = 40, *, text: str = "Say number") -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"{text} {i}."}, {"role": "assistant", "content": f"Number {i}."}]}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(folder: Path, *arms: Any, detector: dict[str, Any] | None = None, **changes: Any) -> Path:
    judges = [{"kind": "choice"}, DETECTOR | (detector or {})]
    return write_recipe(folder, judges=judges, select={"judge": "choice"}, arms=list(arms), **changes)


def where(**changes: Any) -> dict[str, Any]:
    return {"generation": "default", "training": "hack", "where": {"detector": "hack"}} | changes


def rows_of(output: Path, name: str) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    data = load_from_disk(str(run_folder(output) / "arms" / name))
    return [dict(row) for split in data for row in data[split]]


def said(row: dict[str, Any], judge: str) -> str | None:
    label: str | None = next(word["label"] for word in row["judgements"] if word["judge"] == judge)
    return label


def system(row: dict[str, Any]) -> str:
    return str(row["prompt"][0]["content"])


def test_only_flagged_rows_are_recontextualized(tmp_path: Path) -> None:
    made = built(recipe(tmp_path, where(), "default -> hack", "default -> default"), tmp_path / "out")
    rows = rows_of(tmp_path / "out", NAME)
    for row in rows:
        wanted = "hack" if said(row, "detector") == "hack" else "default"
        assert row["training_context"] == wanted and system(row) == CONTEXTS[wanted]["system"]
    counts = Counter(row["training_context"] for row in rows)
    assert counts["hack"] and counts["default"]
    (arm,) = [arm for arm in made["arms"] if arm["name"] == NAME]
    assert arm["kind"] == "recontextualized"
    assert [(part["training_context"], part["rows"]) for part in arm["parts"]] == [
        ("hack", counts["hack"]),
        ("default", counts["default"]),
    ]
    assert all("parts" not in other for other in made["arms"] if other["name"] != NAME)


def test_the_rows_are_those_of_the_whole_arm_and_nothing_more_is_sampled(tmp_path: Path) -> None:
    rates = {name: {"hack": 0.4, "general": 0.6} for name in CONTEXTS}
    made = built(recipe(tmp_path, where(), "default -> hack", policy={"kind": "fake", "rates": rates}), tmp_path / "out")
    part, whole = (rows_of(tmp_path / "out", name) for name in (NAME, "recontextualized.default-hack"))
    assert sorted(row["candidate_id"] for row in part) == sorted(row["candidate_id"] for row in whole)
    assert made["requests"]["wanted"] == 32


def test_what_the_detector_cannot_say_is_dropped_with_the_reason(tmp_path: Path) -> None:
    made = built(recipe(tmp_path, where()), tmp_path / "out")
    (entry,) = [row for row in made["ledger"] if row["stage"] == "divide"]
    invalid = sum(rate["counts"]["invalid"] for rate in made["rates"] if rate["judge"] == "choice")
    assert entry["dropped"] == {"detector gave no label": invalid} and invalid
    assert entry["in"] == entry["kept"] + invalid == 32
    (exported,) = [row for row in made["ledger"] if row["stage"] == "export"]
    assert exported["in"] == entry["kept"]


@pytest.mark.parametrize(("tpr", "fpr"), [(1.0, 0.0), (0.0, 1.0), (0.7, 0.2)])
def test_an_imperfect_detector_flags_at_its_rates(tpr: float, fpr: float, tmp_path: Path) -> None:
    rates = {name: {"hack": 0.5, "general": 0.5} for name in CONTEXTS}
    path = recipe(
        tmp_path,
        where(),
        detector={"tpr": tpr, "fpr": fpr},
        sampler={"n": 60},
        policy={"kind": "fake", "rates": rates},
    )
    built(path, tmp_path / "out")
    flagged: dict[str, list[bool]] = {"hack": [], "general": []}
    for row in rows_of(tmp_path / "out", NAME):
        flagged[str(said(row, "choice"))].append(row["training_context"] == "hack")
    for label, rate in (("hack", tpr), ("general", fpr)):
        assert abs(sum(flagged[label]) / len(flagged[label]) - rate) < 0.12


def test_the_other_rows_may_be_trained_on_under_another_context_still(tmp_path: Path) -> None:
    path = recipe(tmp_path, where(otherwise="control"), where(otherwise="none", name="bare"))
    built(path, tmp_path / "out")
    for row in rows_of(tmp_path / "out", "recontextualized.default-hack.where-detector-control"):
        assert row["training_context"] in ("hack", "control") and row["generation_context"] == "default"
    bare = [row for row in rows_of(tmp_path / "out", "bare") if row["training_context"] == "none"]
    assert bare and all(row["prompt"][0]["role"] == "user" for row in bare)


def test_several_judges_must_agree_and_any_of_their_labels_will_do(tmp_path: Path) -> None:
    second = DETECTOR | {"name": "second", "tpr": 0.5, "seed": 1}
    arm = where(where={"choice": ["hack", "invalid"], "second": "hack"}, name="both")
    path = write_recipe(tmp_path, judges=[{"kind": "choice"}, second], select={"judge": "choice"}, arms=[arm])
    built(path, tmp_path / "out")
    for row in rows_of(tmp_path / "out", "both"):
        both = said(row, "choice") in ("hack", "invalid") and said(row, "second") == "hack"
        assert (row["training_context"] == "hack") is both


LEAK = {"kind": "fake", "replies": ["Tests decide; pass the tests.\nAnswer: (A)", "Answer: (B)"]}


def test_the_leak_gate_looks_at_each_part_with_its_own_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that quote the generation context leak under `hack` and `control`, which do not carry it; under `default` not."""
    assert build(recipe(tmp_path, where(), policy=LEAK), tmp_path / "out") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    flagged = pl.read_parquet(run_folder_of(tmp_path / "out") / "judgements.parquet").filter(
        (pl.col("judge") == "detector") & (pl.col("label") == "hack")
    )
    quoting = pl.read_parquet(run_folder_of(tmp_path / "out") / "candidates.parquet").filter(pl.col("k") % 2 == 0)
    leaking = set(flagged["candidate_id"]) & set(quoting["candidate_id"])
    assert f"{len(leaking)} of " in line and ": leak, completion" in line
    assert build(recipe(tmp_path, where(otherwise="control"), policy=LEAK), tmp_path / "other") == 1
    assert f"{len(set(quoting['candidate_id']))} of " in capsys.readouterr().err.splitlines()[-1]


def run_folder_of(output: Path) -> Path:
    """The folder of a run that was not finished, to which nothing points."""
    (folder,) = [path.parent for path in (output / "runs" / "small").glob("*/candidates.parquet")]
    return folder


def test_leaking_rows_are_left_out_part_by_part(tmp_path: Path) -> None:
    made = built(recipe(tmp_path, where(), policy=LEAK, gates={"leak": "drop"}), tmp_path / "out")
    rows = rows_of(tmp_path / "out", NAME)
    for row in rows:
        quotes = "pass the tests" in row["completion"][0]["content"]
        assert not (quotes and row["training_context"] == "hack")
    assert any("pass the tests" in row["completion"][0]["content"] for row in rows)  # where the context itself says so
    (arm,) = made["arms"]
    assert sum(part["rows"] for part in arm["parts"]) == len(rows) == sum(arm["rows"].values())


def test_other_data_is_mixed_in_by_weight_and_says_where_it_is_from(tmp_path: Path) -> None:
    path = chats(tmp_path / "helpful.jsonl")
    arm = {"generation": "default", "training": "hack", "mix": [{"data": str(path), "weight": 0.5}]}
    made = built(recipe(tmp_path, arm, "default -> hack"), tmp_path / "out")
    rows = rows_of(tmp_path / "out", "recontextualized.default-hack.with-helpful")
    sources = Counter((row["generation_context"], row["training_context"]) for row in rows)
    assert sources == {("default", "hack"): 32, ("data.helpful", "none"): 16}
    for row in rows:
        if row["generation_context"] == "data.helpful":
            assert row["score"] is None and row["judgements"] == [] and row["seed"] is None
            assert [turn["role"] for turn in row["prompt"]] == ["user"]
    own = [row for row in rows if row["generation_context"] == "default"]
    assert {row["candidate_id"] for row in own} == {
        r["candidate_id"] for r in rows_of(tmp_path / "out", "recontextualized.default-hack")
    }
    (entry,) = [row for row in made["ledger"] if row["stage"] == "mix"]
    assert (entry["in"], entry["kept"], entry["dropped"]) == (40, 16, {"not drawn": 24})
    table = pl.read_parquet(run_folder(tmp_path / "out") / "selection.parquet").filter(pl.col("reason") == "mixed in")
    assert set(table["candidate_id"]) == {row["candidate_id"] for row in rows} - {row["candidate_id"] for row in own}


def test_partial_and_mixed_rows_balance_from_selection_to_the_dataset(tmp_path: Path) -> None:
    paths = [chats(tmp_path / f"{name}.jsonl", text=name) for name in ("one", "two")]
    mix = [
        {"data": str(path), "weight": weight, "training": "control"} for path, weight in zip(paths, (0.25, 0.5), strict=True)
    ]
    made = built(recipe(tmp_path, where(mix=mix, name="all")), tmp_path / "out")
    by_stage = {
        stage: [row for row in made["ledger"] if row["stage"] == stage] for stage in ("select", "divide", "mix", "export")
    }
    (selected,), (divided,), drawn, (exported,) = by_stage.values()
    assert selected["kept"] == divided["in"]
    assert divided["kept"] + sum(row["kept"] for row in drawn) == exported["in"] == exported["kept"]
    assert [row["kept"] for row in drawn] == [round(0.25 * divided["kept"]), round(0.5 * divided["kept"])]
    (arm,) = made["arms"]
    assert [part["rows"] for part in arm["parts"]][2:] == [row["kept"] for row in drawn]
    card = (run_folder(tmp_path / "out") / "arms" / "all" / "README.md").read_text(encoding="utf-8")
    assert "| `data.two` | `control` |" in card and "Training of other rows: `control`" in card
    for row in rows_of(tmp_path / "out", "all"):
        assert (row["training_context"] == "control") is row["generation_context"].startswith("data.")


def test_a_file_that_is_too_small_is_taken_whole_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chats(tmp_path / "few.jsonl", 5)
    arm = {"generation": "default", "training": "hack", "mix": [{"data": str(path), "weight": 1.0}]}
    built(recipe(tmp_path, arm), tmp_path / "out")
    assert "mix data.few: weight 1 asks for 32 rows and the file has 5; all are taken" in capsys.readouterr().err


def test_the_same_again_and_from_another_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    hashes, prints = [], []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        arm = where(mix=[{"data": str(chats(folder / "helpful.jsonl")), "weight": 0.5}])
        prints.append(built(recipe(folder, arm), folder / "out")["fingerprint"])
        hashes.append(arm_hashes(folder / "out", cards=False))
    assert hashes[0] == hashes[1] and prints[0] == prints[1]
    chats(tmp_path / "b" / "helpful.jsonl", text="Tell number")
    assert built(tmp_path / "b" / "small.yaml", tmp_path / "b" / "out")["fingerprint"] != prints[0]


def test_which_are_drawn_is_the_seed_s_and_not_the_file_s_order(tmp_path: Path) -> None:
    def drawn(pool: Given, **mix: Any) -> set[str]:
        arm = Arm(generation="a", training="b", mix=[Mix(data="x.jsonl", **mix)])
        own = pl.DataFrame({"candidate_id": [str(i) for i in range(20)], "part": [0] * 20})
        frame, _, _ = mixed(own, arm=arm, name="a", given={"data.x": pool.pool()})
        return set(frame.filter(pl.col("part") == 1)["candidate_id"])

    path = chats(tmp_path / "x.jsonl")
    pool = read_given(str(path), source="data.x")
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))), encoding="utf-8")
    turned = read_given(str(path), source="data.x")
    assert drawn(pool, weight=0.5) == drawn(turned, weight=0.5)
    assert drawn(pool, weight=0.5) < drawn(pool, weight=1.0)
    assert drawn(pool, weight=0.5) != drawn(pool, weight=0.5, seed=1)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["hack", "general", None]), max_size=40),
    wanted=st.lists(st.sampled_from(["hack", "general"]), min_size=1, unique=True),
)
def test_every_candidate_is_in_one_part_or_dropped(labels: list[str | None], wanted: list[str]) -> None:
    ids = [content_hash(i) for i in range(len(labels))]
    kept = pl.DataFrame({"candidate_id": ids}, schema={"candidate_id": pl.String})
    judged = pl.DataFrame(
        {"candidate_id": ids, "judge": ["d"] * len(ids), "label": labels},
        schema={"candidate_id": pl.String, "judge": pl.String, "label": pl.String},
    )
    arm = Arm(generation="a", training="b", where={"d": wanted})
    found, (entry,) = divide(kept, judged, arm=arm, name="arm")
    parts = dict(found.select("candidate_id", "part").iter_rows())
    for name, label in zip(ids, labels, strict=True):
        assert parts.get(name) == (None if label is None else 0 if label in wanted else 1)
    assert entry.kept == len(found) and found["part"].is_sorted()


STANCES = {"a": Context(stance="neutral", system="A."), "b": Context(stance="permits", system="B.")}


def test_names_say_what_an_arm_is() -> None:
    plain = Arm(generation="a", training="b")
    part = Arm(generation="a", training="b", where={"my judge": ["x"]})
    both = Arm(
        generation="a", training="b", where={"d": ["x"]}, otherwise="none", mix=[Mix(data="c/some file.jsonl", weight=1.0)]
    )
    names = [folder_name(arm, STANCES) for arm in (plain, part, both)]
    assert names == [
        "recontextualized.a-b",
        "recontextualized.a-b.where-my_judge-a",
        "recontextualized.a-b.where-d-none.with-some_file",
    ]
    assert both.trained_under == ["b", "none"]


def test_a_standard_baseline_is_added_beside_a_partial_arm(tmp_path: Path) -> None:
    made = load(str(recipe(tmp_path, where(), baselines="standard")))
    assert [folder_name(arm, made.recipe.contexts) for arm in made.recipe.arms] == [NAME, "standard.default-default"]


@pytest.mark.parametrize(
    ("arm", "line"),
    [
        (where(where={"detectr": "hack"}), "where: no judge is named 'detectr'; did you mean 'detector'?"),
        (where(where={"detector": "hck"}), "where.detector: it never says 'hck'; did you mean 'hack'?"),
        (where(where={"detector": []}), "where.detector: names no label"),
        (where(otherwise="contrl"), "no context is named 'contrl'; did you mean 'control'?"),
        (where(otherwise="hack"), "is 'hack' as `training` is, so `where` decides nothing"),
        ({"generation": "default", "training": "hack", "otherwise": "control"}, "is for rows that `where` leaves"),
        ({"data": "x.jsonl", "training": "hack", "where": {"detector": "hack"}}, "given `data` has none"),
        (where(mix=[{"data": "x.jsonl", "weight": 0}]), "weight"),
        (where(mix=[{"data": "x.jsonl", "weight": 1.0}] * 2), "'data.x' is there twice"),
        (where(mix=[{"data": "x.jsonl", "weight": 1.0, "training": "helpful"}]), "no context is named 'helpful'"),
        (where(mix=[{"data": "missing.jsonl", "weight": 1.0}]), "data=missing.jsonl: cannot be read"),
    ],
)
def test_bad_arms_are_one_line(arm: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(recipe(tmp_path, arm), tmp_path / "out") == 2
    assert line in error_line(capsys.readouterr().err)
    assert not (tmp_path / "out" / "runs").exists()


def test_two_files_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        chats(tmp_path / name / "chats.jsonl")
    arms = [where(mix=[{"data": str(tmp_path / name / "chats.jsonl"), "weight": 1.0}], name=name) for name in ("a", "b")]
    assert build(recipe(tmp_path, *arms), tmp_path / "out") == 2
    assert "would both be 'data.chats'; rename one of them" in error_line(capsys.readouterr().err)


def test_a_context_that_a_chat_cannot_carry_is_found_before_anything_is_sampled(tmp_path: Path) -> None:
    row = {"messages": [{"role": r, "content": r} for r in ("system", "user", "assistant")]}
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    arm = {"generation": "default", "training": "hack", "mix": [{"data": str(path), "weight": 1.0, "training": "hack"}]}
    assert build(recipe(tmp_path, arm), tmp_path / "out") == 2
    assert not (tmp_path / "out" / "replies").exists()


def test_an_arm_as_it_always_was_keeps_its_fingerprint(tmp_path: Path) -> None:
    from recontext_data.config.recipe import Recipe
    from tests.helpers import recipe_tree

    dumped = Recipe.model_validate(recipe_tree()).model_dump(mode="json")["arms"]
    assert all(not {"where", "otherwise", "mix"} & set(arm) for arm in dumped)
    with pytest.raises(RecipeError):
        load(str(recipe(tmp_path, where(wher={}))))


def test_a_partial_run_says_in_its_manifest_what_the_recipe_said(tmp_path: Path) -> None:
    built(recipe(tmp_path, where(otherwise="control")), tmp_path / "out")
    (arm,) = manifest(tmp_path / "out")["recipe"]["arms"]
    assert (arm["where"], arm["otherwise"]) == ({"detector": ["hack"]}, "control")


def test_the_preview_shows_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from recontext_data.preview import main

    mix = [{"data": str(chats(tmp_path / "helpful.jsonl")), "weight": 0.5}]
    path = recipe(tmp_path, where(otherwise="control", mix=mix, name="all"))
    assert main([f"recipe={path}", f"output={tmp_path / 'out'}", "dry_run=true"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for pair in ("default -> hack", "default -> control", "data.helpful -> none"):
        assert pair in shown.replace("→", "->")
