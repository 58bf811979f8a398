"""The screen: 80 columns, no ANSI in a pipe, text is never markup, cheap counting, errors on stderr."""

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import GateFailed, RecipeError
from recontext_data.reports import progress
from recontext_data.reports.progress import StageTracker
from recontext_data.reports.screen import Screen
from tests import helpers, manifests

FOLDER = Path("runs/code_mc/3f7a91c2d4e8b650")
HOSTILE = "[bold red]x[/bold red] [/] :smile: \x1b[31mred\x1b]0;title\x07 {0} %s\u202e"
SHOWN = "[bold red]x[/bold red] [/] :smile: \\x1b[31mred\\x1b]0;title\\x07 {0} %s\\u202e"


class Captured:
    """A screen on two buffers, as in a pipe."""

    def __init__(self) -> None:
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.screen = Screen(out=self.stdout, err=self.stderr)

    @property
    def out(self) -> str:
        return self.stdout.getvalue()

    @property
    def err(self) -> str:
        return self.stderr.getvalue()


@pytest.fixture
def captured() -> Captured:
    return Captured()


def pool(context: str = "default", **changes: Any) -> dict[str, Any]:
    base = {"context": context, "tasks": 256, "n": 4, "requests": 1024, "found": 24, "to_sample": 1000}
    return base | {"prompt_tokens": 212_345, "cost_usd": 0.4247} | changes


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


def words(text: str) -> str:
    return " ".join(text.split())


def test_closing_has_the_numbers_and_the_places(captured: Captured) -> None:
    captured.screen.closing(manifests.manifest(), folder=FOLDER)
    out = words(captured.out)
    assert "default 1,020 39.4 % 36.4-42.4 20 4" in out
    assert "recontextualized.default-hack 918 102 39.4 %" in out
    assert f"datasets {FOLDER}/arms report {FOLDER}/report.html" in out
    assert "1,020 sampled, 512 found in the store, 4 failed, 22 s" in out
    assert captured.err == ""


def test_closing_fits_80_columns_without_ansi(captured: Captured) -> None:
    manifest = manifests.manifest()
    manifest["rates"][0]["context"] = "a_context_with_a_very_long_name_that_nobody_should_give"
    manifest["rates"][1] |= {"counts": {"general": 10_000_000, "hack": 9_999_999, "invalid": 1_234_567}, "total": 21_234_570}
    manifest["arms"][0] |= {"name": "recontextualized." + "x" * 90, "rows": {"train": 10_000_000, "validation": 1_000_000}}
    captured.screen.closing(manifest, folder=FOLDER)
    assert widest(captured.out) <= 80
    assert "\x1b" not in captured.out
    assert "21,234,570" in captured.out and "10,000,000" in captured.out


def test_closing_says_scripted_proved_and_what_other_judges_found_in_80_columns(captured: Captured) -> None:
    manifest = manifests.manifest()
    labels = ["clean", "mentions_tests", "means_to_pass", "notices_wrong"]
    other = {"judge": "trace", "labels": labels, "counts": dict.fromkeys(labels, 64), "mean_score": None}
    manifest["rates"].append(manifest["rates"][0] | other)
    for arm in manifest["arms"]:
        arm["judges"] = {"trace": dict.fromkeys(labels, 1)}
    manifest["proof"] = [{"judge": "choice", "tasks": 32, "answers": {"hack": 32, "general": 32}}]
    captured.screen.closing(manifest, folder=FOLDER)
    assert "SCRIPTED" not in captured.out
    assert "proved choice, on 64 answers to 32 tasks" in words(captured.out)
    assert "trace clean mentions_tests means_to_pass notices_wrong" in words(captured.out)
    assert "control 25.0 % 25.0 % 25.0 % 25.0 %" in words(captured.out)
    assert widest(captured.out) <= 80
    manifest["recipe"]["policy"]["kind"] = "fake"
    captured.screen.closing(manifest, folder=FOLDER)
    assert "SCRIPTED: no model was sampled; the rates are the script's" in captured.out


def test_a_stand_in_policy_is_told_what_to_type(captured: Captured) -> None:
    captured.screen.closing(manifests.manifest(), folder=FOLDER)
    assert "recontext build recipe=code_mc policy.kind=openai policy.model=gpt-4.1\n" in captured.out
    assert (
        "recontext build recipe=code_mc \\\n    policy.kind=transformers policy.model=Qwen/Qwen2.5-14B-Instruct\n"
        in captured.out
    )


def test_the_hint_keeps_the_recipe_that_was_typed(captured: Captured) -> None:
    manifest = manifests.manifest() | {"command": "recontext build 'recipe=my recipes/mine.yaml' sampler.n=2"}
    captured.screen.closing(manifest, folder=FOLDER)
    assert "recontext build 'recipe=my recipes/mine.yaml' policy.kind=openai" in captured.out


