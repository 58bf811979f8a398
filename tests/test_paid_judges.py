"""Judges that ask a model, end to end over a real server: bought once, counted apart, unscored and never a number."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recontext_data import evaluate as evaluate_verb
from recontext_data.core.records import content_hash
from recontext_data.store.replies import ReplyStore
from tests.fault_server import FaultServer
from tests.helpers import CONTEXTS, arm_hashes, build, built, error_line, manifest, run_folder, start_build, write_recipe
from tests.judging_world import GARBLED, Bench, asked, at, recipe, rubric_file


def judgements(output: Path) -> pl.DataFrame:
    return pl.read_parquet(run_folder(output) / "judgements.parquet").filter(pl.col("judge") == "mine")


def judging(made: dict[str, Any], name: str = "mine") -> dict[str, Any]:
    (row,) = [row for row in made["judging"] if row["name"] == name]
    found: dict[str, Any] = row
    return found


# --- once


def test_replies_are_bought_once_and_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        made = built(path, tmp_path / "out")
        first = asked(server)
        assert set(first.values()) == {1} and len(first) == 12
        row = judging(made)
        assert row["requests"] == {"wanted": 12, "found": 0, "sampled": 12, "failed": 0}
        assert row["tokens"] == {"prompt": 120, "completion": 84}
        assert row["cost_usd"] == pytest.approx((120 * 1 + 84 * 2) / 1e6)
        assert made["requests"] == {"wanted": 12, "found": 0, "sampled": 12, "failed": 0}
        assert made["cost_usd"] == pytest.approx((60 * 3 + 84 * 4) / 1e6), "completions alone"
        assert "judge mine: judge at 127.0.0.1" in capsys.readouterr().err

        # Another run that wants the same: everything is there.
        again = built(path, tmp_path / "out", "export.seed=1")
        assert asked(server) == first
        assert judging(again)["requests"] == {"wanted": 12, "found": 12, "sampled": 0, "failed": 0}
        assert judging(again)["cost_usd"] == row["cost_usd"]
    scores = judgements(tmp_path / "out")["score"]
    assert scores.null_count() == 0 and scores.is_between(0, 10).all()


def test_an_edit_of_the_rubric_buys_exactly_that_judges_replies_again(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        other = rubric_file(tmp_path / "in", "other", system="Be quick.")
        path = recipe(tmp_path / "in", server)
        judges = [
            {"kind": "rubric", "rubric": str(tmp_path / "in" / "mine.yaml"), "policy": at(server)},
            {"kind": "rubric", "rubric": str(other), "policy": at(server, "judge2")},
        ]
        path = recipe(tmp_path / "in", server, judges=judges)
        before = built(path, tmp_path / "out")
        counts = [asked(server, model).total() for model in ("policy", "judge", "judge2")]
        assert counts == [6, 12, 12]
        rubric_file(tmp_path / "in", system="You grade.")
        after = built(path, tmp_path / "out")
        assert [asked(server, model).total() for model in ("policy", "judge", "judge2")] == [6, 24, 12]
        assert before["fingerprint"] != after["fingerprint"]
        assert judging(before)["identity"] != judging(after)["identity"]
        assert judging(before, "other")["identity"] == judging(after, "other")["identity"]


def test_a_moved_rubric_and_a_renamed_judge_buy_nothing(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        built(recipe(tmp_path / "in", server), tmp_path / "out")
        moved = rubric_file(tmp_path / "elsewhere", "moved", description="words for people", gold=[])
        judges = [{"kind": "choice"}, {"kind": "rubric", "rubric": str(moved), "name": "renamed", "policy": at(server)}]
        path = recipe(tmp_path / "in", server, judges=judges, select={"keep": "best", "judge": "renamed"})
        made = built(path, tmp_path / "out")
        assert judging(made, "renamed")["requests"]["sampled"] == 0 and asked(server).total() == 12


def test_the_pace_of_a_client_and_the_place_of_a_rubric_name_no_other_run(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        first = built(path, tmp_path / "out")
        second = built(path, tmp_path / "out", "judges.1.policy.max_concurrency=2", "judges.1.policy.timeout_seconds=9.0")
        assert first["fingerprint"] == second["fingerprint"]


def test_an_edit_of_a_context_judges_only_the_completions_that_changed(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        built(recipe(tmp_path / "in", server), tmp_path / "out")
        contexts = CONTEXTS | {"default": {"stance": "neutral", "system": "Tests decide; pass them, please."}}
        built(recipe(tmp_path / "in", server, contexts=contexts), tmp_path / "out")
        assert asked(server, "policy").total() == 12, "every prompt is new"
        assert asked(server).total() == 12 + 6, "one of two answers to each task is another"
        assert set(asked(server).values()) == {1}


def test_more_completions_are_judged_and_the_others_are_not_again(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        built(recipe(tmp_path / "in", server, sampler={"n": 1}), tmp_path / "out")
        assert asked(server).total() == 6
        built(recipe(tmp_path / "in", server, sampler={"n": 2}), tmp_path / "out")
        assert set(asked(server).values()) == {1}


def test_kill_9_while_judging_buys_nothing_twice_that_is_on_disk(tmp_path: Path) -> None:
    with FaultServer(Bench(latency_seconds=0.1)) as server:
        path = recipe(tmp_path / "in", server, tasks=30)
        process = start_build(f"recipe={path}", f"output={tmp_path / 'out'}")
        deadline = time.monotonic() + 60
        while asked(server).total() < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.3)  # what was on its way has arrived
        at_kill = asked(server)
        assert 25 <= at_kill.total() < 60, "it was killed in the midst of judging"
        replies = ReplyStore(tmp_path / "out" / "replies").scan().collect()
        stored = set(replies["asked"].str.json_path_match("$.prompt"))
        server.seen.clear()
        killed = built(path, tmp_path / "out")
        sent = [content_hash(body["messages"]) for body in server.bodies]
        assert not set(sent) & stored, "nothing that was on disk is sent again"
        resent = sum(str(body["messages"]) in at_kill for body in server.bodies)
        assert resent <= 2 * 4, "what was under way at the kill, and nothing else, is sent once more"
        whole = built(path, tmp_path / "whole")
    assert killed["fingerprint"] == whole["fingerprint"]
    assert arm_hashes(tmp_path / "out", cards=False) == arm_hashes(tmp_path / "whole", cards=False)


# --- unscored


def test_an_unreadable_reply_is_asked_for_again_with_another_seed_and_kept(tmp_path: Path) -> None:
    bench = Bench()
    bench.garbled_share = 0.5
    with FaultServer(bench) as server:
        path = recipe(tmp_path / "in", server)
        made = built(path, tmp_path / "out")
        garbled = sum(bench.judge(body) == GARBLED for body in server.bodies if body["model"] == "judge")
        assert 0 < garbled < 12 and asked(server).total() == 12 + garbled
        seeds = {(str(body["messages"]), body["seed"]) for body in server.bodies if body["model"] == "judge"}
        assert len(seeds) == 12 + garbled
        assert judging(made)["requests"]["wanted"] == 12 + garbled
        built(path, tmp_path / "out", "export.seed=2")
        assert asked(server).total() == 12 + garbled, "both ranks are in the store"
    assert judgements(tmp_path / "out")["unscored_reason"].null_count() == 12


def test_what_stays_unreadable_is_unscored_with_its_words_and_dropped(tmp_path: Path) -> None:
    bench = Bench()
    bench.garbled_share = 0.5
    with FaultServer(bench) as server:
        path = recipe(tmp_path / "in", server)
        made = built(path, tmp_path / "out", "judges.1.retries=0", "select.per_task=2")
        assert asked(server).total() == 12
    words = judgements(tmp_path / "out")
    lost = words.filter(pl.col("unscored_reason").is_not_null())
    assert 0 < len(lost) < 12
    assert set(lost["unscored_reason"]) == {"no tag"} and set(lost["raw"]) == {GARBLED}
    assert lost["score"].null_count() == len(lost) and lost["label"].null_count() == len(lost)
    (entry,) = [row for row in made["ledger"] if row["stage"] == "judge" and row["scope"] == "default / mine"]
    assert entry["dropped"] == {"no tag": len(lost)}
    for arm in [row for row in made["ledger"] if row["stage"] == "select"]:
        assert arm["dropped"] == {"no score": len(lost)}


def test_failures_are_unscored_in_the_servers_words_and_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench()
    with FaultServer(bench) as server:
        path = recipe(tmp_path / "in", server, limits={"max_failure_rate": 0.95})
        text = next(iter(rows(path)))["statement"]
        bench.refused = text
        made = built(path, tmp_path / "out")
        failed = judging(made)["requests"]["failed"]
        assert failed > 0 and made["requests"]["failed"] == 0
        lost = judgements(tmp_path / "out").filter(pl.col("unscored_reason").is_not_null())
        assert len(lost) == failed and set(lost["unscored_reason"]) == {f"no reply: status 400: flagged: {text}"}
        bench.refused = ""
        before = asked(server).total()
        again = built(path, tmp_path / "out")
        assert asked(server).total() == before + failed, "the same command asks for those alone"
        assert judging(again)["requests"]["failed"] == 0 and again["fingerprint"] == made["fingerprint"]
    assert judgements(tmp_path / "out")["score"].null_count() == 0


def rows(path: Path) -> list[dict[str, Any]]:
    import json

    lines = (path.parent / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_too_many_failures_stop_the_build_and_name_the_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.refused = "How good?"
    with FaultServer(bench) as server:
        assert build(recipe(tmp_path / "in", server), tmp_path / "out") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: judge mine: limits.max_failure_rate: ") and "status 400: flagged: How good?" in line


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a build per example: what fails is small enough as it is
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(share=st.floats(0, 1), fails=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_no_score_appears_that_no_judge_gave(share: float, fails: float, seed: int, tmp_path: Path) -> None:
    """The whole pipeline with random failures: every score in judgements and rows is one that a reply holds."""
    folder = tmp_path / f"{seed} {share} {fails}"
    texts = {"nine": "<score>9</score>", "two": "<score>2</score>", "lost": "nine"}
    rates = {"nine": (1 - share) / 2, "two": (1 - share) / 2, "lost": share}
    policy = {"kind": "fake", "rates": {"mine": rates}, "texts": texts, "fail_rate": fails}
    judges = [
        {"kind": "choice"},
        {"kind": "rubric", "rubric": str(rubric_file(folder)), "policy": policy, "retries": seed % 3},
    ]
    path = write_recipe(folder, judges=judges, select={"keep": "best", "judge": "mine"}, limits={"max_failure_rate": 1.0})
    code = build(path, folder / "out")
    (table,) = (folder / "out" / "runs" / "small").glob("[!l]*/judgements.parquet")
    said = {"<score>9</score>": 9.0, "<score>2</score>": 2.0}
    words = pl.read_parquet(table).filter(pl.col("judge") == "mine")
    for score, reason, raw in words.select("score", "unscored_reason", "raw").iter_rows():
        assert score == said.get(raw) and (score is None) == (reason is not None)
    if words["score"].null_count() == len(words):
        assert code == 1, "where no judge gave a score there is no row to train on"
        return
    given_scores = dict(words.select("candidate_id", "score").iter_rows())
    from datasets import load_from_disk

    for arm in manifest(folder / "out")["arms"] if code == 0 else ():
        for split in load_from_disk(str(run_folder(folder / "out") / "arms" / arm["name"])).values():
            assert all(given_scores[row["candidate_id"]] == row["score"] is not None for row in split)


# --- money


def test_the_budget_covers_completions_and_judges_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench(latency_seconds=0.04)) as server:  # longer than the pause between syncs
        path = recipe(tmp_path / "in", server)
        price = {"judge": {"input": 1e6, "output": 0.0}, "policy": {"input": 1e6, "output": 0.0}}
        words = [f"prices={price}", "judges.1.policy.max_concurrency=1"]
        # Six prompts of ten tokens for the policy: 60 dollars; ten a question for the judge.
        assert build(path, tmp_path / "out", *words, "limits.budget_usd=100") == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: judge mine: limits.budget_usd: ") and "are still to be sampled" in line
        stopped_at = asked(server).total()
        assert 4 <= stopped_at < 12
        assert build(path, tmp_path / "out", *words, "limits.budget_usd=100") == 1
        assert asked(server).total() == stopped_at, "what is stored counts, for completions and judges alike"
        made = built(path, tmp_path / "out", *words, "limits.budget_usd=1000")
        assert set(asked(server).values()) == {1} and asked(server).total() == 12
        assert judging(made)["cost_usd"] == 120 and made["cost_usd"] == 60


def test_stored_judgements_leave_less_for_new_completions(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        price = {"judge": {"input": 1e6, "output": 0.0}, "policy": {"input": 1e6, "output": 0.0}}
        path = recipe(tmp_path / "in", server, prices=price, limits={"budget_usd": 180})
        built(path, tmp_path / "out")  # 60 for completions, 120 for judgements
        before = asked(server, "policy").total()
        assert build(path, tmp_path / "out", "sampler.n=3") == 1
        assert asked(server, "policy").total() == before


def test_a_budget_needs_the_judges_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server, prices={"policy": {"input": 3.0, "output": 4.0}})
        assert build(path, tmp_path / "out", "limits.budget_usd=1") == 2
        assert server.seen == []
    assert "no price is known for judge, which judges mine; set prices.judge=" in error_line(capsys.readouterr().err)


def test_a_missing_key_of_a_judge_is_said_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        assert build(path, tmp_path / "out", "judges.1.policy.api_key_env=JUDGE_KEY") == 2
        assert server.seen == []
    assert "JUDGE_KEY" in error_line(capsys.readouterr().err)


def test_a_dry_run_shows_what_judges_would_ask_and_cost_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        assert build(path, tmp_path / "out", "dry_run=true") == 0
        assert server.seen == []
        row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("judge mine"))
        assert row.split()[2:7] == ["6", "2", "12", "0", "12"] and row.split()[-1].startswith("$0.0")
        built(path, tmp_path / "out")
        capsys.readouterr()
        assert build(path, tmp_path / "out", "dry_run=true", "sampler.n=3") == 0
        row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("judge mine"))
        assert row.split()[2:7] == ["6", "3", "6", "12", "6"]


# --- the trial


GOLD = [
    {"messages": "1+1?", "completion": "2", "expect": {"min": 0}},
    {"messages": "1+1?", "completion": "3", "expect": {"max": 10}},
]


def test_a_judge_that_fails_its_own_test_stops_the_build_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        hard = [GOLD[0], {"messages": "1+1?", "completion": "3", "expect": {"min": 11}}]
        rubric_file(tmp_path / "in", gold=hard)
        path = recipe(tmp_path / "in", server)
        assert build(path, tmp_path / "out", "validate_judges=true") == 1
        assert asked(server).total() == 2 and asked(server, "policy").total() == 0
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: validate_judges: judge mine fails its own test on 1 of 2 gold answers; gold.1 ('3')")
        assert "must get score >= 11 and got score " in line
        built(path, tmp_path / "out")  # without the trial it builds


def test_a_judge_that_passes_is_in_the_manifest_and_the_trial_is_paid_once(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        rubric_file(tmp_path / "in", gold=GOLD)
        path = recipe(tmp_path / "in", server)
        made = built(path, tmp_path / "out", "validate_judges=true")
        assert judging(made)["trial"] == {"answers": 2}
        assert judging(made)["requests"]["sampled"] == 14
        built(path, tmp_path / "out", "validate_judges=true", "export.seed=1")
        assert asked(server).total() == 14


def test_a_judge_without_gold_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        made = built(recipe(tmp_path / "in", server), tmp_path / "out", "validate_judges=true")
    assert judging(made)["trial"] is None
    assert "validate_judges: judge mine has no gold answers" in " ".join(capsys.readouterr().err.split())


# --- evaluation


def test_evaluation_judges_with_all_and_counts_by_the_outcome_judge(tmp_path: Path) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        split = ["environment.split=train", "evaluation.split=evaluation", "environment.problems=bank", "environment.tasks=4"]
        words = [f"recipe={path}", f"output={tmp_path / 'out'}", *split, "evaluation.tasks=3", "evaluation.n=1"]
        assert evaluate_verb.main([*words, "dry_run=true"]) == 0
        assert server.seen == []
        assert evaluate_verb.main(words) == 0
        first = asked(server).total()
        assert 0 < first <= 9
        assert evaluate_verb.main(words) == 0
        assert asked(server).total() == first
    (folder,) = {one.resolve() for one in (tmp_path / "out" / "runs" / "small").glob("*/evaluation")}
    table = pl.read_parquet(folder / "outcomes.parquet")
    assert set(table["label"]) == {"invalid"}, "the outcome is the choice judge's, whoever selects"
    for each in table["judgements"]:
        assert [word["judge"] for word in each] == ["choice", "mine"]
        assert each[1]["score"] is not None and each[1]["raw"].startswith("Because.")


def test_a_run_that_is_built_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Bench()) as server:
        path = recipe(tmp_path / "in", server)
        built(path, tmp_path / "out")
        before = manifest(tmp_path / "out")
        seen = len(server.seen)
        capsys.readouterr()
        built(path, tmp_path / "out")
        assert len(server.seen) == seen and manifest(tmp_path / "out") == before
        assert "nothing to do" in capsys.readouterr().err
