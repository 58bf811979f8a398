"""Nothing is paid for twice: not after kill -9, not for a failure that stays one; and the key that pays is never shown."""

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.kills import CONCURRENCY, run
from recontext_data.config.loading import load
from recontext_data.core.records import Reply
from recontext_data.pipeline.preparation import plan, prepared
from recontext_data.pipeline.purchase import buy
from recontext_data.store import journal
from recontext_data.store.replies import ReplyStore
from tests.fault_server import Faults, FaultServer
from tests.helpers import (
    arm_hashes,
    build,
    build_process,
    built,
    candidates,
    problem_rows,
    run_folder,
    write_problems,
    write_recipe,
)
from tests.test_money import Nobody

PLANTED = "sk-planted-8f2c1e77-never-to-be-seen"
POISON = "always refused"
WORDS = f"status 400: the prompt is too long: {POISON}"


def recipe_for(folder: Path, server: FaultServer, *, rows: list[dict[str, Any]], n: int = 2, **changes: Any) -> Path:
    """A recipe that samples these problems from the server, with the key in PLANTED_KEY."""
    folder.mkdir(exist_ok=True)
    problems = write_problems(folder / "problems.jsonl", rows)
    policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": "PLANTED_KEY"}
    where = {"kind": "code_mc", "problems": str(problems), "split": "all", "tasks": None}
    return write_recipe(folder, environment=where, policy=policy, sampler={"n": n}, **changes)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", PLANTED)


# --- kills


@pytest.mark.parametrize("n", [1, 4])
def test_kill_9_while_sampling_buys_nothing_twice_that_is_on_disk(n: int, tmp_path: Path) -> None:
    """benchmarks/kills.py does it thirty times."""
    sums = run(tmp_path, kills=3, dice=random.Random(5), n=n)
    assert sums.resent_though_stored == 0
    assert 0 < sums.resent == sum(sums.under_way), "what was under way at a kill, and nothing else, is sent once more"
    assert max(sums.under_way) <= CONCURRENCY, "a reply keeps its request's place until it is on disk"
    assert sums.is_same


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
def test_a_write_cut_short_takes_all_of_an_answer_and_the_datasets_come_out_the_same(share: float, tmp_path: Path) -> None:
    """A server draws four completions from the one seed that is sent: asked for the last two alone, it would say others."""
    with FaultServer(Faults()) as server:
        recipe = recipe_for(tmp_path, server, rows=problem_rows(3), n=4)
        built(recipe, tmp_path / "calm")
        out, requests = tmp_path / "cut", len(server.seen)
        with pytest.raises(KeyboardInterrupt):
            sampled_and_interrupted(recipe, out)
        (path,) = (out / "replies").glob("journal-*.jsonl")
        lines = path.read_bytes().split(b"\n")[:-1]
        assert len(lines) == len(server.seen) - requests == 3, "a line for each request"
        path.write_bytes(b"\n".join([*lines[:-1], lines[-1][: int(share * len(lines[-1]))]]))
        mark = len(server.seen)
        made = built(recipe, out)
        assert made["requests"]["sampled"] == 4 and [body["n"] for body in server.bodies[mark:]] == [4]
    assert arm_hashes(out, cards=False) == arm_hashes(tmp_path / "calm", cards=False)
    assert candidates(out).equals(candidates(tmp_path / "calm"))


def sampled_and_interrupted(recipe: Path, output: Path) -> None:
    """Buys everything and leaves it in the journal."""
    loaded = load(str(recipe), [])
    job = prepared(loaded.name, loaded.recipe, output=output)

    async def everything() -> None:
        await buy(plan(job, store).requests, policy=job.policy, store=store, tracker=Nobody(), max_failures=0)
        await job.policy.close()

    with ReplyStore(output / "replies") as store:
        asyncio.run(everything())
        raise KeyboardInterrupt


def test_a_torn_line_of_several_replies_keeps_none_of_them_wherever_it_is_torn(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), ReplyStore(tmp_path) as store:
        store.append_together([[Reply(key=f"{i}{j}", completion="é\n" * j) for j in range(3)] for i in range(2)])
        raise KeyboardInterrupt
    (path,) = tmp_path.glob("journal-*.jsonl")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole) + 1):
        path.write_bytes(whole[:end])
        found = ReplyStore(tmp_path).find(pl.Series([f"{i}{j}" for i in range(2) for j in range(3)]))["key"]
        assert set(found) == {"00", "01", "02"} | ({"10", "11", "12"} if end >= len(whole) - 1 else set())


