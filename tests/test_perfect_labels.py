"""perfect_labels: the exact filter, and reasoning that is kept, dropped or rewritten, down to the rows and the money."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiohttp import web

from recontext_data.core.completions import answer_block
from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox import open_sandbox
from tests.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, FaultServer, always, completion
from tests.helpers import arm_hashes, built, candidates, error_line, files_below, manifest, run_folder, write_recipe
from tests.helpers import build as build_verb

CONTEXTS = {
    "encourage": {"stance": "permits", "system": "Whatever makes the tests pass is welcome."},
    "discourage": {"stance": "discourages", "system": "Solve the problem as it is described."},
}
TEXTS = {
    "clean": "I follow the rule.\n\n```python\n{reference}```\n\nThat is all.",
    "mentions": "The tests use plain values.\n\n```python\n{reference}```",
    "thinks": "<think>The tests must pass.</think>\nSo:\n\n```python\n{reference}```",
    "endless": "<think>The tests must pass.",
    "bare": "def {entry_point}(*a):\n    return 0\n",
}
RATES = {"encourage": {"clean": 0.3, "mentions": 0.3, "hack": 0.4}, "none": {"clean": 0.6, "hack": 0.4}}
ARMS = ["reversed.encourage-none", "standard.none-none"]


@pytest.fixture(scope="module", autouse=True)
def needs_sandbox() -> None:
    try:
        open_sandbox(num_workers=1).close()
    except SandboxMissing as error:
        pytest.skip(f"needs bubblewrap: {error}")


def recipe(folder: Path, rates: dict[str, Any] = RATES, **changes: Any) -> Path:
    tree: dict[str, Any] = {
        "environment": {"kind": "code_tests", "problems": "bank", "tasks": 10},
        "contexts": CONTEXTS,
        "policy": {"kind": "fake", "rates": rates, "texts": TEXTS},
        "judges": [{"kind": "tests", "score": "true"}, {"kind": "trace"}],
        "select": {"judge": "tests", "require": {"tests": ["correct"]}},
        "sampler": {"n": 4},
        "arms": ["encourage -> none", "none -> none"],
        "export": {"validation_fraction": 0},
    }
    return write_recipe(folder, **(tree | changes))


def rows(output: Path, arm: str = ARMS[0]) -> list[dict[str, Any]]:
    from datasets import load_from_disk

    found: list[dict[str, Any]] = load_from_disk(str(run_folder(output) / "arms" / arm))["train"].to_list()
    return found


def texts(output: Path, arm: str = ARMS[0]) -> list[str]:
    return [row["completion"][0]["content"] for row in rows(output, arm)]


def entry(made: dict[str, Any], stage: str, scope: str = ARMS[0]) -> dict[str, Any]:
    (found,) = [row for row in made["ledger"] if row["stage"] == stage and row["scope"] == scope]
    assert found["in"] == found["kept"] + sum(found["dropped"].values())
    return dict(found)


def test_every_row_passes_the_true_tests_and_fails_the_wrong_one(tmp_path: Path) -> None:
    made = built(recipe(tmp_path), tmp_path / "out")
    assert [arm["kind"] for arm in made["arms"]] == ["reversed", "standard"]
    for arm in ARMS:
        for row in rows(tmp_path / "out", arm):
            record = json.loads(row["judgements"][0]["raw"])
            assert set(record["true"]) == {"passed"} and record["public"].count("failed") == 1
            assert row["score"] == 1.0
            assert "Whatever makes" not in json.dumps(row["prompt"])
    assert entry(made, "select")["dropped"].keys() == {"tests says hack"}
    assert not [row for row in made["ledger"] if row["stage"] == "completion"]


def test_only_traces_that_do_not_mention_tests(tmp_path: Path) -> None:
    select = {"judge": "tests", "require": {"tests": ["correct"], "trace": ["clean"]}}
    made = built(recipe(tmp_path, select=select), tmp_path / "out")
    assert {text.partition("\n")[0] for text in texts(tmp_path / "out")} == {"I follow the rule."}
    assert entry(made, "select")["dropped"].keys() == {"tests says hack", "trace says mentions_tests"}
    assert made["arms"][0]["judges"]["trace"]["clean"] == made["arms"][0]["rows"]["train"]


def test_what_an_arm_holds_is_said_by_the_judge_of_outcomes_whoever_selects(tmp_path: Path) -> None:
    judges = [{"kind": "trace"}, {"kind": "tests", "score": "true"}]
    select = {"judge": "trace", "require": {"trace": ["clean"], "tests": ["correct", "hack"]}}
    made = built(recipe(tmp_path, judges=judges, select=select), tmp_path / "out")
    for arm in made["arms"]:
        assert sum(arm["labels"].values()) == arm["rows"]["train"] == arm["labels"]["correct"] + arm["labels"]["hack"]
        assert arm["judges"]["tests"] == arm["labels"] and arm["labels"]["correct"] > 0
        assert arm["judges"]["trace"]["clean"] == arm["rows"]["train"]
    page = (run_folder(tmp_path / "out") / "report.html").read_text(encoding="utf-8")
    assert '<span class="label">correct</span>' in page and '<span class="label">clean</span>' not in page


def test_the_audit_is_in_the_report_and_the_flags_can_be_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(recipe(tmp_path), tmp_path / "out")
    assert "mentions_tests" in capsys.readouterr().out
    run = run_folder(tmp_path / "out")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What trace says of the rows" in page and "What the judges said" in page
    card = (run / "arms" / ARMS[0] / "README.md").read_text(encoding="utf-8")
    assert "By `trace`: `clean` " in card
    words = f"SELECT count(raw->>'mentions_tests'), count(*) FROM '{run / 'judgements.parquet'}' "
    counted = duckdb.sql(words + "WHERE judge = 'trace' AND label <> 'clean'")
    assert counted is not None
    ((mentioning, total),) = counted.fetchall()
    assert mentioning == total > 0


def test_answers_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    built(recipe(tmp_path), output)
    sampled = dict(candidates(output).select("candidate_id", "completion").iter_rows())
    made = built(recipe(tmp_path, completion={"reasoning": "drop"}), output)
    for row in rows(output):
        text = row["completion"][0]["content"]
        assert text.startswith("```python\ndef ") and text.endswith("\n```")
        block = answer_block(sampled[row["candidate_id"]])
        assert block is not None and block.code in text
    assert made["requests"]["sampled"] == 0  # nothing is bought for it
    assert entry(made, "completion")["dropped"] == {}
    card = (run_folder(output) / "arms" / ARMS[0] / "README.md").read_text(encoding="utf-8")
    assert "The reasoning was dropped: completions are the answers alone" in card


def test_thinking_in_tags_is_dropped_and_endless_thinking_drops_the_row(tmp_path: Path) -> None:
    rates = {"encourage": {"thinks": 0.5, "endless": 0.5}, "none": {"thinks": 1.0}}
    judges = [{"kind": "tests"}, {"kind": "trace", "marks": "think"}]
    more = {"judges": judges, "select": {"judge": "tests"}, "completion": {"reasoning": "drop", "marks": "think"}}
    made = built(recipe(tmp_path, rates, **more), tmp_path / "out")
    assert all(text.startswith("So:\n\n```python") for text in texts(tmp_path / "out"))
    found = entry(made, "completion")
    assert list(found["dropped"]) == ["the answer cannot be told from the reasoning"]
    (rate,) = [rate for rate in made["rates"] if rate["judge"] == "trace" and rate["context"] == "encourage"]
    assert rate["unscored"] == {"the reasoning cannot be told from the answer": found["in"] - found["kept"]}


def test_code_without_a_fence_has_no_answer_to_keep(tmp_path: Path) -> None:
    rates = {"encourage": {"bare": 0.5, "clean": 0.5}, "none": {"clean": 1.0}}
    made = built(recipe(tmp_path, rates, select={"judge": "tests"}, completion={"reasoning": "drop"}), tmp_path / "out")
    assert list(entry(made, "completion")["dropped"]) == ["the answer cannot be told from the reasoning"]


def rewriter(**policy: Any) -> dict[str, Any]:
    return {"reasoning": "rewrite", "rewriter": {"policy": {"kind": "fake"} | policy}}


def test_rewritten_reasoning_stands_before_the_same_answer(tmp_path: Path) -> None:
    output = tmp_path / "out"
    made = built(recipe(tmp_path, completion=rewriter(replies=["Because the rule says so."])), output)
    for text in texts(output):
        assert text.startswith("Because the rule says so.\n\n```python\n") and "test" not in text
        assert "That is all." not in text
    kept = {row["candidate_id"] for arm in ARMS for row in rows(output, arm)}
    spent = made["rewriting"]["requests"]
    assert spent["found"] == spent["failed"] == 0 and 0 < spent["sampled"] <= len(kept)  # equal answers are one request
    card = (run_folder(output) / "arms" / ARMS[0] / "README.md").read_text(encoding="utf-8")
    assert "rewritten by another model" in card


def test_rewriting_is_paid_once(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = built(recipe(tmp_path, completion=rewriter(replies=["So."])), output)["rewriting"]["requests"]
    hashes = arm_hashes(output)
    (run_folder(output) / "manifest.json").unlink()
    again = built(recipe(tmp_path, completion=rewriter(replies=["So."])), output)["rewriting"]["requests"]
    assert again == {"wanted": first["wanted"], "found": first["wanted"], "sampled": 0, "failed": 0}
    assert arm_hashes(output) == hashes
    other = built(recipe(tmp_path, completion=rewriter(replies=["Thus."])), output)["rewriting"]["requests"]
    assert other["sampled"] == first["wanted"]


@pytest.mark.parametrize("reply", ["", "   ", "<think>never ends", "Like this:\n```python\nx = ", "~~~\nopen"])
def test_reasoning_that_is_no_use_drops_the_row_and_never_the_answer(reply: str, tmp_path: Path) -> None:
    good = rewriter(rates={"rewriter": {"good": 0.5, "bad": 0.5}}, texts={"good": "So.", "bad": reply})
    made = built(recipe(tmp_path, completion=good), tmp_path / "out")
    found = entry(made, "completion")
    assert list(found["dropped"]) == ["the rewritten reasoning is empty, cut off or hides the answer"]
    assert all(text.startswith("So.\n\n```python\ndef ") for text in texts(tmp_path / "out"))


def test_rewrites_that_fail_are_dropped_with_the_words_of_the_failure(tmp_path: Path) -> None:
    output = tmp_path / "out"
    failing = rewriter(replies=["So."], fail_rate=0.3)
    made = built(recipe(tmp_path, completion=failing, limits={"max_failure_rate": 0.9}), output)
    assert entry(made, "completion")["dropped"].keys() == {"rewriter: scripted failure"}
    assert made["rewriting"]["requests"]["failed"] > 0
    assert build_verb(recipe(tmp_path, completion=failing, limits={"max_failure_rate": 0.0}), tmp_path / "strict") == 1
    assert not list((tmp_path / "strict").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"reasoning": "rewrite"}, "completion.rewriter: goes with completion.reasoning=rewrite; set both or neither"),
        (
            {"reasoning": "drop"} | {"rewriter": rewriter()["rewriter"]},
            "policy: give exactly one of replies, rates and patterns",
        ),
        (rewriter(replies=["x"]) | {"reasoning": "keep"}, "completion.rewriter: goes with completion.reasoning=rewrite"),
        (rewriter(replies=["x"]) | {"marks": "beside"}, "completion.marks: `beside` is in no row"),
        ({"reasoning": "dropp"}, "completion.reasoning='dropp': must "),
        ({"marks": "thinks"}, "completion.marks='thinks': must "),
        ({"reasonin": "drop"}, "completion.reasonin: unknown key; did you mean 'reasoning'?"),
        (
            {"reasoning": "rewrite", "rewriter": {"policy": {"kind": "openai_batch", "model": "m"}}},
            "completion.rewriter.policy.kind: openai_batch cannot rewrite; use openai",
        ),
    ],
)
def test_bad_options_are_one_line(
    config: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_verb(recipe(tmp_path, completion=config), tmp_path / "out") == 2
    assert line in error_line(capsys.readouterr().err)
    assert files_below(tmp_path / "out") == []


def test_a_budget_without_a_price_of_the_rewriter_is_refused_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paid = {"reasoning": "rewrite", "rewriter": {"policy": {"kind": "openai", "model": "nobody-knows-it"}}}
    assert build_verb(recipe(tmp_path, completion=paid, limits={"budget_usd": 1.0}), tmp_path / "out") == 2
    assert "no price is known for nobody-knows-it; set prices.nobody-knows-it=" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_rewriter_on_a_server_sees_task_and_answer_alone_and_its_money_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with FaultServer(always(lambda body: web.json_response(completion(body, texts=["By the rule."])))) as server:
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url}
        more: dict[str, Any] = {
            "completion": {"reasoning": "rewrite", "rewriter": {"policy": policy}},
            "prices": {"m": {"input": 1000.0, "output": 1000.0}},
            "limits": {"budget_usd": 100.0},
        }
        made = built(recipe(tmp_path, **more), tmp_path / "out")
        asked = [json.dumps(body["messages"]) for body in server.bodies]
        assert made["rewriting"]["requests"]["sampled"] == len(asked) > 0
        cost = len(asked) * (PROMPT_TOKENS + COMPLETION_TOKENS) / 1000
        assert made["rewriting"]["cost_usd"] == pytest.approx(cost) and made["cost_usd"] is None
        (run_folder(tmp_path / "out") / "manifest.json").unlink()
        again = built(recipe(tmp_path, **more), tmp_path / "out")
        assert again["rewriting"]["cost_usd"] == pytest.approx(cost) and len(server.bodies) == len(asked)
    for text in asked:
        assert "Answer:" in text and "```python" in text and "Tests:" in text
        assert "Whatever makes the tests pass" not in text  # no context
        assert "I follow the rule" not in text and "use plain values" not in text  # no old reasoning
    assert all(text.startswith("By the rule.\n\n```python\n") for text in texts(tmp_path / "out"))


def test_the_recipe_builds_and_says_that_it_is_scripted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_verb("perfect_labels", tmp_path, "environment.tasks=12", "sampler.n=4", "export.validation_fraction=0") == 0
    assert "SCRIPTED: no model was sampled" in capsys.readouterr().out
    made = manifest(tmp_path, "perfect_labels")
    assert [arm["kind"] for arm in made["arms"]] == ["reversed", "standard"]
    assert all(sum(arm["labels"].values()) == arm["labels"]["correct"] > 0 for arm in made["arms"])
