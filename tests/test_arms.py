"""Arms: the names of METHOD's table, pairs as text, duplicates, and which pools are needed."""

import itertools

import pytest
from pydantic import ValidationError

from recontext_data.arms import Arm, context_or_none, folder_name, kind_of, pools
from recontext_data.contexts import Context

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
    with pytest.raises(ValidationError, match="is no pair; write `generation -> training`"):
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
