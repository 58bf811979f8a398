"""Arms: the names of METHOD's table, pairs as text, duplicates, and which pools are needed."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import Arm, context_or_none, folder_name, kind_of, pools, stance_problem
from recontext_data.contexts.context import Context
from tests.fault_server import Faults, FaultServer
from tests.helpers import CONTEXTS as HELPERS
from tests.helpers import build, built, error_line, files_below, manifest, recipe_tree, write_recipe

CONTEXTS = {
    "against": Context(stance="discourages", system="Do not."),
    "against2": Context(stance="discourages", system="Do not, please."),
    "plain": Context(stance="neutral", system="Do it."),
    "plain2": Context(stance="neutral", system="Go on."),
    "allow": Context(stance="permits", system="You may."),
    "thanks": Context(stance="placebo", system="Thank you."),
    "colour": Context(stance="placebo", system="Blue."),
}


def arm(pair: str) -> Arm:
    return Arm.model_validate(pair)


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        ("none -> none", "standard"),
        ("plain -> plain", "standard"),
        ("against -> against", "prior"),
        ("allow -> allow", "inoculation"),
        ("thanks -> thanks", "placebo"),
        ("plain -> none", "distillation"),
        ("against -> none", "distillation"),
        ("thanks -> none", "distillation"),
        ("against -> plain", "recontextualized"),
        ("against -> allow", "recontextualized"),
        ("plain -> allow", "recontextualized"),
        ("none -> allow", "recontextualized"),
        ("allow -> plain", "reversed"),
        ("allow -> against", "reversed"),
        ("plain -> against", "reversed"),
        ("none -> against", "reversed"),
        ("allow -> none", "reversed"),
        ("none -> thanks", "placebo"),
        ("plain -> thanks", "placebo"),
        ("against -> thanks", "placebo"),
        ("thanks -> colour", "placebo"),
    ],
)
def test_a_pair_has_the_name_that_the_method_gives_it(pair: str, kind: str) -> None:
    assert kind_of(arm(pair), CONTEXTS) == kind


def test_every_pair_has_a_name_and_folders_differ() -> None:
    names = ["none", *CONTEXTS]
    folders = [folder_name(Arm(generation=a, training=b), CONTEXTS) for a, b in itertools.product(names, names)]
    assert len(set(folders)) == len(names) ** 2


def test_a_folder_does_not_depend_on_the_recipe_around_it() -> None:
    assert folder_name(arm("plain -> allow"), CONTEXTS) == "recontextualized.plain-allow"
    assert folder_name(Arm(generation="plain", training="allow", name="mine"), CONTEXTS) == "mine"


@pytest.mark.parametrize("text", ["default->hack", " default  ->  hack ", "default -> hack"])
def test_a_pair_is_read_with_any_spacing(text: str) -> None:
    assert arm(text) == Arm(generation="default", training="hack")
    assert arm(text).pair == "default -> hack"


@pytest.mark.parametrize("text", ["default", "default > hack", "a -> b -> c", "", "-> hack", "default ->", "a b -> c"])
def test_what_is_no_pair_is_said_so(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a pair; write `generation -> training`"):
        arm(text)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "-x", "a b", ".hidden"])
def test_a_name_that_is_no_plain_folder_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="becomes a folder"):
        Arm(generation="a", training="b", name=name)


def test_arms_share_a_pool_per_generation_context() -> None:
    assert pools([arm("b -> c"), arm("a -> c"), arm("b -> b"), arm("none -> a")]) == ["b", "a", "none"]


def test_none_is_the_bare_task() -> None:
    assert context_or_none(CONTEXTS, "none") is None
    assert context_or_none(CONTEXTS, "allow") is CONTEXTS["allow"]


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(recipe_tree(**changes))


def pairs(found: Recipe) -> list[str]:
    return [arm.pair for arm in found.arms]


def test_a_grid_is_all_its_pairs_and_the_same_recipe_as_they_are() -> None:
    grid = recipe(arms={"generation": ["control", "default"], "training": ["hack", "none"]})
    assert pairs(grid) == ["control -> hack", "control -> none", "default -> hack", "default -> none"]
    assert grid == recipe(arms=pairs(grid))


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"generation": ["default"]}, "arms.training: missing"),
        ({"generation": [], "training": ["hack"]}, "at least 1 item"),
        ({"generation": ["default", "default"], "training": ["hack"]}, "'recontextualized.default-hack' is there twice"),
        ({"generation": ["defualt"], "training": ["hack"]}, "did you mean 'default'?"),
        ([{"training": "hack"}], "generation: missing; name the context to sample under"),
        ([{"data": "x.jsonl", "generation": "hack", "training": "hack"}], "nothing is sampled for given `data`"),
        (
            [{"generation": "default", "training": "hack", "declared": "reversed"}],
            "is declared reversed, and the stances",
        ),
        (["plain2 -> default"], "arms.0 (plain2 -> default): has no stance order"),
        (["none -> default"], "has no stance order"),
    ],
)
def test_arms_that_mean_nothing_are_refused(arms: Any, message: str, tmp_path: Path, capsys: Any) -> None:
    contexts = HELPERS | {"plain2": {"stance": "neutral", "system": "Go on."}}
    assert build(write_recipe(tmp_path / "in", contexts=contexts, arms=arms), tmp_path / "out") == 2
    assert message in error_line(capsys.readouterr().err)
    assert files_below(tmp_path / "out") == []


def test_an_arm_that_nothing_orders_may_be_declared() -> None:
    contexts = HELPERS | {"plain2": {"stance": "neutral", "system": "Go on."}}
    made = recipe(contexts=contexts, arms=[{"generation": "plain2", "training": "default", "declared": "recontextualized"}])
    assert stance_problem(made.arms[0], made.contexts) is None


def test_standard_baselines_train_what_was_sampled_as_it_was_sampled() -> None:
    found = recipe(arms=["default -> hack", "control -> hack"], baselines="standard")
    assert pairs(found) == ["default -> hack", "control -> hack", "default -> default", "control -> control"]
    assert [kind_of(arm, found.contexts) for arm in found.arms[2:]] == ["standard", "prior"]
    assert pools(found.arms) == ["default", "control"], "they need no other pool"


def test_full_baselines_are_matched_reversed_distilled_and_placebo() -> None:
    contexts = HELPERS | {"thanks": {"stance": "placebo", "system": "Thank you."}}
    found = recipe(contexts=contexts, arms=["default -> hack"], baselines="full")
    kinds = {arm.pair: kind_of(arm, found.contexts) for arm in found.arms}
    assert kinds == {
        "default -> hack": "recontextualized",
        "default -> default": "standard",
        "hack -> hack": "inoculation",
        "hack -> default": "reversed",
        "default -> none": "distillation",
        "default -> thanks": "placebo",
    }
    assert Recipe.model_validate(found.model_dump()) == found, "a resolved recipe resolves to itself"


def test_full_baselines_need_a_placebo() -> None:
    with pytest.raises(ValidationError, match="baselines: full needs a context of stance placebo"):
        recipe(arms=["default -> hack"], baselines="full")


def test_baselines_name_the_run_as_their_arms_do(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, arms=["default -> hack", "default -> default"])
    first = built(path, tmp_path / "out")["fingerprint"]
    assert built(path, tmp_path / "out", "arms=[default -> hack]", "baselines=standard")["fingerprint"] == first


class Counted:
    """A recipe over a server that counts."""

    def __init__(self, folder: Path, server: FaultServer, arms: Any) -> None:
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": ""}
        self.recipe = write_recipe(folder, policy=policy, arms=arms)
        self.server, self.output = server, folder / "out"

    def asked(self, *words: str) -> int:
        before = len(self.server.seen)
        built(self.recipe, self.output, *words)
        return len(self.server.seen) - before


def test_a_grid_of_three_by_four_buys_three_pools_and_one_more_arm_buys_nothing(tmp_path: Path) -> None:
    grid = {"generation": ["control", "default", "hack"], "training": ["control", "default", "hack", "none"]}
    with FaultServer(Faults()) as server:
        counted = Counted(tmp_path, server, grid)
        assert counted.asked() == 3 * 8, "one request for each of the 8 tasks, per pool"
        facts = manifest(tmp_path / "out")
        assert len(facts["arms"]) == 12 and facts["requests"]["wanted"] == 3 * 8 * 4
        assert counted.asked("arms=[default -> hack, control -> hack]") == 0
        assert counted.asked("arms=[default -> hack]", "baselines=standard") == 0


def test_the_grid_is_counted_before_it_is_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path / "in", arms={"generation": ["control", "default", "hack"], "training": ["hack", "none"]})
    assert build(path, tmp_path / "out", "dry_run=true") == 0
    table = capsys.readouterr().out
    assert [table.count(f"\n{name} ") for name in ("control", "default", "hack", "all")] == [1, 1, 1, 1]
    assert files_below(tmp_path / "out") == []


def test_a_context_that_nothing_uses_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, evaluation={"contexts": ["default", "hack"]})
    built(path, tmp_path / "out")
    assert "warning: contexts.control: no arm, measure or evaluation uses it" in capsys.readouterr().err
    built(path, tmp_path / "out", "evaluation.contexts=[]")
    assert "warning: contexts" not in capsys.readouterr().err, "an evaluation without a list measures under all"