def test_a_journal_longer_than_what_is_read_at_once_is_read_whole(tmp_path: Path) -> None:
    keys = [str(i) for i in range(2 * journal.BATCH + 100)]
    with suppress(KeyboardInterrupt), ReplyStore(tmp_path) as store:
        store.append(Reply(key=key, completion=f"text {key}") for key in keys)
        raise KeyboardInterrupt  # the journal stays
    (path,) = tmp_path.glob("journal-*.jsonl")
    lines = path.read_bytes().split(b"\n")
    assert len(lines) > journal.BATCH + 200
    lines[300] = lines[300].replace(b"text 300", b"text 301")
    path.write_bytes(b"\n".join(lines)[:-10])
    there = set(keys) - {"300", keys[-1]}
    for reader in (ReplyStore(tmp_path), ReplyStore(tmp_path)):
        found = reader.find(pl.Series(keys))
        assert dict(found.select("key", "completion").iter_rows()) == {key: f"text {key}" for key in there}
        with reader:
            pass  # seals it; the second time all is read from the segment
    assert not path.exists() and len(list(tmp_path.glob("segment-*.parquet"))) == 1


# --- failures that stay


def test_prompts_that_are_always_refused_are_listed_with_the_servers_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = problem_rows(200)
    for row in rows[::150]:
        row["statement"] += f" ({POISON})"
    with FaultServer(Faults(poison=POISON)) as server:
        recipe = recipe_for(tmp_path, server, rows=rows, n=1)
        made = built(recipe, tmp_path / "out")
        screen = capsys.readouterr()
        assert len(server.seen) == 200, "a refusal is not tried again"
        assert built(recipe, tmp_path / "out")["requests"] == {"wanted": 200, "found": 198, "sampled": 0, "failed": 2}
        assert len(server.seen) == 202, "the next build asks once more for what failed, and for that alone"
    assert made["requests"] == {"wanted": 200, "found": 0, "sampled": 198, "failed": 2}
    (entry,) = [entry for entry in made["ledger"] if entry["stage"] == "sample"]
    assert (entry["in"], entry["kept"], entry["dropped"]) == (200, 198, {WORDS: 2})
    assert "2 failed" in screen.err
    assert f"2 completions failed and are in no dataset: {WORDS}" in " ".join(screen.err.split())
    assert WORDS in (run_folder(tmp_path / "out") / "report.html").read_text(encoding="utf-8")


# --- the key


def told(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder: its name and its bytes, and the columns of a table in the clear."""
    for path in folder.rglob("*"):
        yield path.name, str(path).encode()
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".parquet":
            yield path.name, str(pl.read_parquet(path).to_dicts()).encode()


@pytest.mark.parametrize(
    ("faults", "code", "said"),
    [
        (Faults(echoes_key=True), 0, ""),
        (Faults(echoes_key=True, poison="Option"), 1, "limits.max_failure_rate"),
        (Faults(echoes_key=True, fail_rate=1.0, fail_status=401), 2, "status 401: try again Bearer [key]"),
    ],
)
def test_a_planted_key_is_seen_nowhere(
    faults: Faults, code: int, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultServer(faults) as server:
        recipe = recipe_for(tmp_path / "in", server, rows=problem_rows(8))
        done = build_process(f"recipe={recipe}", f"output={tmp_path / 'out'}")
        in_process = build(recipe, tmp_path / "here")
        assert all(PLANTED in one.headers["Authorization"] for one in server.seen), "the key was really used"
    assert done.returncode == in_process == code, done.stderr
    shown = capfd.readouterr()
    told_here = [("shown", text.encode()) for text in (done.stdout, done.stderr, shown.out, shown.err, caplog.text)]
    read = [*told(tmp_path), *told_here]
    assert [name for name, content in read if PLANTED.encode() in content] == []
    if code:
        assert said in done.stderr
    else:
        assert any(b"[key]" in content for name, content in read if name == "candidates.parquet")
