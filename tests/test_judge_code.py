"""The hash of a judge's code: what changes it, and what does not."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recontext_data.judges import code
from recontext_data.judges.choice import ChoiceJudge
from recontext_data.judges.code import code_identity, source_digest

FILES = {
    "__init__.py": "",
    "core/__init__.py": "",
    "core/records.py": "A = 1\n",
    "numbers.py": "from made_up_kit import deeper\n",
    "deeper.py": "X = 1\n",
    "judges/__init__.py": "",
    "judges/one.py": """
from made_up_kit.core import records
from made_up_kit.judges.reading import read

class Judge:
    def judge(self):
        from made_up_kit.numbers import deeper
        return read(deeper.X, records.A)
""",
    "judges/reading.py": "from . import other\nfrom made_up_kit.judges import marks\ndef read(*args): return marks.MARK\n",
    "judges/marks.py": "MARK = 1\n",
    "judges/other.py": "",
    "judges/stranger.py": "",
}


class Kit:
    """A toolkit on disk with a judge in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "made_up_kit"
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

    def identity(self) -> str:
        judge: Any = importlib.import_module("made_up_kit.judges.one")
        return code_identity(judge.Judge())


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Kit(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up_kit"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["judges/one.py", "judges/reading.py", "judges/marks.py", "numbers.py", "judges/__init__.py"])
def test_an_edit_of_what_the_verdict_comes_from_is_another_judge(name: str, kit: Kit) -> None:
    before = kit.identity()
    kit.write(name, FILES[name] + "# edited\n")
    assert kit.identity() != before
    kit.write(name, FILES[name])
    assert kit.identity() == before


@pytest.mark.parametrize("name", ["judges/stranger.py", "core/records.py", "deeper.py", "__init__.py", "judges/new.py"])
def test_an_edit_elsewhere_is_not(name: str, kit: Kit) -> None:
    """Other judges, the plumbing, and what lies two steps beyond the room."""
    before = kit.identity()
    kit.write(name, FILES.get(name, "") + "# edited\n")
    assert kit.identity() == before


def test_line_ends_of_another_system_are_the_same_code(kit: Kit) -> None:
    before = kit.identity()
    kit.write("judges/one.py", FILES["judges/one.py"].replace("\n", "\r\n"))
    assert kit.identity() == before


def test_settings_are_no_code_and_are_told_apart_by_the_recipe() -> None:
    assert code_identity(ChoiceJudge()) == code_identity(ChoiceJudge(name="other", scores={"hack": 1.0}))


def test_a_class_typed_into_a_session_has_its_name_alone() -> None:
    code = "from recontext_data.judges.code import code_identity\nclass Judge: pass\nprint(code_identity(Judge()))"
    said = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout for text in (code, code)
    ]
    assert said[0] == said[1] and len(said[0].strip()) == 64


def test_a_shipped_judge_is_identified_by_its_pin_until_its_source_is_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = json.loads(code.IDENTITIES.read_text(encoding="utf-8"))["choice"]
    assert pinned["identity"] == "8455b11972b3d6713191d2abe100150a91dc805747495b7098638f52db08da4b"  # of its first version
    assert source_digest(ChoiceJudge()) == pinned["source"] != pinned["identity"] == code_identity(ChoiceJudge())
    monkeypatch.setattr(code, "source_digest", lambda judge: "edited")
    assert code_identity(ChoiceJudge()) == "edited"
