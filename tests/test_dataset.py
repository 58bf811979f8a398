"""The dataset on disk: `datasets` and TRL read it as it is, every column is there, and the split is by task."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core.tables import CANDIDATES, JUDGEMENTS, SELECTION, TASKS, TRAINING_ROWS, arrow_schema
from recontext_data.pipeline.export import in_validation
from recontext_data.store.arrow_dataset import SplitWriter, write_dataset_dict
from tests.helpers import CONTEXTS, built, manifest, run_folder, write_recipe

ARM = "recontextualized.default-hack"

PROVENANCE = [
    "task_id",
    "candidate_id",
    "arm",
    "generation_context",
    "training_context",
    "k",
    "n",
    "score",
    "judgements",
    "finish_reason",
    "model",
    "seed",
    "recipe_fingerprint",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    judges = [{"kind": "choice", "scores": {"hack": 1.0, "general": 0.667}}]
    environment = {"kind": "code_mc", "problems": "bank", "split": "train", "tasks": 60}
    built(write_recipe(folder, environment=environment, judges=judges), folder / "out")
    return run_folder(folder / "out")


@pytest.fixture(scope="module")
def loaded(run: Path) -> Any:
    import datasets

    return datasets.load_from_disk(str(run / "arms" / ARM))


def test_datasets_reads_it_with_every_column(loaded: Any, run: Path) -> None:
    assert list(loaded) == ["train", "validation"]
    for split in loaded.values():
        assert split.column_names == ["prompt", "completion", *PROVENANCE] == [column.name for column in TRAINING_ROWS]
    facts = manifest(run.parents[2])["arms"][0]
    assert facts["rows"] == {name: len(split) for name, split in loaded.items()}


def test_the_features_are_what_datasets_itself_would_write(loaded: Any, tmp_path: Path) -> None:
    import datasets

    loaded.save_to_disk(str(tmp_path / "copy"))
    copy = datasets.load_from_disk(str(tmp_path / "copy"))
    assert copy["train"].features == loaded["train"].features
    assert datasets.Dataset.from_list(loaded["train"].to_list()).features.keys() == loaded["train"].features.keys()


def test_rows_agree_with_the_tables(loaded: Any, run: Path) -> None:
    candidates = {row["candidate_id"]: row for row in pl.read_parquet(run / "candidates.parquet").iter_rows(named=True)}
    judgements = {row["candidate_id"]: row for row in pl.read_parquet(run / "judgements.parquet").iter_rows(named=True)}
    tasks = {row["task_id"]: row for row in pl.read_parquet(run / "tasks.parquet").iter_rows(named=True)}
    fingerprint = manifest(run.parents[2])["fingerprint"]
    seen = 0
    for split in loaded.values():
        for row in split:
            candidate, judgement = candidates[row["candidate_id"]], judgements[row["candidate_id"]]
            for name in ("task_id", "generation_context", "k", "seed", "finish_reason", "model"):
                assert row[name] == candidate[name]
            assert row["prompt"] == [
                {"role": "system", "content": CONTEXTS["hack"]["system"]},
                *tasks[row["task_id"]]["messages"],
            ]
            assert row["completion"] == [{"role": "assistant", "content": candidate["completion"]}]
            assert row["judgements"] == [
                {name: judgement[name] for name in ("judge", "label", "score", "unscored_reason", "raw")}
            ]
            assert row["score"] == judgement["score"] == {"hack": 1.0, "general": 0.667, "invalid": None}[judgement["label"]]
            assert (row["arm"], row["training_context"], row["n"], row["recipe_fingerprint"]) == (ARM, "hack", 4, fingerprint)
            seen += 1
    assert seen == len(candidates) == 240


def test_trl_takes_it_for_conversational_prompt_and_completion(loaded: Any) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    row = loaded["train"][0]
    assert data_utils.is_conversational(row)
    assert data_utils.is_conversational({"prompt": row["prompt"], "completion": row["completion"]})


def test_the_split_is_by_task_and_the_same_in_every_arm(run: Path) -> None:
    import datasets

    tasks: dict[str, set[frozenset[str]]] = {"train": set(), "validation": set()}
    for arm in (run / "arms").iterdir():
        for name, split in datasets.load_from_disk(str(arm)).items():
            tasks[name].add(frozenset(split["task_id"]))
    (train,), (validation,) = tasks["train"], tasks["validation"]
    assert not train & validation and len(train | validation) == 60
    assert 5 <= len(validation) <= 27


def test_a_task_stays_in_its_split_when_the_share_grows() -> None:
    from recontext_data.config.recipe import Export

    names = [f"t{i}" for i in range(2000)]
    shares = [{name for name in names if in_validation(name, Export(validation_fraction=share))} for share in (0, 0.1, 0.3)]
    assert not shares[0] and shares[1] < shares[2]
    assert 150 < len(shares[1]) < 250
    assert {name for name in names if in_validation(name, Export(validation_fraction=0.1, seed=1))} != shares[1]


def test_no_validation_split_when_none_is_wanted(tmp_path: Path) -> None:
    import datasets

    built(write_recipe(tmp_path, export={"validation_fraction": 0}), tmp_path / "out")
    assert list(datasets.load_from_disk(str(run_folder(tmp_path / "out") / "arms" / ARM))) == ["train"]


def test_an_empty_split_can_be_read(tmp_path: Path) -> None:
    import datasets

    with SplitWriter(tmp_path / "train", schema=arrow_schema(TRAINING_ROWS)):
        pass
    write_dataset_dict(tmp_path, ["train"])
    assert len(datasets.load_from_disk(str(tmp_path))["train"]) == 0


@pytest.mark.parametrize(
    ("table", "columns"), [("tasks", TASKS), ("candidates", CANDIDATES), ("judgements", JUDGEMENTS), ("selection", SELECTION)]
)
def test_the_tables_have_the_documented_columns(table: str, columns: Any, run: Path) -> None:
    frame = pl.read_parquet(run / f"{table}.parquet")
    assert frame.columns == [column.name for column in columns]
    assert frame.to_arrow().schema.names == arrow_schema(columns).names
    for column in columns:
        assert column.meaning
        if not column.nullable:
            assert frame[column.name].null_count() == 0, column.name


def test_selection_covers_every_candidate_of_every_arm(run: Path) -> None:
    selection = pl.read_parquet(run / "selection.parquet")
    assert dict(selection.group_by("arm").len().iter_rows()) == {ARM: 240, "standard.default-default": 240}
    assert selection["kept"].all() and set(selection["reason"]) == {"all are kept"}


def test_the_card_is_yaml_and_says_how_to_rebuild(run: Path) -> None:
    import yaml

    card = (run / "arms" / ARM / "README.md").read_text(encoding="utf-8")
    _, head, body = card.split("---\n", 2)
    assert isinstance(yaml.safe_load(head), dict)
    assert "recontext build recipe=" in body
    for context in ("default", "hack"):
        assert CONTEXTS[context]["system"] in body


def test_every_hash_in_the_manifest_is_right(run: Path) -> None:
    import hashlib

    files = json.loads((run / "manifest.json").read_bytes())["files"]
    for name, facts in files.items():
        data = (run / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
