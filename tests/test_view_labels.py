"""Labels: nothing is lost or counted twice, undo takes back, labels.parquet is what holds; agreement; labels as a judge."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recontext_data.config.selection import Select
from recontext_data.core.errors import DataError, InputError, StoreError
from recontext_data.core.records import Candidate
from recontext_data.core.tables import LABELS
from recontext_data.judges.human import HumanJudge
from recontext_data.pipeline.judge import judge as judge_stage
from recontext_data.pipeline.select import select
from recontext_data.store.labels import QUESTIONS, Labels, labels_of
from recontext_data.view import OPTIONS
from recontext_data.viewer.agreement import agreement, agreements
from tests.helpers import ROOT, built, candidates, environment, write_recipe


def say(
    labels: Labels, candidate: str, value: str | None, *, reviewer: str = "ann", event: str = "", question: str = ""
) -> bool:
    asked = question or ("use" if value in ("keep", "drop") else "behaviour")
    event = event or os.urandom(6).hex()
    return labels.say(reviewer=reviewer, candidate_id=candidate, question=asked, value=value, event=event)


def held(folder: Path) -> list[tuple[str, str, str, str]]:
    """What a new reader of the folder finds."""
    fresh = Labels(folder)
    fresh.refresh()
    return [(row["candidate_id"], row["question"], row["reviewer"], row["label"]) for row in fresh.rows()]


def test_the_latest_word_holds_and_both_questions_stand_side_by_side(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels")
    say(labels, "a", "hack")
    say(labels, "a", "not_hack")
    say(labels, "a", "keep")
    say(labels, "b", "unsure", reviewer="bob")
    assert held(tmp_path / "labels") == [
        ("a", "behaviour", "ann", "not_hack"),
        ("a", "use", "ann", "keep"),
        ("b", "behaviour", "bob", "unsure"),
    ]


def test_an_event_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    assert say(labels, "a", "hack", event="e1")
    assert not say(labels, "a", "hack", event="e1")
    assert not say(Labels(tmp_path), "a", "hack", event="e1"), "another process knows it too"
    assert len((tmp_path / "ann.jsonl").read_bytes().splitlines()) == 1
    undone = labels.undo(reviewer="ann", undoes="e1", event="u1")
    assert undone is not None and undone.value == "hack"
    assert held(tmp_path) == []


def test_undo_takes_back_one_event_at_a_time_and_each_once(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    for event, value in (("1", "hack"), ("2", "not_hack"), ("3", "unsure")):
        say(labels, "a", value, event=event)
    assert (last := labels.last("ann")) and last.event == "3"
    labels.undo(reviewer="ann", undoes="3", event="u3")
    assert labels.undo(reviewer="ann", undoes="3", event="u3 again") is None
    assert held(tmp_path) == [("a", "behaviour", "ann", "not_hack")]
    labels.undo(reviewer="ann", undoes="1", event="u1")
    assert held(tmp_path) == [("a", "behaviour", "ann", "not_hack")], "what came after the undone one still holds"
    labels.undo(reviewer="ann", undoes="2", event="u2")
    assert held(tmp_path) == [] and labels.last("ann") is None
    assert labels.undo(reviewer="ann", undoes="never", event="u") is None


def test_nobody_undoes_what_another_said(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    say(labels, "a", "hack", event="1")
    assert labels.undo(reviewer="bob", undoes="1", event="u") is None
    assert held(tmp_path) == [("a", "behaviour", "ann", "hack")]


def test_a_cleared_label_does_not_hold_and_a_note_stays_with_its_candidate(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    say(labels, "a", "hack")
    say(labels, "a", "odd: \u202e\x00 <b>", question="note")
    assert labels.rows()[0]["note"] == "odd: \u202e\x00 <b>"
    say(labels, "a", None, question="behaviour")
    assert labels.rows() == [] and labels.value("ann", "a", "note") == "odd: \u202e\x00 <b>"


@settings(deadline=None, max_examples=40)  # every label is synced to the disk
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["hack", "not_hack", None, "undo"])), max_size=25))
def test_any_sequence_replays_to_what_was_held(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    labels = Labels(folder)
    stack: list[tuple[str, str | None]] = []
    for number, (candidate, value) in enumerate(steps):
        last = labels.last("ann")
        if value == "undo":
            if last is not None:
                labels.undo(reviewer="ann", undoes=last.event, event=f"u{number}")
                stack.pop()
        else:
            say(labels, candidate, value, event=str(number), question="behaviour")
            stack.append((candidate, value))
    wanted = sorted((c, "behaviour", "ann", v) for c, v in dict(stack).items() if v is not None)
    assert held(folder) == wanted


def test_a_line_that_a_crash_cut_short_is_passed_over_and_what_follows_is_not_lost(tmp_path: Path) -> None:
    say(Labels(tmp_path), "a", "hack")
    path = tmp_path / "ann.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    again = Labels(tmp_path)
    assert held(tmp_path) == [("a", "behaviour", "ann", "hack")]
    say(again, "b", "not_hack")
    assert held(tmp_path) == [("a", "behaviour", "ann", "hack"), ("b", "behaviour", "ann", "not_hack")]
    fresh = Labels(tmp_path)
    fresh.refresh()
    assert fresh.damaged() == 1


def test_a_flipped_bit_costs_one_label(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    for candidate in "abc":
        say(labels, candidate, "hack")
    path = tmp_path / "ann.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"hack"', b'"hacj"') + lines[2])
    assert [row[0] for row in held(tmp_path)] == ["a", "c"]


KILLED = """
import sys, itertools
from pathlib import Path
from recontext_data.store.labels import Labels
labels = Labels(Path(sys.argv[1]))
for number in itertools.count():
    labels.say(reviewer="ann", candidate_id=str(number), question="behaviour", value="hack", event=str(number))
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(25)]
    process.kill()
    said += process.stdout.read().splitlines()
    process.wait()
    acknowledged = {line.strip() for line in said if line.strip()}
    assert len(acknowledged) >= 25
    assert acknowledged <= {row[0] for row in held(tmp_path)}


