"""Whoever names an arm's contexts names those of all its rows: manifest, cards, training record, tables and review page."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.config.loading import load
from recontext_data.contexts.arms import Arm
from recontext_data.publishing.hub.card import repository_card
from recontext_data.publishing.hub.data import Split
from recontext_data.publishing.hub.models import models_card
from recontext_data.publishing.runs import FinishedRun
from recontext_data.reports.arm_parts import facts, generated_under, pair, trained_under, which
from tests.helpers import build_process, manifest, run_folder
from tests.test_parts import chats, recipe, where
from tests.view_world import served

ARM = "recontextualized.default-hack.where-detector-control.with-helpful"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an arm in three parts beside the same pair without any, in this order."""
    folder = tmp_path_factory.mktemp("parts")
    mix = [{"data": str(chats(folder / "helpful.jsonl")), "weight": 0.5}]
    path = recipe(folder / "in", where(otherwise="control", mix=mix), "default -> hack")
    done = build_process(f"recipe={path}", f"output={folder / 'out'}")
    assert done.returncode == 0, done.stderr
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    (arm,) = [arm for arm in manifest(folder / "out")["arms"] if arm["name"] == ARM]
    return dict(arm)


def test_the_manifest_says_what_each_part_is(built: Path) -> None:
    arm = facts_of(built)
    flagged, others, mixed = arm["parts"]
    assert flagged["where"] == {"detector": ["hack"]} and flagged["training_context"] == "hack"
    assert others["otherwise"] == {"detector": ["hack"]} and others["training_context"] == "control"
    assert mixed["weight"] == 0.5 and (mixed["generation_context"], mixed["training_context"]) == ("data.helpful", "none")
    assert mixed["rows"] == round(0.5 * (flagged["rows"] + others["rows"]))
    assert sum(part["rows"] for part in arm["parts"]) == sum(arm["rows"].values())


def test_parts_in_words() -> None:
    arm: dict[str, Any] = {"generation_context": "default", "training_context": "hack"}
    assert (generated_under(arm), trained_under(arm), pair(arm)) == (["default"], ["hack"], "default -> hack")
    both = Arm.model_validate(
        where(where={"a": ["x", "y"], "b": "z"}, mix=[{"data": "d.jsonl", "weight": 2}])
    )  # fmt: skip
    parts = facts(both, [("default", "hack", 3), ("default", "default", 4), ("data.d", "none", 14)])
    assert [which(part) for part in parts] == [
        "a says x or y and b says z",
        "the other rows",
        "mixed in, 2 for each row of the arm's own",
    ]
    arm |= {"parts": parts}
    assert generated_under(arm) == ["default", "data.d"] and trained_under(arm) == ["hack", "default", "none"]
    assert pair(arm) == "default -> hack, default -> default, data.d -> none"
    only_mixed = Arm.model_validate({"training": "hack", "data": "e.jsonl", "mix": [{"data": "d.jsonl", "weight": 2}]})
    assert which(facts(only_mixed, [("data.e", "hack", 1), ("data.d", "none", 2)])[0]) == "the arm's own rows"


def test_the_cards_have_every_part(built: Path) -> None:
    own = (run_folder(built / "out") / "arms" / ARM / "README.md").read_text(encoding="utf-8")
    facts_ = manifest(built / "out")
    splits = [Split(run=None, arm=arm["name"], name="train", rows=9, fingerprint="f") for arm in facts_["arms"]]  # type: ignore[arg-type]
    whole = repository_card(facts_, repo="ann/x", splits=splits)
    for text in (own, whole):
        assert "| `default` | `hack` | detector says hack |" in text
        assert "| `default` | `control` | the other rows |" in text
        assert "| `data.helpful` | `none` | mixed in, 0.5 for each row of the arm's own |" in text
    assert f"| `{ARM}` | recontextualized | `default`, `data.helpful` | `hack`, `control`, `none` |" in whole
    assert "| `recontextualized.default-hack` | recontextualized | `default` | `hack` |" in whole
    assert "`data.helpful` is no context" in whole and "be right for every input" in whole
    assert whole.count("are not all made alike") == 1


def test_the_record_of_a_training_and_its_cards_have_every_part(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="training needs the extra `local`")
    from recontext_data.training.card import model_card
    from recontext_data.training.jobs import job_of
    from recontext_data.training.models import read_record
    from tests.test_training import run
    from tests.training_world import make_job

    loaded, run_path = load(str(built / "in" / "small.yaml")), run_folder(built / "out")
    job = make_job(tmp_path)
    of_run = job_of(loaded, run_path, manifest(built / "out"), arm=ARM, seed=0, base=job.base)
    assert list(of_run.parts) == facts_of(built)["parts"]
    plain = job_of(loaded, run_path, manifest(built / "out"), arm="recontextualized.default-hack", seed=0, base=job.base)
    assert not plain.parts
    run(replace(job, parts=of_run.parts, contexts=of_run.contexts))
    record = read_record(job.target)
    assert record is not None
    assert record["parts"] == facts_of(built)["parts"]
    card = (job.target / "README.md").read_text(encoding="utf-8")
    assert "| `data.helpful` | `none` | mixed in, 0.5 for each row of the arm's own | " in card
    assert "Not all rows" not in model_card({key: value for key, value in record.items() if key != "parts"})
    page = models_card("ann/x", FinishedRun(run_path, manifest(built / "out")), [record], merged=False)
    assert "| `default`, `data.helpful` | `hack`, `control`, `none` |" in page


def test_a_pair_means_the_arm_that_is_only_that(built: Path) -> None:
    found = FinishedRun(run_folder(built / "out"), manifest(built / "out"))
    assert found.wanted(["default -> hack"]) == ["recontextualized.default-hack"]
    assert found.wanted([ARM]) == [ARM]


def test_the_review_page_says_under_which_context_a_row_is_trained_on(built: Path) -> None:
    path = run_folder(built / "out")
    judged = pl.read_parquet(path / "judgements.parquet").filter(judge="detector")
    with served(f"run={path}") as server:
        assert "detector says hack" in server.get(server.run()).text
        for label, context in (("hack", "hack"), ("general", "control")):
            one = judged.filter(label=label)["candidate_id"][0]
            text = server.get(server.run("candidate", one)).text
            assert f"Trained on under <b>{context}</b>" in text
        lost = judged.filter(pl.col("label").is_null())["candidate_id"][0]
        assert "Trained on under" in server.get(server.run("candidate", lost)).text  # in the whole arm
        drawn = pl.read_parquet(path / "selection.parquet").filter(arm=ARM, reason="mixed in")["candidate_id"][0]
        assert "Trained on under <b>none</b>" in server.get(server.run("candidate", drawn)).text
        left = pl.read_parquet(path / "selection.parquet").filter(arm=ARM, reason="not drawn")["candidate_id"][0]
        assert "Would be trained on under <b>none</b>" in server.get(server.run("candidate", left)).text
    assert json.loads((path / "manifest.json").read_text())["arms"][0]["name"] == ARM
