"""docs/partial.md: every block of YAML loads, every option of the classifier is named, and its table is what a card shows."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import Arm, Mix
from recontext_data.judges.classifier import ClassifierJudge
from recontext_data.reports.numbers import Share
from tests.helpers import ROOT, recipe_tree

PAGE = (ROOT / "docs" / "partial.md").read_text(encoding="utf-8")
BLOCKS = [block.partition("```")[0] for block in PAGE.split("```yaml\n")[1:]]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_part_of_a_recipe(block: str) -> None:
    changes: dict[str, Any] = yaml.safe_load(block)
    if "judges" in changes and "arms" not in changes:
        changes["select"] = {"judge": "choice"}
    Recipe.model_validate(recipe_tree(**changes))


def test_every_option_is_on_the_page() -> None:
    for config in (ClassifierJudge, Mix):
        assert all(name in PAGE for name in config.model_fields)
    assert all(name in PAGE for name in ("where", "otherwise", "mix") if name in Arm.model_fields)


@pytest.mark.parametrize(("part", "whole"), [(86, 100), (0, 100)])
def test_the_table_shown_is_arithmetic(part: int, whole: int) -> None:
    share = Share(part=part, whole=whole)
    assert f"| {share.percent} | {share.interval} | {whole} |" in PAGE


def test_no_line_is_cut_and_no_page_is_missing() -> None:
    for link in ("docs/contexts.md",):
        assert link in PAGE and (Path(ROOT) / link).is_file()
