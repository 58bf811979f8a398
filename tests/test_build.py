"""The build end to end with a scripted policy: in this process and as a process that is killed, stopped and doubled."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core.records import uniform
from tests.helpers import (
    CONTEXTS,
    RATES,
    arm_hashes,
    build,
    build_process,
    built,
    candidates,
    command,
    environment,
    files_below,
    manifest,
    problem_rows,
    run_folder,
    start_build,
    write_problems,
    write_recipe,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "in")


def requests(made: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = made["requests"]
    return counts


def ledger_balances(made: dict[str, Any]) -> bool:
    return all(row["in"] == row["kept"] + sum(row["dropped"].values()) for row in made["ledger"])


def drawn(seeds: list[int], context: str, rates: dict[str, dict[str, float]] = RATES) -> Counter[str]:
    """What the script draws for these seeds, worked out here and not by the package's script."""
    labels: Counter[str] = Counter()
    for seed in seeds:
        left = uniform("fake-label", seed)
        for label in sorted(rates[context]):
            left -= rates[context][label]
            if left < 0:
                break
        labels[label] += 1
    return labels


def test_a_build_writes_everything_it_says(recipe: Path, tmp_path: Path) -> None:
    made = built(recipe, tmp_path / "out", "measure.contexts=[control, hack]", "measure.n=1")
    assert requests(made) == {"wanted": 48, "found": 0, "sampled": 48, "failed": 0}
    assert ledger_balances(made)
    assert {row["stage"] for row in made["ledger"]} == {"tasks", "sample", "judge", "select", "export"}
    assert sorted(made["files"]) == [
        name for name in sorted(files_below(run_folder(tmp_path / "out"))) if name in made["files"]
    ]
    assert {"tasks.parquet", "candidates.parquet", "judgements.parquet", "selection.parquet", "report.html"} <= set(
        made["files"]
    )
    assert [arm["name"] for arm in made["arms"]] == ["recontextualized.default-hack", "standard.default-default"]
    assert all(sum(arm["rows"].values()) == 32 for arm in made["arms"])


