"""The preview: every context and every arm's rewriting, on the terminal and as one page, without sampling anything."""

import html
from pathlib import Path
from typing import Any

import pytest

from recontext_data import preview as verb
from tests.fault_server import Faults, FaultServer
from tests.helpers import CONTEXTS, error_line, files_below, write_recipe
from tests.test_given import chats


def preview(recipe: Path, output: Path, *words: str) -> int:
    return verb.main([f"recipe={recipe}", f"output={output}", *words])


def page(output: Path) -> str:
    return (output / "runs" / "small" / "preview.html").read_text(encoding="utf-8")


def test_the_terminal_shows_contexts_arms_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(write_recipe(tmp_path / "in"), tmp_path / "out") == 0
    out = capsys.readouterr().out
    for name, context in CONTEXTS.items():
        assert f"context {name}  {context['stance']}, system\n" in out
        assert f"system: {context['system']}" in out
    assert "arm recontextualized.default-hack  recontextualized, default -> hack" in out
    assert "Tests decide; [-pass the tests-]{+whatever passes them will do+}." in out
    assert "user: unchanged, " in out
    assert "Nothing was sampled." in out and "\nall " not in out
    assert "\x1b" not in out, "no colour in a pipe"


def test_the_page_is_whole_without_script_or_network(tmp_path: Path) -> None:
    assert preview(write_recipe(tmp_path / "in"), tmp_path / "out", "examples=3") == 0
    text = page(tmp_path / "out")
    for word in ("<script", "http://", "https://", "src=", "@import", "url("):
        assert word not in text.lower()
    assert text.count('<article class="row">') == 3 * 3 + 2 * 3, "three contexts and two arms on three tasks each"
    assert "<del>" in text and "<ins>" in text
    for context in CONTEXTS.values():
        assert html.escape(context["system"]) in text
    assert files_below(tmp_path / "out") == ["runs", "runs/small", "runs/small/preview.html"]


def test_what_others_wrote_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contexts = CONTEXTS | {"hack": {"stance": "permits", "system": "[red]x[/red] <script>alert(1)</script> \x1b[31m {{ y }}"}}
    assert preview(write_recipe(tmp_path / "in", contexts=contexts), tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "[red]x[/red] <script>alert(1)</script> \\x1b[31m {{ y }}" in out and "\x1b" not in out
    assert "<script>" not in page(tmp_path / "out")


def test_nothing_is_asked_of_a_server_and_the_cost_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Faults()) as server:
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": "NO_SUCH_KEY"}
        recipe = write_recipe(tmp_path / "in", policy=policy, prices={"m": {"input": 1.0, "output": 2.0}})
        assert preview(recipe, tmp_path / "out") == 0
        assert server.seen == []
    assert "$" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert preview(write_recipe(tmp_path / "in"), tmp_path / "out", "dry_run=true") == 0
    assert files_below(tmp_path / "out") == []


def test_given_data_is_shown_under_its_training_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "in", arms=[{"data": str(chats(tmp_path / "in")), "training": "hack"}])
    assert preview(recipe, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "arm inoculation.data.chats-hack  inoculation, data.chats -> hack" in out
    assert f"system (added): {{+{CONTEXTS['hack']['system']}+}}" in out
    assert "Nothing: every arm reads given data." in page(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["examples=0"], "examples=0: must be an integer from 1 to 50"),
        (["examples=many"], "examples=many: must be an integer"),
        (["contexts.hack.system_append=x"], "found system and system_append"),
        (["sampler.n=0"], "sampler.n"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview(write_recipe(tmp_path / "in"), tmp_path / "out", *words) == 2
    assert message in error_line(capsys.readouterr().err)
    assert files_below(tmp_path / "out") == []


def test_colour_tells_the_two_prompts_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    import io

    from recontext_data.config.loading import load
    from recontext_data.pipeline.preparation import prepared
    from recontext_data.pipeline.preview import shown_prompts
    from recontext_data.reports.preview import show
    from recontext_data.reports.screen import Screen

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    loaded = load(str(write_recipe(tmp_path)))
    terminal = Terminal()
    screen = Screen(out=terminal)
    found = shown_prompts(prepared(loaded.name, loaded.recipe, output=tmp_path), examples=1)
    show(found, screen=screen)
    out = terminal.getvalue()
    assert "\x1b[9;31mpass the tests" in out and "\x1b[32mwhatever passes them will do" in out
    assert "[-" not in out


def test_help_shows_its_own_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["--help"]) == 0
    assert "examples: integer" in capsys.readouterr().out
    assert verb.main([]) == 2
