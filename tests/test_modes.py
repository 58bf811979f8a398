"""One way of speaking for every verb: `screen=` decides, once, for progress, results, warnings and errors."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recontext_data.cli import VERBS, guarded, main
from recontext_data.core.errors import RecipeError
from recontext_data.reports import modes
from recontext_data.reports.screen import Screen
from recontext_data.reports.tables import table
from tests import manifests
from tests.helpers import environment, in_terminal

BUILD = ["recipe=code_mc", "environment.tasks=4", "sampler.n=1", "measure.contexts=[]", "policy={kind: fake, replies: [sure]}"]


def run(*words: str, cwd: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    env = environment() | changes
    command = [sys.executable, "-m", "recontext_data", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("built")
    assert run("build", *BUILD, cwd=folder).returncode == 0
    yield folder


@pytest.mark.parametrize("mode", modes.MODES)
def test_the_mode_is_taken_out_of_the_words(mode: str) -> None:
    assert modes.take_out(["recipe=x", f"screen={mode}", "sampler.n=2"]) == (["recipe=x", "sampler.n=2"], mode)


def test_a_mode_is_given_once_and_none_is_auto() -> None:
    with pytest.raises(RecipeError, match="screen: given twice; write it once"):
        modes.take_out(["screen=json", "screen=plain"])
    assert modes.take_out(["recipe=x"]) == (["recipe=x"], "auto")


def test_an_unknown_mode_is_one_line_that_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda words: 0, ["screen=jsno"]) == 2
    assert capsys.readouterr().err == "error: screen=jsno: must be auto | rich | plain | quiet | json; did you mean 'json'?\n"


def test_the_mode_ends_with_the_command() -> None:
    assert guarded(lambda words: 0 if modes.mode() == "quiet" else 1, ["screen=quiet"]) == 0
    assert modes.mode() == "auto"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_has_the_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert "screen: auto | rich | plain | quiet | json" in capsys.readouterr().out


def test_json_is_one_object_a_line_on_both_streams(tmp_path: Path) -> None:
    done = run("build", *BUILD, "screen=json", cwd=tmp_path)
    results, events = objects(done.stdout), objects(done.stderr)
    assert done.returncode == 0
    assert [one["result"] for one in results] == ["build"]
    assert results[0]["recipe_name"] == "code_mc" and results[0]["requests"]["sampled"] == 4
    assert (tmp_path / results[0]["folder"] / "manifest.json").is_file()
    stages = [one for one in events if one["event"] == "stage"]
    assert stages[0]["stage"] == "sample" and stages[0]["done"] == stages[0]["total"] == 4 and stages[0]["finished"] is True


def test_the_mode_is_no_part_of_what_is_built(tmp_path: Path, built: Path) -> None:
    folder = objects(run("build", *BUILD, "screen=json", cwd=tmp_path).stdout)[0]["folder"]
    ours, theirs = (json.loads((root / folder / "manifest.json").read_text()) for root in (tmp_path, built))
    assert ours["command"] == theirs["command"]
    assert {name: f["sha256"] for name, f in ours["files"].items() if name.endswith((".arrow", ".parquet"))} == {
        name: f["sha256"] for name, f in theirs["files"].items() if name.endswith((".arrow", ".parquet"))
    }


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["build", *BUILD, "dry_run=true"], "plan"),
        (["preview", *BUILD, "dry_run=true"], "preview"),
        (["replies"], "replies"),
        (["replies", "check"], "check"),
        (["replies", "find", *BUILD], "reply"),
        (["replies", "prune", "before=2030-01-01"], "prune"),
        (["power", "base=.4", "effect=.1", "tasks=50", "seeds=3"], "power"),
        (["status"], "status"),
        (["publish", "to=file", "run=code_mc", "format=openai", "dry_run=true"], "text"),
        (["build"], "text"),
    ],
)
def test_every_verb_speaks_json(
    built: Path, words: list[str], result: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built)
    assert main([*words, "screen=json"]) == 0
    seen = capsys.readouterr()
    objects(seen.err)
    assert objects(seen.out)[0]["result"] == result


def test_an_error_in_json_is_an_event_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "recipe=code_mcc", "screen=json"]) == 2
    seen = capsys.readouterr()
    [event] = objects(seen.err)
    assert seen.out == ""
    assert event["event"] == "error" and event["error"] == "RecipeError" and event["exit_code"] == 2
    assert "did you mean 'code_mc'?" in event["text"]


def test_an_unknown_verb_speaks_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bild", "screen=json"]) == 2
    assert objects(capsys.readouterr().err)[0]["text"] == "'bild' is not a verb; did you mean 'build'?"


def test_quiet_leaves_results_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *BUILD, f"output={tmp_path}", "screen=quiet"]) == 0
    seen = capsys.readouterr()
    assert seen.err == "" and f"datasets  {tmp_path}/runs/code_mc/" in seen.out
    assert main(["build", "recipe=code_mc", "sampler.n=0", "screen=quiet"]) == 2
    assert "sampler.n=0: must " in capsys.readouterr().err


def test_quiet_keeps_warnings() -> None:
    out, err = io.StringIO(), io.StringIO()
    with modes.speaking("quiet"):
        screen = Screen(out=out, err=err)
        screen.note("a note")
        screen.warn("look here")
        screen.error(RecipeError("no"))
        with screen.stage("sample", 2, unit="answers") as tracker:
            tracker.advance(2)
    assert err.getvalue() == "warning: look here\nerror: no\n"


def test_hostile_text_stays_one_ascii_object_in_json() -> None:
    out, err = io.StringIO(), io.StringIO()
    hostile = "\x1b[31mred\x1b]0;t\x07 \u202e \ud800 \n }"
    with modes.speaking("json"):
        screen = Screen(out=out, err=err)
        screen.note(hostile)
        screen.result("x", {"text": hostile, "nan": float("nan"), "path": Path("a/b"), hostile: 1})
    [event], [result] = objects(err.getvalue()), objects(out.getvalue())
    assert event["text"] == hostile and result["text"] == hostile
    assert result["nan"] is None and result["path"] == "a/b"
    assert all(32 <= ord(letter) < 127 or letter == "\n" for letter in out.getvalue() + err.getvalue())


def test_what_others_print_becomes_objects_too(capsys: pytest.CaptureFixture[str]) -> None:
    def job(words: object) -> int:
        print("two\nlines")
        print("  10 %\r  90 %", file=sys.stderr, end="")
        return 0

    assert guarded(job, ["screen=json"]) == 0
    seen = capsys.readouterr()
    assert objects(seen.out) == [{"result": "text", "text": "two"}, {"result": "text", "text": "lines"}]
    assert objects(seen.err) == [{"event": "text", "text": "90 %"}]


def terminal(*words: str, cwd: Path, columns: int = 80, **changes: str) -> str:
    """What `recontext` writes to a terminal."""
    _, text = in_terminal([sys.executable, "-m", "recontext_data", *words], env=changes, cwd=cwd, columns=columns)
    return text.replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", text)


def test_a_terminal_gets_colour_and_an_error_in_red(tmp_path: Path) -> None:
    assert "\x1b[31merror:\x1b[0m recipe=nope: " in terminal("build", "recipe=nope", cwd=tmp_path)
    assert "\x1b" not in terminal("build", "recipe=nope", cwd=tmp_path, NO_COLOR="1")
    assert "\x1b" not in terminal("build", "recipe=nope", cwd=tmp_path, TERM="dumb")


def test_plain_on_a_terminal_draws_nothing_over(tmp_path: Path) -> None:
    seen = terminal("build", *BUILD, "screen=plain", cwd=tmp_path)
    assert "\x1b" not in seen and "sample: 4 completions in" in seen and "datasets" in seen


def test_rich_in_a_pipe_has_colours_unless_they_are_refused(built: Path) -> None:
    assert "\x1b[" in run("status", "screen=rich", cwd=built).stdout
    assert "\x1b[2m" not in run("status", "screen=rich", cwd=built, NO_COLOR="1").stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_a_build_keeps_every_number_at_any_width(built: Path, columns: int) -> None:
    seen = plain(terminal("build", *BUILD, cwd=built, columns=columns))
    assert "Traceback" not in seen
    for said in ("default", "0.0 %", "0.0-49.0", "train", "validation"):
        assert said in seen
    tables = seen.partition("datasets")[0].splitlines()[1:]
    assert max(len(line) for line in tables) <= columns


def test_a_narrow_screen_stacks_what_it_cannot_show_in_columns() -> None:
    rows = [["recontextualized.default-hack", "16,000,000", "12,345,678", "$12,345.67"], ["standard", "1", "", "–"]]
    shown = {width: rendered(width, ["arm", "requests", "found", "cost at most"], rows) for width in (30, 40, 80)}
    assert shown[80].splitlines()[2].split() == ["recontextualized.default-hack", "16,000,000", "12,345,678", "$12,345.67"]
    for width in (30, 40):
        assert "  cost at most  $12,345.67" in shown[width] and "  requests      16,000,000" in shown[width]
        assert max(map(len, shown[width].splitlines())) <= width
        assert shown[width].count("found") == 1  # an empty cell is not a line


def test_a_wide_screen_gives_names_their_room() -> None:
    name = "recontextualized.default-hack"
    assert "…" in rendered(50, ["arm", "rows", "spent", "share"], [[name, "1,000", "$1.00", "39.4 %"]])
    assert name in rendered(80, ["arm", "rows", "spent", "share"], [[name, "1,000", "$1.00", "39.4 %"]])


def rendered(width: int, headers: list[str], rows: list[list[str]]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    console.print(table(headers, rows, safe=str, name_cells=44))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_closing_in_json_has_the_numbers_and_what_is_wrong() -> None:
    manifest = manifests.manifest()
    manifest["ledger"][0]["kept"] = 255
    out = io.StringIO()
    with modes.speaking("json"):
        Screen(out=out, err=io.StringIO()).closing(manifest, folder=Path("runs/x"))
    [result] = objects(out.getvalue())
    assert result["rates"] == manifest["rates"] and result["folder"] == "runs/x"
    assert result["problems"] == ["The ledger of tasks, all, does not balance: 378 in, 255 kept, 122 dropped."]
