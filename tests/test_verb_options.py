"""One parser of options for every verb: the same mistake gets the same answer everywhere."""

import importlib
from pathlib import Path

import pytest

from recontext_data.cli import VERBS, main
from recontext_data.config.loading import load
from recontext_data.config.options import MAX_WORKERS, VerbOptions, fields_of, model_of, read_options
from recontext_data.config.verb_options import BuildOptions, EvaluateOptions, IterateOptions, SweepOptions, TrainOptions
from tests.helpers import error_line

NEEDED = {
    "calibrate": ["judge=x", "labels=x.jsonl"],
    "sweep": ["over={sampler.n: [1]}"],
    "publish": ["to=file", "format=openai", "run=x"],
    "power": ["base=.4", "tasks=200", "seeds=3"],
}
"""Words that a verb needs beside its recipe."""
WITH_RECIPE = ["build", "preview", "train", "evaluate", "iterate", "sweep"]
TRAINED: list[type[VerbOptions]] = [TrainOptions, EvaluateOptions, IterateOptions, SweepOptions]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return error_line(captured.err)


def words_of(verb: str) -> list[str]:
    return [*(["recipe=code_mc"] if verb in WITH_RECIPE else []), *NEEDED.get(verb, [])]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_the_same_answer_to_the_same_mistake(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(verb)
    assert refused(capsys, verb, *words, "--verbose").startswith("error: '--verbose' is not an option; write key=value")
    assert refused(capsys, verb, *words, "=3").startswith("error: '=3' is not an option; write key=value")
    assert "screen: given twice; write it once" in refused(capsys, verb, *words, "screen=json", "screen=json")
    assert "screen=jsno: must be auto | rich | plain" in refused(capsys, verb, *words, "screen=jsno")
    key = "output" if verb != "power" else "alpha"
    assert f"{key}: given twice; write it once" in refused(capsys, verb, *words, f"{key}=.1", f"{key}=.2")
    wrong = key.replace("p", "pp", 1)
    if verb != "calibrate":  # without a recipe other keys are the judge's
        assert refused(capsys, verb, *words, f"{wrong}=x") == f"error: {wrong}: unknown key; did you mean {key!r}?"
    for text in ("--help", "-h", "help"):
        assert main([verb, text]) == 0
        assert f"\n{key}: " in capsys.readouterr().out


@pytest.mark.parametrize("verb", WITH_RECIPE)
def test_every_verb_with_a_recipe_suggests_the_same(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = NEEDED.get(verb, [])
    assert "such as recipe=code_mc, or --help" in refused(capsys, verb, *own, "--recipe", "code_mc")
    assert "such as recipe=code_mc, or --help" in refused(capsys, verb, *own, "code_mc")
    words = words_of(verb)
    assert "dry-run: unknown key; did you mean 'dry_run'?" in refused(capsys, verb, *words, "dry-run=true")
    assert "epochs: unknown key; did you mean 'training.epochs'?" in refused(capsys, verb, *words, "epochs=2")
    assert "sampler.n: given twice" in refused(capsys, verb, *words, "sampler.n=1", "sampler.n=2")
    assert "dry_run=maybe: must be true or false" in refused(capsys, verb, *words, "dry_run=maybe")
    assert "must have at least 1 item" in refused(capsys, verb, *words, "judges=[]")
    if verb != "build":
        assert "recipe: missing; write recipe=NAME" in refused(capsys, verb, *own)


@pytest.mark.parametrize("kind", TRAINED)
def test_seeds_models_and_workers_are_read_alike(kind: type[VerbOptions], capsys: pytest.CaptureFixture[str]) -> None:
    own = NEEDED.get(kind.verb, [])
    for text, seeds in (("0,1,2", [0, 1, 2]), ("[0, 2]", [0, 2]), ("0-3", [0, 1, 2, 3])):
        assert read_options(kind, ["recipe=x", *own, f"seeds={text}"])[0].model_dump()["seeds"] == seeds
    words = words_of(kind.verb)
    assert "seeds=a: must be integers, such as seeds=0,1,2 or seeds=0-9" in refused(capsys, kind.verb, *words, "seeds=a")
    assert "models=a b: becomes a folder" in refused(capsys, kind.verb, *words, "models=a b")
    if "workers" in fields_of(kind):
        for text in ("0", str(MAX_WORKERS + 1), "many"):
            line = refused(capsys, kind.verb, *words, f"workers={text}")
            assert f"workers={text}: must be an integer from 1 to 64" in line


def test_arms_are_declared_by_build_as_train_chooses_them() -> None:
    words = ["recipe=code_mc", "arms=default -> hack, default -> default"]
    options, overrides = read_options(BuildOptions, words)
    assert [arm.pair for arm in load(str(options.recipe), overrides).recipe.arms] == ["default -> hack", "default -> default"]
    chosen, overrides = read_options(TrainOptions, words)
    assert chosen.arms == ["default -> hack", "default -> default"] and overrides == []
    assert read_options(TrainOptions, ["recipe=x", "arms=[default -> hack]"])[1] == ["arms=[default -> hack]"]


def test_lists_of_a_recipe_are_written_with_commas() -> None:
    recipe = load("code_mc", ["measure.contexts=control,hack", "training.seeds=0-2"]).recipe
    assert recipe.measure is not None and recipe.measure.contexts == ["control", "hack"]
    assert recipe.training.seeds == [0, 1, 2]


def test_an_unknown_key_of_an_own_class_lists_the_keys_of_that_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_place.py").write_text(
        "from recontext_data.core.config import Config\n\n"
        "class Mine(Config):\n    kind: str = 'my_place:Mine'\n    colour: str = 'red'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    line = refused(capsys, "build", "recipe=code_mc", "environment.kind=my_place:Mine", "environment.fil=x")
    assert line.endswith("environment.fil: unknown key; known: colour, kind")


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_the_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out.startswith("recontext_data ")


def test_every_option_is_documented() -> None:
    from recontext_data.core.field_docs import field_docs

    for verb in VERBS:
        found = getattr(importlib.import_module(f"recontext_data.{verb}"), "OPTIONS", BuildOptions)
        for kind in found if isinstance(found, tuple) else (found,):
            assert set(kind.model_fields) <= set(field_docs(kind)), verb
    assert model_of(BuildOptions, {"recipe": "x"}).recipe == "x"
