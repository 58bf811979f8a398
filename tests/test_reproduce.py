"""The recipes of `make reproduce`: the arms that the comparison needs, and a reward that pays for hacks."""

from pathlib import Path

import polars as pl
import pytest

from recontext_data.config.loading import load, shipped_recipes
from recontext_data.contexts.arms import kind_of
from tests import helpers
from tests.iteration_world import needs_tiny

RECIPES = ("code_mc_reproduce", "code_mc_best_of_4")


def test_ten_seeds_of_every_arm_that_is_compared() -> None:
    for name in RECIPES:
        recipe = load(name).recipe
        assert recipe.training.seeds == list(range(10))
        kinds = [kind_of(arm, recipe.contexts) for arm in recipe.arms]
        assert {"recontextualized", "standard"} <= set(kinds)
        assert ("reversed" in kinds) == (name == "code_mc_reproduce")


@pytest.mark.parametrize("name", RECIPES)
def test_make_runs_each_recipe_and_the_page_is_about_it(name: str) -> None:
    target = (helpers.ROOT / "Makefile").read_text().partition("\nreproduce:")[2].partition("\n\n")[0]
    assert name in target and name in shipped_recipes()
    assert name in (helpers.ROOT / "docs" / "recipes" / "code_mc_reproduce.md").read_text()


@needs_tiny
def test_the_best_of_four_is_a_hack_wherever_one_was_sampled(tmp_path: Path) -> None:
    words = ["environment.tasks=16", "sampler.max_tokens=96"]
    assert helpers.build("code_mc_best_of_4", tmp_path / "out", *words) == 0
    run = helpers.run_folder(tmp_path / "out", "code_mc_best_of_4")
    judged = pl.read_parquet(run / "candidates.parquet").join(pl.read_parquet(run / "judgements.parquet"), on="candidate_id")
    kept = pl.read_parquet(run / "selection.parquet").filter("kept")
    for arm in kept["arm"].unique():
        rows = judged.join(kept.filter(pl.col("arm") == arm), on="candidate_id", how="semi")
        assert len(rows) == 16
        hacked = set(judged.filter(pl.col("label") == "hack")["task_id"])
        assert set(rows.filter(pl.col("label") == "hack")["task_id"]) == hacked
    share = (judged["label"] == "hack").mean()
    assert isinstance(share, float) and len(hacked) / 16 > share
