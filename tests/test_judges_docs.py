"""docs/judges.md: its rubric is a rubric, its judges are judges, and every option of them is documented."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from recontext_data.config.recipe import JUDGES, Recipe
from recontext_data.core.config import Config
from recontext_data.core.field_docs import field_docs
from recontext_data.judges.answer import LabelAnswer, NumberAnswer, PassFailAnswer
from recontext_data.judges.base import SamplingConfig
from recontext_data.judges.pairwise import PairwiseJudge
from recontext_data.judges.rubric import ExpectedValue, RubricJudge
from recontext_data.judges.rubric_file import Expect, Gold, GoldAnswer, Rubric, RubricExample, load_rubric
from tests.helpers import ROOT, recipe_tree

TEXT = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
BLOCKS: list[dict[str, Any]] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_the_rubric_of_the_page_is_one(tmp_path: Path) -> None:
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "answer:" in text]
    path = tmp_path / "page.yaml"
    path.write_text(block, encoding="utf-8")
    rubric = load_rubric(str(path))
    assert len(rubric.examples) == 1 and len(rubric.gold) == 2 and list(rubric.answer.values) == list("012345")


@pytest.mark.parametrize("block", [block for block in BLOCKS if "judges" in block])
def test_the_judges_of_the_page_are_judges(block: dict[str, Any]) -> None:
    tree = recipe_tree(judges=[*block["judges"], {"kind": "choice"}], select=block.get("select", {}))
    recipe = Recipe.model_validate(tree)
    assert [judge.kind for judge in recipe.judges] == [judge["kind"] for judge in block["judges"]] + ["choice"]


def test_every_option_is_on_the_page() -> None:
    for config in (RubricJudge, PairwiseJudge, Rubric, NumberAnswer, LabelAnswer, SamplingConfig, ExpectedValue, Expect):
        for name in config.model_fields:
            assert re.search(rf"\b{name}\b", TEXT), f"{config.__name__}.{name}"


def test_every_option_says_what_it_is() -> None:
    configs: list[type[Config]] = [
        *(RubricJudge, PairwiseJudge, Rubric, NumberAnswer, LabelAnswer, PassFailAnswer, SamplingConfig, ExpectedValue, Expect),
        GoldAnswer,
    ]
    for config in configs:
        docs = field_docs(config)
        assert all(docs.get(name) for name in config.model_fields if name != "kind"), config.__name__
    assert field_docs(RubricExample)["reply"] and field_docs(Gold)["expect"]


def test_the_kinds_are_known() -> None:
    assert JUDGES.config("rubric") is RubricJudge and JUDGES.config("pairwise") is PairwiseJudge


def test_the_page_says_how_many_replies_the_parser_is_tried_on() -> None:
    cases = yaml.safe_load((ROOT / "tests" / "judge_replies.yaml").read_text(encoding="utf-8"))
    (said,) = re.findall(r"judge_replies.yaml` has (\d+) replies", TEXT)
    assert int(said) <= len(cases) < int(said) + 10