def test_a_real_model_gets_no_such_hint(captured: Captured) -> None:
    manifest = manifests.manifest()
    manifest["recipe"]["policy"] = {"kind": "openai", "model": "gpt-4.1"}
    manifest["cost_usd"] = 3.2
    captured.screen.closing(manifest, folder=FOLDER)
    assert "real model" not in captured.out and "$3.20 spent" in captured.out


def test_closing_says_what_is_wrong(captured: Captured) -> None:
    manifest = manifests.manifest()
    manifest["ledger"][0]["kept"] = 255
    captured.screen.closing(manifest, folder=FOLDER)
    assert "✗ The ledger of tasks, all, does not balance: 378 in, 255 kept, 122 dropped." in captured.out


def test_text_is_never_markup_nor_a_terminal_command(captured: Captured) -> None:
    manifest = manifests.manifest()
    manifest["rates"][0]["context"] = "[b]x[/] \x1b[31m"
    manifest["arms"][0]["name"] = HOSTILE
    captured.screen.closing(manifest, folder=Path(HOSTILE))
    captured.screen.note(HOSTILE)
    captured.screen.warn(HOSTILE)
    captured.screen.error(RecipeError(HOSTILE))
    with captured.screen.stage("[red]stage[/]", 1, unit="[b]") as tracker:
        tracker.advance()
    assert "[b]x[/] \\x1b[31m" in captured.out and SHOWN in captured.out
    assert captured.err.startswith(f"{SHOWN}\nwarning: {SHOWN}\nerror: {SHOWN}\n[red]stage[/]: 1 [b] in")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", captured.out + captured.err)


def test_error_is_one_line_on_stderr(captured: Captured) -> None:
    captured.screen.error(GateFailed("leak: 3 rows\nfirst: a1\n\n"))
    captured.screen.error(ZeroDivisionError("division by zero"))
    captured.screen.error(KeyboardInterrupt())
    assert captured.err == (
        "error: leak: 3 rows first: a1\nerror: ZeroDivisionError: division by zero\nerror: KeyboardInterrupt\n"
    )
    assert captured.out == ""


def test_dry_run_shows_pools_sums_and_budget(captured: Captured) -> None:
    captured.screen.dry_run({"pools": [pool(), pool("control", n=1, requests=256, found=0, to_sample=256)], "budget_usd": 0.5})
    out = words(captured.out)
    assert "default 256 4 1,024 24 1,000 212,345 $0.4247" in out
    assert "all 1,280 24 1,256 424,690 $0.8494" in out
    assert "The budget is $0.5000: the build would stop there, unfinished." in out
    assert widest(captured.out) <= 80


def test_an_unknown_part_makes_the_sum_unknown(captured: Captured) -> None:
    captured.screen.dry_run({"pools": [pool(), pool("hack", prompt_tokens=None, cost_usd=None)]})
    assert "all 2,048 48 2,000 unknown unknown" in words(captured.out)
    assert "The cost is unknown" in captured.out


def test_a_dry_run_of_ten_million_fits(captured: Captured) -> None:
    large = {"tasks": 1_000_000, "n": 16, "requests": 16_000_000, "found": 12_345_678, "to_sample": 9_999_999}
    captured.screen.dry_run({"pools": [pool("c" * 40, **large, prompt_tokens=3_200_000_000, cost_usd=12_345.67), pool()]})
    assert widest(captured.out) <= 80
    assert "16.0 M" in captured.out and "$12,345.67" in captured.out


def test_a_stage_in_a_pipe_is_one_plain_line(captured: Captured) -> None:
    with captured.screen.stage("sample default", 1000, unit="answers") as tracker:
        for _ in range(1000):
            tracker.advance(usd=0.001)
        tracker.advance(0, failed=4)
    assert re.fullmatch(r"sample default: 1,000 answers in 0\.\d s(, [\d,.]+/s)?, 4 failed, \$1\.00 spent\n", captured.err)


def test_a_stage_that_fails_says_where_it_stopped(captured: Captured) -> None:
    with pytest.raises(GateFailed), captured.screen.stage("judge", 10, unit="answers") as tracker:
        tracker.advance(3)
        raise GateFailed("no")
    assert captured.err.startswith("judge: stopped at 3/10 answers in ")


def test_a_stage_that_ends_early_shows_both_numbers(captured: Captured) -> None:
    with captured.screen.stage("judge", 10, unit="answers") as tracker:
        tracker.advance(3)
    assert captured.err.startswith("judge: 3/10 answers in ")


