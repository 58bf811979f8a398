"""What holds of single recipes: the recall knob, judges that go by judges, and the line that puts real models in."""

import json
from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.loading import load
from recontext_data.config.recipe import Recipe
from recontext_data.pipeline.judge_models import identities, policies_of
from tests.fault_server import FaultServer
from tests.helpers import build, manifest
from tests.judging_world import Bench, asked, at

TINY = ("environment.tasks=8", "sampler.n=2", "measure.n=1")


def test_recall_decides_how_many_lies_are_selected(tmp_path: Path) -> None:
    shares = []
    for recall in (0.3, 0.65, 1.0):
        output = tmp_path / str(recall)
        assert build("deception", output, "environment.tasks=60", "arms=[neutral -> neutral]", f"judges.1.tpr={recall}") == 0
        (arm,) = manifest(output, "deception")["arms"]
        shares.append(arm["labels"]["deceptive"] / sum(arm["labels"].values()))
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] <= 0.02  # a found lie is taken only where nothing else scored


def renamed(judges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same judges, each name with an x in front."""
    out = []
    for judge in judges:
        changed = judge | {"name": f"x{judge['name']}"}
        if "of" in judge:
            changed["of"] = f"x{judge['of']}"
        if "terms" in judge:
            changed["terms"] = {f"x{name}": weight for name, weight in judge["terms"].items()}
        out.append(changed)
    return out


@pytest.mark.parametrize("name", ["metric_gaming", "sycophancy", "deception"])
def test_a_judge_that_goes_by_others_is_what_they_are_and_not_how_they_are_called(name: str) -> None:
    recipe = load(name, ()).recipe
    tree = recipe.model_dump(mode="json")
    other = Recipe.model_validate(tree | {"judges": renamed(tree["judges"]), "select": {}})
    found, again = (list(identities(one.judges, policies_of(one.judges)).values()) for one in (recipe, other))
    assert found == again
    judges = [dict(judge) for judge in tree["judges"]]
    judges[0]["scores" if name == "deception" else "retries"] = {"truthful": 1, "deceptive": 5} if name == "deception" else 7
    changed = Recipe.model_validate(tree | {"judges": judges})
    differ = [a != b for a, b in zip(found, identities(changed.judges, policies_of(changed.judges)).values(), strict=True)]
    assert differ[0] and differ == [judge.name == judges[0]["name"] or _goes_by_first(judge, recipe) for judge in recipe.judges]


def _goes_by_first(judge: Any, recipe: Recipe) -> bool:
    """Whether a judge goes by the first one, directly or not."""
    known = {one.name: one for one in recipe.judges}
    return any(name == recipe.judges[0].name or _goes_by_first(known[name], recipe) for name in getattr(judge, "reads", ()))


def flow(config: dict[str, Any]) -> str:
    """A mapping as a value on the command line."""
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in config.items()) + "}"


@pytest.mark.parametrize(
    ("name", "rubrics"), [("metric_gaming", ("gaming", "quality")), ("sycophancy", ("quality", "sycophancy"))]
)
def test_the_real_model_line_replaces_the_policy_and_both_judges(
    name: str, rubrics: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultServer(Bench()) as server:
        models = [f"policy={flow(at(server, 'policy'))}"]
        models += [f"judges.{place}.policy={flow(at(server, judge))}" for place, judge in enumerate(rubrics)]
        assert build(name, tmp_path, *TINY, *models) == 0
        said = capsys.readouterr()
        made = manifest(tmp_path, name)
        counts = {judge: asked(server, judge) for judge in rubrics}
    assert "SCRIPTED" not in said.out + said.err and not [caveat for caveat in made["caveats"] if "cripted" in caveat]
    for judge in rubrics:
        assert counts[judge] and set(counts[judge].values()) == {1}, "each question is asked once"
        (row,) = [row for row in made["judging"] if row["name"] == judge]
        assert row["requests"]["sampled"] == len(counts[judge])
    (rate,) = [row for row in made["rates"] if row["judge"] == recipe_threshold(name) and row["context"] == "neutral"]
    assert sum(rate["counts"].values()) == rate["total"] and not rate["unscored"]


def recipe_threshold(name: str) -> str:
    """The judge whose labels are the environment's."""
    recipe = load(name, ()).recipe
    assert recipe.outcome_judge.kind == "threshold" and tuple(recipe.outcome_judge.labels) == tuple(recipe.environment.labels)
    return recipe.outcome_judge.name
