"""A page is opened where there is a screen to see it on, and nowhere else."""

import os
import sys
from pathlib import Path

import pytest

from recontext_data.core.browser import show


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that writes down what it was asked to open; the file is there once it was."""
    said, program = tmp_path / "said", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {said}\n')
    program.chmod(0o755)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    monkeypatch.setattr("webbrowser._tryorder", None)  # it looks at the environment once in a process
    return said


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="these always have a screen")
def test_a_page_is_opened_only_where_there_is_a_screen(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not show("file:///tmp/report.html") and not opened.exists()
    monkeypatch.setenv("DISPLAY", os.environ.get("DISPLAY", ":99"))
    assert show("file:///tmp/report.html") and opened.read_text() == "file:///tmp/report.html\n"