def test_an_unknown_total_is_not_invented(captured: Captured) -> None:
    with captured.screen.stage("read", None, unit="tasks") as tracker:
        tracker.advance(7)
        assert tracker.plain() == "read: 7 tasks"
    assert captured.err.startswith("read: 7 tasks in ")


def test_a_word_on_progress_is_not_said_for_every_answer(captured: Captured) -> None:
    with captured.screen.stage("sample", 40_000, unit="answers") as tracker:
        for _ in range(40_000):
            tracker.advance()
    assert len(captured.err.splitlines()) < 100


def test_threads_lose_no_counts() -> None:
    tracker = StageTracker("sample", 40_000, unit="answers")

    def work() -> None:
        for _ in range(10_000):
            tracker.advance()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.pace().done == 40_000


class Clock:
    """Time that passes when told to, in the place of `time` in the module that counts."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_rate_and_eta_come_from_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    tracker = StageTracker("sample", 1000, unit="answers")
    assert tracker.plain() == "sample: 0/1,000 answers"
    tracker.advance(100)
    clock.now = 0.4
    assert tracker.pace().rate is None, "too soon to tell"
    clock.now = 0.625
    assert tracker.plain() == "sample: 100/1,000 answers, 160.0/s, eta 5.6 s"
    clock.now += 10  # a stall of ten seconds is all that counts then
    assert tracker.pace().rate == 0.0


@pytest.mark.parametrize("width", [30, 80, 120])
def test_the_live_line_fits_and_keeps_its_numbers(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    tracker = StageTracker("sample recontextualized", 1_024_000, unit="answers")
    tracker.advance(512_000, failed=12, usd=3.5)
    clock.now = 60.0
    line = tracker.live(width)
    assert line.cell_len <= width
    if width >= 80:
        assert "512,000/1,024,000 answers" in line.plain
    if width >= 120:
        assert "12 failed" in line.plain and "$3.50 spent" in line.plain and "━" in line.plain


SCRIPT = """
import time, sys
from pathlib import Path
from recontext_data.reports.screen import Screen
from tests import manifests
screen = Screen()
with screen.stage("sample default", 40, unit="answers") as outer, screen.stage("judge", 40, unit="answers") as inner:
    for i in range(40):
        time.sleep(float(sys.argv[1]))
        outer.advance(usd=0.01)
        inner.advance(failed=i == 3)
        if i == 20:
            screen.note("half way [b]there[/b]")
screen.closing(manifests.manifest(), folder=Path("runs/x"))
"""


def in_terminal(**environment: str) -> str:
    """What the script writes to a terminal."""
    code, text = helpers.in_terminal(
        [sys.executable, "-c", SCRIPT, "0.02"], env={"COLUMNS": "80", "LINES": "24", **environment}
    )
    assert code == 0
    return text


def test_a_terminal_gets_live_lines_and_colours() -> None:
    seen = in_terminal()
    assert "\x1b[36m" in seen and "━" in seen
    assert re.search(r"\d+/40 answers", seen)
    assert "half way [b]there[/b]" in seen
    assert seen.count("sample default: 40 answers in ") == 1
    assert seen.rstrip().endswith("policy.model=Qwen/Qwen2.5-14B-Instruct")
    assert "\x1b[?25h" in seen  # the cursor is back


def test_no_color_is_respected_on_a_terminal() -> None:
    seen = in_terminal(NO_COLOR="1")
    assert re.search(r"\d+/40 answers", seen)
    assert not re.search(r"\x1b\[[\d;]*m", seen)


def test_a_dumb_terminal_gets_plain_lines() -> None:
    assert "\x1b" not in in_terminal(TERM="dumb")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_real_pipe_gets_no_ansi_even_when_colour_is_forced(encoding: str) -> None:
    env = os.environ | {"FORCE_COLOR": "1", "PYTHONIOENCODING": encoding, "TERM": "xterm-256color"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, "0"], capture_output=True, env=env, timeout=30, check=True)
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr.decode().count("\n") == 3
    assert "39.4 %" in done.stdout.decode()
    assert widest(done.stdout.decode()) <= 80


def test_a_slow_stage_in_a_pipe_reports_every_few_seconds() -> None:
    script = (
        "from recontext_data.reports import progress\nfrom recontext_data.reports.screen import Screen\n"
        "from tests.test_screen import Clock\nclock = progress.time = Clock()\n"
        "with Screen().stage('slow', 8, unit='steps') as t:\n"
        "    for _ in range(8):\n        clock.now += 0.8\n        t.advance()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"slow: \d/8 steps, \d\.\d/s, eta \d\.\d s", lines[0])


def test_importing_the_screen_is_light() -> None:
    script = "import sys, recontext_data.reports.screen, recontext_data.reports.html, recontext_data.reports.card\n"
    script += "print([m for m in ('rich', 'jinja2', 'polars', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
