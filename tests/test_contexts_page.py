"""docs/contexts.md: every block of YAML loads and plans, and every option and gate is on the page."""

import re
from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.loading import load
from recontext_data.contexts.context import PLACEMENTS, Context
from recontext_data.contexts.placement import Rendering
from recontext_data.gates.rules import Gates
from recontext_data.pipeline.arm_gates import GATES
from recontext_data.pipeline.preparation import prepared
from tests.helpers import ROOT
from tests.test_given import chats

PAGE = (ROOT / "docs" / "contexts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_a_recipe_that_plans(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chats(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.yaml"
    path.write_text(f"extends: code_mc\nmeasure: {{contexts: []}}\n{block}", encoding="utf-8")
    recipe = load(str(path), ["environment.tasks=4"]).recipe
    job = prepared("page", recipe, output=tmp_path)
    assert job.arms


@pytest.mark.parametrize("name", [*PLACEMENTS, *GATES, *Rendering.model_fields, *Gates.model_fields])
def test_every_placement_gate_and_rendering_option_is_on_the_page(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_every_option_of_a_context_is_on_the_page() -> None:
    missing = [name for name in Context.model_fields if not re.search(rf"\b{name}\b", PAGE)]
    assert missing == []


def test_the_defaults_of_the_gates_are_those_of_the_table() -> None:
    table: dict[str, Any] = dict(re.findall(r"^\| `(\w+)` \|.*\| (fail|drop|report) \|$", PAGE, flags=re.MULTILINE))
    assert table == {name: getattr(Gates(), name) for name in GATES}
