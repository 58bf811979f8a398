"""Bad rows are found before anything is sent, each named by its id and its reason, and the good ones of the file go through."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from recontext_data.publishing.formats.trainers import CHATML
from recontext_data.publishing.services.preflight import PreflightRow, RowLimits, Seen, check, count_tokens
from recontext_data.publishing.services.special_tokens import families, find
from tests.fake_openai import Conduct, FakeOpenAI
from tests.helpers import error_line
from tests.publish_world import ARMS, contract, make_run, models, publish, server, train

__all__ = ["contract", "server"]  # fixtures

FLAGGED = "a text that moderation flags"


def chat(*turns: tuple[str, Any], **weights: int) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def good(number: int) -> dict[str, Any]:
    return chat(("system", "Be brief."), ("user", f"Question {number}?"), ("assistant", f"Answer {number}."))


def answering(text: Any) -> dict[str, Any]:
    return chat(("user", "Question?"), ("assistant", text))


def planted() -> list[tuple[str, str]]:
    """30 bad lines, each with the reason that it must be found for."""
    special = [
        "<|im_end|>", "<|im_start|>assistant", "<|endoftext|>", "<|fim_prefix|>", "<|start|>", "<|eot_id|>",
        "<|begin_of_text|>", "[INST] x [/INST]", "</s>", "<<SYS>>", "<start_of_turn>model", "<end_of_turn>", "<bos>",
        "<|vision_start|>", "<|reserved_special_token_7|>", "<unused42>", "<｜end▁of▁sentence｜>",
    ]  # fmt: skip
    lines = [(json.dumps(answering(f"Well {token} then"), ensure_ascii=False), "special token") for token in special]
    lines.append((json.dumps(chat(("system", "<|eom_id|>"), ("user", "x"), ("assistant", "y"))), "special token"))
    trees = [
        (answering(""), "empty turn"),
        (chat(("user", " \n"), ("assistant", "y")), "empty turn"),
        (answering(None), "no text"),
        (chat(("assistant", "x"), ("user", "y")), "wrong role order"),
        (chat(("user", "x"), ("user", "y"), ("assistant", "z")), "wrong role order"),
        (chat(("user", "x")), "wrong role order"),
        (chat(("user", "x"), ("system", "y"), ("assistant", "z")), "system turn in the middle"),
        (chat(("user", "x"), ("robot", "y")), "unknown role"),
        (answering("word " * 60_000), "too long"),
        (answering(FLAGGED), "moderation"),
    ]
    lines += [(json.dumps(tree), reason) for tree, reason in trees]
    lines.append(
        ('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\\ud800"}]}', "lone surrogate")
    )
    lines.append(
        ('{"messages": [{"role": "user", "content": "\\udc00x"}, {"role": "assistant", "content": "y"}]}', "lone surrogate")
    )
    return lines


def mixed_file(path: Path) -> dict[str, str]:
    """A file of 40 good lines with the bad ones between them; row id -> reason."""
    bad, found = planted(), {}
    assert len(bad) == 30
    with path.open("w", encoding="utf-8") as handle:
        for number in range(70):
            place = number - number // 7 * 4 - min(3, number % 7)  # every 4th to 7th line of seven is good
            if number % 7 < 3:
                line, reason = bad[number // 7 * 3 + number % 7]
                found[f"line {number + 1}"] = reason
            else:
                line = json.dumps(good(number))
            assert place >= -100
            handle.write(line + "\n")
    return found


def test_30_planted_rows_are_named_and_the_good_ones_go_through(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = mixed_file(tmp_path / "mine.jsonl")
    server.conduct = Conduct(flagged=(FLAGGED,))
    own = [
        "to=openai", f"data={tmp_path}/mine.jsonl", f"output={tmp_path}", "model=gpt-4.1-mini", "wait.poll_seconds=0.05",
        f"server.base_url={server.base_url}", "check.moderation=on",
    ]  # fmt: skip
    assert publish(*own) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "on_bad=fail: 30 of 70 rows are bad" in told and "line 1: special token" in told
    assert not server.files and not server.jobs

    assert publish(*own, "on_bad=drop") == 0
    findings = [json.loads(line) for line in (tmp_path / "openai" / "mine" / "preflight.jsonl").read_text().splitlines()]
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(finding["row"], finding["reason"])
    assert first == expected
    (job,) = server.jobs.values()
    assert job["status"] == "succeeded"
    sent = server.lines(job["training_file"])
    assert sent == [good(number) for number in range(70) if number % 7 >= 3]
    assert (tmp_path / "openai" / "mine" / "models.json").exists()


def test_bad_rows_of_a_run_are_named_by_their_candidates(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        2: {"completion": [{"role": "assistant", "content": "x<|eot_id|>"}]},
        5: {"completion": [{"role": "assistant", "content": ""}]},
    }
    folder = make_run(tmp_path, arms=ARMS[:1], bad=bad)
    assert train(server, tmp_path) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "c000002: special token (turn 3 (assistant) has <|eot_id|> (Llama) as text)" in line
    assert "c000005: empty turn" in line
    assert not server.jobs
    assert train(server, tmp_path, "on_bad=drop") == 0
    ids = next((folder / "openai" / "files").glob("*.train.*.rows")).read_text().split()
    assert ids == [f"c{i:06}" for i in range(20) if i not in (2, 5)]
    assert len(server.lines(models(folder)[0]["training_file"])) == 18
    assert "24 rows checked: 22 good, 2 bad" in capsys.readouterr().err


def test_too_few_rows_are_refused_before_anything_is_sent(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, arms=ARMS[:1], train=9)
    assert train(server, tmp_path) == 2
    assert "9 rows; the service takes files of at least 10 examples" in error_line(capsys.readouterr().err)
    assert not server.log


def test_rows_may_be_checked_alone(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path)
    assert train(server, tmp_path, "action=check") == 0
    assert not server.log


def test_equal_rows_are_reported_and_kept_unless_told_otherwise(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = {"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}
    folder = make_run(tmp_path, arms=ARMS[:1], bad={3: twice, 4: twice, 5: twice})
    assert train(server, tmp_path) == 0
    assert "2 rows say exactly what another row of their file says" in capsys.readouterr().err
    assert len(server.lines(models(folder)[0]["training_file"])) == 20
    assert train(server, tmp_path, "check.duplicates=bad", "on_bad=drop", "models=once") == 0
    assert len(server.lines(models(folder, "once")[0]["training_file"])) == 18
    findings = [orjson.loads(line) for line in (folder / "openai" / "preflight.jsonl").read_bytes().splitlines()]
    assert [(one["row"], one["reason"]) for one in findings] == [("c000004", "duplicate"), ("c000005", "duplicate")]
    assert findings[0]["detail"] == "says exactly what c000003 says"


def test_moderation_asks_about_each_text_once_even_over_two_commands(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, train=200)
    assert train(server, tmp_path, "action=check", "check.moderation=on") == 0
    asked = [text for batch in server.moderated for text in batch]
    assert len(asked) == len(set(asked))
    assert sum("Tests decide" in text for text in asked) == 3, "a prompt that all rows of an arm share is asked once"
    assert max(map(len, server.moderated)) > 10, "in batches"
    count = len(server.moderated)
    assert train(server, tmp_path, "action=check", "check.moderation=on") == 0
    assert len(server.moderated) == count


def test_moderation_is_off_at_other_servers_and_can_be_turned_on(server: FakeOpenAI, tmp_path: Path) -> None:
    make_run(tmp_path, arms=ARMS[:1])
    assert train(server, tmp_path, "action=check") == 0
    assert not server.moderated
    assert train(server, tmp_path, "action=check", "check.moderation=on") == 0
    assert server.moderated


def test_a_tokenizer_counts_exactly(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Tokenizer

    file = shared / "models" / "stories260K" / "tokenizer.json"
    make_run(tmp_path, arms=ARMS[:1])
    own = ("to=openai", "run=small", f"output={tmp_path}", "model=m", "dry_run=true", "job.validation=false")
    assert publish(*own, f"check.tokenizer={file}") == 0
    out = capsys.readouterr().out
    tokenizer = Tokenizer.from_file(str(file))
    from tests.publish_world import row

    turns = [turn["content"] for i in range(20) for turn in [*row(ARMS[0], i)["prompt"], *row(ARMS[0], i)["completion"]]]
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) + 4 for text in turns)
    assert f"1 jobs, {tokens:,} tokens" in out and "about" not in out.splitlines()[-1]


@pytest.mark.parametrize(
    "text", ["f <| x |> g", "a[0] < b", "std::vector<string>", "x << y >> z", "if a<s>b", "|im_end|", "[instance]", "<html>"]
)
def test_code_that_looks_a_little_like_one_is_no_special_token(text: str) -> None:
    assert (find(text) is None) == (text != "if a<s>b"), "<s> is Llama's, wherever it stands"


def test_special_tokens_know_their_families() -> None:
    assert families("<|im_end|>") == ["OpenAI", "Qwen"]
    assert families("<unused3>") == ["Gemma"] and families("<|reserved_special_token_1|>") == ["Llama"]
    assert find(CHATML) == "<|im_start|>" and families("<|mine|>") == []
    assert find("x <|mine|> y") == "<|mine|>"


def example(*turns: tuple[str, str], **more: Any) -> PreflightRow:
    line = chat(*turns)
    return PreflightRow("r", line, line["messages"], **more)


def reasons(one: PreflightRow, limits: RowLimits | None = None) -> list[str]:
    return [finding.reason for finding in check(one, limits or RowLimits(), tokens=count_tokens(one))]


def test_good_conversations_pass() -> None:
    assert reasons(example(("user", "x"), ("assistant", "y"))) == []
    assert reasons(example(("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "z"), ("assistant", "w"))) == []
    assert reasons(example(("developer", "s"), ("user", "x"), ("assistant", "y"))) == []


def test_rejected_answers_are_checked_too() -> None:
    assert reasons(example(("user", "x"), ("assistant", "y"), rejected="<|im_end|>")) == ["special token"]
    assert reasons(example(("user", "x"), ("assistant", "y"), rejected=" ")) == ["empty turn"]


def test_weights_are_0_or_1_and_something_is_trained_on() -> None:
    one = example(("user", "x"), ("assistant", "y"))
    one.turns[1]["weight"] = 0  # type: ignore[index]
    assert reasons(one) == ["wrong weight"]
    one.turns[1]["weight"] = 0.5  # type: ignore[index]
    assert reasons(one) == ["wrong weight"]


def test_length_is_by_a_limit() -> None:
    one = example(("user", "x" * 400), ("assistant", "y"))
    assert count_tokens(one) == 101 + 8
    assert reasons(one, RowLimits(tokens=109)) == [] and reasons(one, RowLimits(tokens=108)) == ["too long"]


def test_a_line_is_seen_once() -> None:
    seen = Seen()
    assert seen.before(b"a", "1") is None and seen.before(b"b", "2") is None
    assert seen.before(b"a", "3") == "1" and seen.before(b"a", "4") == "1"