def test_two_processes_and_threads_write_at_once(tmp_path: Path) -> None:
    """Two `Labels` of one folder are two processes' view of it: the lock is the file's."""
    sides = [Labels(tmp_path), Labels(tmp_path)]

    def work(side: Labels, reviewer: str, start: int) -> None:
        for number in range(start, start + 20):
            say(side, f"{number:03}", "hack", reviewer=reviewer, event=f"{reviewer}{number}")

    jobs = [(sides[0], "ann", 0), (sides[1], "ann", 20), (sides[0], "bob", 0), (sides[1], "bob", 10)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = held(tmp_path)
    assert len([row for row in found if row[2] == "ann"]) == 40
    assert len([row for row in found if row[2] == "bob"]) == 30


def test_the_parquet_file_is_what_the_journals_say(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    say(labels, "b", "hack")
    say(labels, "a", "keep", reviewer="bob")
    path = labels.compact()
    frame = pl.read_parquet(path)
    assert frame.columns == [column.name for column in LABELS]
    assert frame.select("candidate_id", "reviewer", "label").rows() == [("a", "bob", "keep"), ("b", "ann", "hack")]
    assert frame["time"].str.contains(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$").all()
    before = path.stat().st_mtime_ns
    labels.compact()
    assert path.stat().st_mtime_ns == before, "nothing new, nothing written"
    say(labels, "c", "drop")
    assert labels_of(path).num_rows == 3, "the journals know what the file does not yet"


def test_what_is_no_label_is_refused_in_one_line(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    for reviewer, question, value, words in (
        ("../etc", "behaviour", "hack", "is not a valid name"),
        ("ann", "taste", "hack", "known: behaviour, use"),
        ("ann", "behaviour", "keep", "known: hack, not_hack, unsure"),
        ("ann", "note", "x" * 10_001, "at most 10,000"),
    ):
        with pytest.raises(InputError, match=words):
            labels.say(reviewer=reviewer, candidate_id="a", question=question, value=value, event="e")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        say(Labels(tmp_path / "file" / "labels"), "a", "hack")


# -- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_counts_what_both_labelled() -> None:
    one = agreement("use", ("ann", "bob"), {"a": "keep", "b": "drop", "c": "keep"}, {"a": "keep", "b": "keep", "d": "drop"})
    assert (one.n, one.same, one.raw) == (2, 1, 0.5)
    assert one.table[("drop", "keep")] == 1
    none = agreement("use", ("ann", "bob"), {"a": "keep"}, {"b": "keep"})
    assert (none.n, none.raw, none.kappa) == (0, None, None)


def test_agreements_are_by_question_and_pair() -> None:
    rows = [{"question": "use", "reviewer": name, "candidate_id": "a", "label": "keep"} for name in ("cyd", "ann", "bob")] + [
        {"question": "behaviour", "reviewer": "ann", "candidate_id": "a", "label": "hack"}
    ]
    found = agreements(rows)
    assert [(one.question, one.first, one.second, one.n) for one in found] == [
        ("use", "ann", "bob", 1),
        ("use", "ann", "cyd", 1),
        ("use", "bob", "cyd", 1),
    ]


# -- labels as a judge ------------------------------------------------------------------------------------------------


def candidate(name: str) -> Candidate:
    return Candidate(candidate_id=name, task_id="t", messages=[], completion="c", payload={})


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """a: both say hack; b: they differ, bob later; c: ann is unsure; d: keep by ann, e: drop; f: nobody."""
    labels = Labels(tmp_path / "labels")
    for name, reviewer, value in (
        ("a", "ann", "hack"),
        ("a", "bob", "hack"),
        ("b", "ann", "hack"),
        ("b", "bob", "not_hack"),
        ("c", "ann", "unsure"),
        ("d", "ann", "keep"),
        ("e", "ann", "drop"),
    ):
        say(labels, name, value, reviewer=reviewer)
    return labels.compact()


def verdicts(path: Path, names: str, **config: Any) -> list[tuple[str | None, str | None]]:
    said = HumanJudge(file=str(path), **config).judge([candidate(name) for name in names])
    assert [one.candidate_id for one in said] == list(names)
    return [(one.label, one.unscored_reason) for one in said]


def test_labels_are_verdicts_and_what_nobody_labelled_is_unscored(labelled: Path) -> None:
    assert verdicts(labelled, "abcf") == [
        ("hack", None),
        (None, "reviewers differ"),
        (None, "the reviewer is unsure"),
        (None, "not labelled"),
    ]
    assert verdicts(labelled, "dea", question="use") == [("keep", None), ("drop", None), (None, "not labelled")]


def test_a_rule_decides_where_reviewers_differ(labelled: Path) -> None:
    assert verdicts(labelled, "b", conflict="newest") == [("not_hack", None)]
    assert verdicts(labelled, "b", conflict="majority") == [(None, "reviewers differ, without a majority")]
    assert verdicts(labelled, "b", reviewers=["ann"]) == [("hack", None)]
    assert verdicts(labelled, "b", reviewers=["cyd"]) == [(None, "not labelled")]
    say(Labels(labelled.parent), "b", "not_hack", reviewer="cyd")
    assert verdicts(labelled, "b", conflict="majority") == [("not_hack", None)], "read anew: somebody has labelled since"


def test_labels_can_be_called_what_the_environment_calls_them_and_scored(labelled: Path) -> None:
    judge = HumanJudge(file=str(labelled), names={"hack": "special_cases"}, scores={"special_cases": 1.0})
    said = judge.judge([candidate("a"), candidate("f")])
    assert [(one.label, one.score, one.raw) for one in said] == [
        ("special_cases", 1.0, "ann: hack; bob: hack"),
        (None, None, ""),
    ]


def test_a_label_without_a_score_has_none(labelled: Path) -> None:
    said = HumanJudge(file=str(labelled), question="use", scores={"keep": 1.0}).judge([candidate("d"), candidate("e")])
    assert [(one.label, one.score) for one in said] == [("keep", 1.0), ("drop", None)]


def test_the_identity_is_the_labels_and_not_the_file(labelled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.parquet"
    copy.write_bytes(labelled.read_bytes())
    first = HumanJudge(file=str(labelled)).content["labels"]
    assert HumanJudge(file=str(copy)).content["labels"] == first
    say(Labels(labelled.parent), "f", "hack")
    assert HumanJudge(file=str(labelled)).content["labels"] != first
    assert HumanJudge(file=str(copy)).content["labels"] == first


def test_a_missing_or_wrong_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        HumanJudge(file=str(tmp_path / "none.parquet")).judge([candidate("a")])
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(DataError, match="is not a Parquet file"):
        HumanJudge(file=str(tmp_path / "text.parquet")).judge([candidate("a")])
    pl.DataFrame({"candidate_id": ["a"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="has no column 'reviewer'"):
        HumanJudge(file=str(tmp_path / "other.parquet")).judge([candidate("a")])


def test_a_rebuilt_dataset_honours_the_labels(labelled: Path) -> None:
    """The judge and the select stage as a build runs them: what people kept is kept, and nothing else."""
    names = list("abdef")
    frame = pl.DataFrame(
        {"candidate_id": names, "task_id": names, "generation_context": ["x"] * 5, "completion": ["c"] * 5, "k": [0] * 5}
    ).with_columns(finish_reason=pl.lit("stop"), reasoning=pl.lit(None, dtype=pl.String), reply_key=pl.col("candidate_id"))
    from recontext_data.core.records import Task

    tasks = {name: Task(task_id=name, messages=[], payload={}, split="train") for name in names}
    human = HumanJudge(file=str(labelled), question="use", scores={"keep": 1.0})
    table, entries = judge_stage(frame, tasks=tasks, judges=[human])
    assert entries[0].dropped == {"not labelled": 3}
    pool = frame.join(table, on="candidate_id", how="left", maintain_order="left")
    chosen, entry = select(pool, config=Select(keep="best", per_task=4), arm="arm")
    assert chosen.filter("kept")["candidate_id"].to_list() == ["d"]
    assert entry.dropped == {"no score": 4}


def test_a_build_honours_the_labels_and_new_labels_make_a_new_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, arms=["default -> hack"], export={"validation_fraction": 0.0})
    first = built(recipe, tmp_path)
    ids = candidates(tmp_path)["candidate_id"].to_list()
    folder = tmp_path / "runs" / "small" / "labels"
    labels = Labels(folder)
    say(labels, ids[0], "drop")
    say(labels, ids[1], "keep")
    path = labels.compact()
    people = {"kind": "human", "name": "people", "file": str(path), "question": "use"}
    words = [f"judges={json.dumps([{'kind': 'choice'}, people])}", "select.judge=choice"]
    kept = built(recipe, tmp_path, *words, "select.require={people: [keep]}")
    assert kept["arms"][0]["rows"] == {"train": 1}
    rest = built(recipe, tmp_path, *words, "select.drop={people: [drop]}")
    assert rest["arms"][0]["rows"] == {"train": first["arms"][0]["rows"]["train"] - 1}
    assert rest["requests"]["sampled"] == 0
    say(labels, ids[2], "drop")
    labels.compact()
    more = built(recipe, tmp_path, *words, "select.drop={people: [drop]}")
    assert more["fingerprint"] != rest["fingerprint"]
    assert more["arms"][0]["rows"] == {"train": first["arms"][0]["rows"]["train"] - 2}
    elsewhere = tmp_path / "elsewhere.parquet"
    elsewhere.write_bytes(path.read_bytes())
    moved = [words[0].replace(str(path), str(elsewhere)), words[1]]
    assert built(recipe, tmp_path, *moved, "select.drop={people: [drop]}")["fingerprint"] == more["fingerprint"]


def test_a_journal_is_lines_of_json(tmp_path: Path) -> None:
    say(Labels(tmp_path), "a", "hack", event="e1")
    row = json.loads((tmp_path / "ann.jsonl").read_text())
    assert row["event"] == "e1" and row["value"] == "hack" and row["undoes"] is None


def test_what_is_about_one_candidate_is_what_the_rows_say_of_it(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    for name in "ab":
        for reviewer in ("bob", "ann"):
            say(labels, name, "hack", reviewer=reviewer)
    say(labels, "a", "keep")
    assert labels.about("a") == [row for row in labels.rows() if row["candidate_id"] == "a"]
    assert labels.about("nobody") == []


def test_the_documentation_names_every_option_and_its_examples_are_valid() -> None:
    text = (ROOT / "docs" / "viewing.md").read_text(encoding="utf-8")
    for name in HumanJudge.model_fields:
        assert name in ("kind", "name") or f"| `{name}` |" in text, name
    blocks = [yaml.safe_load(block.partition("```")[0]) for block in text.split("```yaml\n")[1:]]
    judges = [judge for block in blocks for judge in block["judges"] if judge["kind"] == "human"]
    assert len(judges) == 2
    for judge in judges:
        HumanJudge.model_validate(judge)
    assert Select.model_validate({key: value for key, value in blocks[1]["select"].items()}).require == {"people": ["keep"]}
    for key in (*OPTIONS.model_fields, *(one for words in QUESTIONS.values() for one in words)):
        assert key.replace("_", " ") in text, key