def test_the_same_command_again_samples_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(recipe, tmp_path / "out")
    before = {name: (run_folder(tmp_path / "out") / name).stat().st_mtime_ns for name in manifest(tmp_path / "out")["files"]}
    capsys.readouterr()
    assert build(recipe, tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert "nothing to do: this run is built already" in captured.err
    assert "0 sampled, 32 found in the store" in captured.out
    after = {name: (run_folder(tmp_path / "out") / name).stat().st_mtime_ns for name in before}
    assert after == before


def test_two_builds_from_nothing_are_the_same_byte_for_byte(recipe: Path, tmp_path: Path) -> None:
    built(recipe, tmp_path / "a")
    assert build_process(f"recipe={recipe}", f"output={tmp_path / 'elsewhere' / 'b'}").returncode == 0
    first = arm_hashes(tmp_path / "a")
    assert len(first) == 2 * 8
    assert arm_hashes(tmp_path / "elsewhere" / "b") == first


def test_a_lost_manifest_is_made_again_from_stored_replies(recipe: Path, tmp_path: Path) -> None:
    built(recipe, tmp_path / "out")
    hashes = arm_hashes(tmp_path / "out")
    (run_folder(tmp_path / "out") / "manifest.json").unlink()
    again = built(recipe, tmp_path / "out")
    assert requests(again) == {"wanted": 32, "found": 32, "sampled": 0, "failed": 0}
    assert arm_hashes(tmp_path / "out") == hashes


@pytest.mark.parametrize(
    ("words", "sampled"),
    [
        (["sampler.n=6"], 16),
        (["sampler.n=2"], 0),
        (["contexts.hack.system=Another text."], 0),
        (["contexts.hack.stance=placebo"], 0),
        (["arms=[default -> control]"], 0),
        (["select.keep=random"], 0),
        (["judges.0.scores={hack: 1, general: 0.5}", "select.keep=best"], 0),
        (["export.validation_fraction=0.5"], 0),
        (["limits.max_failure_rate=0.5"], 0),
        (["description=other words"], 0),
        (["policy.delay_seconds=0.001"], 0),
        (["contexts.default.system=Tests decide; pass the testz."], 32),
        (["sampler.temperature=0.9"], 32),
        (["sampler.top_p=0.9"], 32),
        (["sampler.max_tokens=100"], 32),
        (["sampler.seed=1"], 32),
        (["policy.rates.default={hack: 0.5, general: 0.5, invalid: 0}"], 32),
        (["contexts.default.system=Tests decide: pass them # all"], 32),
        (["arms=[hack -> default]"], 32),
        (["measure.contexts=[hack]"], 8),
        (["arms=[none -> hack]"], 32),
    ],
)
def test_a_change_buys_what_it_touches_and_no_more(words: list[str], sampled: int, recipe: Path, tmp_path: Path) -> None:
    built(recipe, tmp_path / "out")
    before = stored(tmp_path / "out")
    assert ledger_balances(built(recipe, tmp_path / "out", *words))
    assert stored(tmp_path / "out") - before == sampled


def test_a_renamed_context_buys_nothing(recipe: Path, tmp_path: Path) -> None:
    policy = {"kind": "fake", "replies": ["Answer: (A)", "Answer: (B)"]}
    built(write_recipe(tmp_path / "in", policy=policy), tmp_path / "out")
    contexts = {"plain": CONTEXTS["default"], "hack": CONTEXTS["hack"]}
    renamed = write_recipe(tmp_path / "in", "renamed", contexts=contexts, policy=policy, arms=["plain -> hack"])
    assert build(renamed, tmp_path / "out") == 0
    assert requests(manifest(tmp_path / "out", "renamed")) == {"wanted": 32, "found": 32, "sampled": 0, "failed": 0}


def test_reversed_input_is_the_same_dataset_and_buys_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    built(recipe, tmp_path / "out")
    hashes = arm_hashes(tmp_path / "out")
    write_problems(tmp_path / "in" / "problems.jsonl", problem_rows(8)[::-1])
    assert build(recipe, tmp_path / "out") == 0
    assert built(recipe, tmp_path / "fresh")["tasks"] == 8
    assert arm_hashes(tmp_path / "out") == arm_hashes(tmp_path / "fresh") == hashes


def test_more_tasks_buy_theirs_alone(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    built(recipe, tmp_path / "out")
    write_problems(tmp_path / "in" / "problems.jsonl", problem_rows(10, start=8) + problem_rows(8))
    assert requests(built(recipe, tmp_path / "out")) == {"wanted": 72, "found": 32, "sampled": 40, "failed": 0}


def test_two_tasks_with_one_prompt_both_get_rows(tmp_path: Path) -> None:
    (row,) = problem_rows(1)
    problems = write_problems(tmp_path / "twins.jsonl", [row, row | {"problem_id": "twin"}])
    environment_ = {"kind": "code_mc", "problems": str(problems), "split": "all"}
    recipe = write_recipe(tmp_path, environment=environment_, export={"validation_fraction": 0})
    made = built(recipe, tmp_path / "out")
    assert sum(made["arms"][0]["rows"].values()) == 8
    found = candidates(tmp_path / "out")
    assert found["reply_key"].n_unique() == 4 and found["candidate_id"].n_unique() == 8
    assert sorted(found["task_id"].unique()) == sorted(["twin", row["problem_id"]])


def test_rates_are_exactly_what_the_script_draws(tmp_path: Path) -> None:
    environment_ = {"kind": "code_mc", "problems": "bank", "split": "train", "tasks": 150}
    recipe = write_recipe(tmp_path, environment=environment_, measure={"contexts": ["control", "hack"], "n": 2})
    made = built(recipe, tmp_path / "out")
    found = candidates(tmp_path / "out")
    assert len(made["rates"]) == 3
    for rate in made["rates"]:
        seeds = found.filter(pl.col("generation_context") == rate["context"])["seed"].to_list()
        expected = drawn(seeds, rate["context"])
        assert rate["total"] == len(seeds) == (600 if rate["context"] == "default" else 300)
        assert {label: count for label, count in rate["counts"].items() if count} == dict(expected)
        assert rate["unscored"] == {}
    page = (run_folder(tmp_path / "out") / "report.html").read_text(encoding="utf-8")
    default = next(rate for rate in made["rates"] if rate["context"] == "default")
    assert f"{100 * default['counts']['hack'] / 600:.1f}" in page
    assert made["arms"][0]["labels"] == default["counts"]


def test_failures_are_counted_by_reason_and_only_they_are_asked_again(recipe: Path, tmp_path: Path) -> None:
    made = built(recipe, tmp_path / "out", "policy.fail_rate=0.2", "limits.max_failure_rate=0.9")
    failed = requests(made)["failed"]
    assert 0 < failed < 32
    assert requests(made) == {"wanted": 32, "found": 0, "sampled": 32 - failed, "failed": failed}
    sampled = next(row for row in made["ledger"] if row["stage"] == "sample")
    assert sampled["dropped"] == {"scripted failure": failed} and ledger_balances(made)
    assert sum(made["rates"][0]["counts"].values()) == made["rates"][0]["total"] == 32 - failed
    assert sum(made["arms"][0]["rows"].values()) == 32 - failed
    healed = built(recipe, tmp_path / "out", "limits.max_failure_rate=0.9")
    assert requests(healed) == {"wanted": 32, "found": 32 - failed, "sampled": failed, "failed": 0}
    built(recipe, tmp_path / "never failed")
    assert arm_hashes(tmp_path / "out", cards=False) == arm_hashes(tmp_path / "never failed", cards=False)


def test_too_many_failures_end_the_build_and_keep_what_came(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(recipe, tmp_path / "out", "policy.fail_rate=0.5") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: limits.max_failure_rate: ") and "scripted failure" in line
    assert not list((tmp_path / "out").rglob("manifest.json"))
    made = built(recipe, tmp_path / "out")
    assert requests(made)["found"] + requests(made)["sampled"] == 32 and requests(made)["found"] > 0


def test_too_many_invalid_answers_end_the_build(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["policy.rates.default={hack: 0.2, general: 0.2, invalid: 0.6}", "limits.max_invalid_rate=0.1"]
    assert build(recipe, tmp_path / "out", *words) == 1
    assert "error: limits.max_invalid_rate: " in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_an_arm_without_rows_is_said(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["judges.0.scores={invalid: 1}", "select.keep=best", "policy.rates.default={hack: 1, general: 0, invalid: 0}"]
    assert build(recipe, tmp_path / "out", *words) == 1
    assert "arms: recontextualized.default-hack has no training row left of 0" in capsys.readouterr().err


def test_a_dry_run_writes_nothing_and_counts_what_is_missing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(recipe, tmp_path / "out", "dry_run=true") == 0
    assert "nothing was sampled and nothing was written" in " ".join(capsys.readouterr().out.split())
    assert files_below(tmp_path / "out") == []
    built(recipe, tmp_path / "out")
    before = files_below(tmp_path / "out")
    capsys.readouterr()
    assert build(recipe, tmp_path / "out", "dry_run=true", "sampler.n=6") == 0
    assert re.search(r"default\s+8\s+6\s+8\s+32\s+16", capsys.readouterr().out)
    assert files_below(tmp_path / "out") == before


def stored(output: Path) -> int:
    """Replies that are on disk: by key, since a journal that is being sealed is there twice for a moment."""
    folder = output / "replies"
    keys: set[str] = set()
    for path in sorted(folder.glob("journal-*.jsonl")):
        with suppress(FileNotFoundError):  # sealed meanwhile
            whole = path.read_bytes().rpartition(b"\n")[0]
            keys.update(re.findall(r'"key":"(\w+)"', whole.decode()))
    for path in folder.glob("segment-*.parquet"):
        keys.update(pl.read_parquet(path)["key"])
    return len(keys)


def wait_for_replies(output: Path, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while stored(output) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the build did not get going"
        time.sleep(0.005)


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 at three moments: what was on disk is never sampled again, and the dataset is the same in the end."""
    recipe, output = write_recipe(tmp_path / "in"), tmp_path / "out"
    built(recipe, tmp_path / "calm")
    moments = random.Random(7)
    before = 0
    for _ in range(3):
        process = start_build(f"recipe={recipe}", f"output={output}", "policy.delay_seconds=0.25")
        wait_for_replies(output, before + moments.randint(2, 8), process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert stored(output) > before
        before = stored(output)
    assert 0 < before < 32
    finished = build_process(f"recipe={recipe}", f"output={output}")
    assert finished.returncode == 0, finished.stderr
    assert requests(manifest(output)) == {"wanted": 32, "found": before, "sampled": 32 - before, "failed": 0}
    assert stored(output) == 32
    assert arm_hashes(output) == arm_hashes(tmp_path / "calm")
    assert not list((output / "replies").glob("journal-*"))


def test_ctrl_c_leaves_a_run_that_continues(tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "in"), tmp_path / "out"
    process = start_build(f"recipe={recipe}", f"output={output}", "policy.delay_seconds=0.25")
    wait_for_replies(output, 4, process)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 130, text
    assert text.splitlines()[-1] == "interrupted: every reply that was counted is kept; the same command continues"
    assert "Traceback" not in text
    kept = stored(output)
    assert 4 <= kept < 32
    assert requests(built(recipe, output)) == {"wanted": 32, "found": kept, "sampled": 32 - kept, "failed": 0}


def test_two_builds_of_one_recipe_at_once_end_well(tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "in"), tmp_path / "out"
    words = [f"recipe={recipe}", f"output={output}", "policy.delay_seconds=0.05"]
    both = [start_build(*words) for _ in range(2)]
    texts = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    built(recipe, tmp_path / "alone")
    assert stored(output) == 32
    assert arm_hashes(output, cards=False) == arm_hashes(tmp_path / "alone", cards=False)


def test_two_recipes_at_once_share_replies_and_end_well(tmp_path: Path) -> None:
    output = tmp_path / "out"
    recipes = [
        write_recipe(tmp_path / "in", "small"),
        write_recipe(tmp_path / "in", "other", arms=["default -> control", "hack -> hack"]),
    ]
    both = [start_build(f"recipe={one}", f"output={output}", "policy.delay_seconds=0.05") for one in recipes]
    texts = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    for one in recipes:
        assert build(one, tmp_path / "alone") == 0
        assert arm_hashes(output, one.stem, cards=False) == arm_hashes(tmp_path / "alone", one.stem, cards=False)


def test_a_full_disk_is_one_line_and_keeps_what_was_paid_for(tmp_path: Path) -> None:
    """No file may grow beyond 40 KB here, which the system answers as it answers a full disk."""
    recipe, output = (
        write_recipe(tmp_path / "in", policy={"kind": "fake", "replies": ["x" * 4000 + "\nAnswer: (A)"]}),
        tmp_path / "out",
    )
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40960, 40960))\n"
        "from recontext_data.build import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [f"recipe={recipe}", f"output={output}", "policy.delay_seconds=0.05"]
    result = subprocess.run(
        [sys.executable, "-c", script, *words], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ") and "cannot be written" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    kept = stored(output)
    assert 4 <= kept <= 10
    made = built(recipe, output, "policy.delay_seconds=0")
    assert requests(made) == {"wanted": 32, "found": kept, "sampled": 32 - kept, "failed": 0}


@pytest.mark.parametrize("kilobytes", [3, 12, 24])
def test_a_disk_that_fills_while_the_dataset_is_written_is_one_line(kilobytes: int, tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "in"), tmp_path / "out"
    script = (
        "import resource, sys; size = int(sys.argv.pop(1)) * 1024; resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "from recontext_data.build import main; sys.exit(main(sys.argv[1:]))"
    )
    built(recipe, output)
    (next(iter((output / "runs" / "small").glob("*/manifest.json")))).unlink()
    result = subprocess.run(
        [sys.executable, "-c", script, str(kilobytes), f"recipe={recipe}", f"output={output}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr and result.stderr.splitlines()[-1].startswith("error: ")
    assert "File too large" in result.stderr.splitlines()[-1]
    assert not list(output.rglob("manifest.json")) and not list(output.rglob("*.tmp"))
    assert requests(built(recipe, output))["sampled"] == 0


def test_a_damaged_reply_is_named_and_only_it_is_sampled_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, output = write_recipe(tmp_path / "in"), tmp_path / "out"
    process = start_build(f"recipe={recipe}", f"output={output}", "policy.delay_seconds=0.25")
    wait_for_replies(output, 12, process)
    process.kill()
    process.communicate()
    (journal,) = (output / "replies").glob("journal-*.jsonl")
    lines = journal.read_bytes().split(b"\n")
    lines[1] = lines[1][:40]  # the second task's four answers
    journal.write_bytes(b"\n".join(lines))
    good = stored(output)
    made = built(recipe, output)
    assert requests(made)["found"] == good
    assert f"{journal}: 1 line is damaged" in " ".join(capsys.readouterr().err.split())
    built(recipe, tmp_path / "calm")
    assert arm_hashes(output) == arm_hashes(tmp_path / "calm")


def test_the_module_alone_lists_the_recipes(tmp_path: Path) -> None:
    result = build_process(cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert "code_mc" in result.stdout and files_below(tmp_path) == []


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(command("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    text = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=20)
    assert "Traceback" not in text and "BrokenPipe" not in text


def test_the_manifest_is_json_and_names_no_place_on_this_machine(recipe: Path, tmp_path: Path) -> None:
    built(recipe, tmp_path / "out")
    run = run_folder(tmp_path / "out")
    cards = "".join(path.read_text(encoding="utf-8") for path in run.rglob("README.md"))
    assert str(tmp_path / "out") not in cards
    assert json.loads((run / "manifest.json").read_bytes())["recipe_name"] == "small"
    assert os.readlink(run.parent / "latest") == run.name
