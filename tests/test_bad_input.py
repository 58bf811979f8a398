"""Bad input: one clear line on stderr, exit code 2, no traceback, nothing written in `output`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recontext_data import build as verb
from tests.helpers import (
    CONTEXTS,
    RATES,
    build_process,
    environment,
    error_line,
    files_below,
    problem_rows,
    write_problems,
    write_recipe,
)


class Refused:
    """Runs the verb in this process and returns its one line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output, self._capsys = folder, folder / "out", capsys

    def __call__(self, *words: str, recipe: Path | str | None = None, **changes: Any) -> str:
        recipe = write_recipe(self.folder / "in", **changes) if recipe is None else recipe
        code = verb.main([f"recipe={recipe}", f"output={self.output}", *words])
        captured = self._capsys.readouterr()
        assert code == 2, captured
        assert captured.out == ""
        assert files_below(self.output) == []
        return error_line(captured.err)

    def problems(self, text: str | bytes) -> str:
        path = self.folder / "mine.jsonl"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return self(f"environment.problems={path}", "environment.split=all")


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("samplr.n=2", ["samplr", "unknown key", "did you mean 'sampler'?"]),
        ("sampler.temprature=1", ["sampler.temprature", "unknown key", "did you mean 'temperature'?"]),
        ("policy.rate={}", ["policy.rate: unknown key", "did you mean 'rates'?"]),
        ("environment.task=3", ["environment.task: unknown key", "did you mean 'tasks'?"]),
        ("contexts.hack.stnce=permits", ["contexts.hack.stnce: unknown key", "did you mean 'stance'?"]),
        ("judges.0.score={}", ["judges.0.score: unknown key", "did you mean 'scores'?"]),
        ("arms.0.nmae=x", ["arms.0.nmae: unknown key", "did you mean 'name'?"]),
        ("sampler.n=many", ["sampler.n='many': must ", "integer"]),
        ("sampler.n=true", ["sampler.n=True: must ", "integer"]),
        ("sampler.n='4'", ["sampler.n='4': must ", "integer"]),
        ("sampler.n=2.5", ["sampler.n=2.5: must ", "integer"]),
        ("sampler.n=", ["sampler.n='': must "]),
        ("sampler.n=null", ["sampler.n=None: must "]),
        ("sampler.n=0", ["sampler.n=0: must ", "at least 1"]),
        ("sampler.n=-1", ["sampler.n=-1: must "]),
        ("sampler.temperature=-1", ["sampler.temperature=-1: must ", "at least 0"]),
        ("sampler.temperature=.inf", ["sampler.temperature=inf: must "]),
        ("sampler.temperature=.nan", ["sampler.temperature=nan: must "]),
        ("sampler.top_p=0", ["sampler.top_p=0: must "]),
        ("sampler.max_tokens=0", ["sampler.max_tokens=0: must "]),
        ("sampler=3", ["sampler=3: must "]),
        ("sampler.n.deep=3", ["sampler.n: holds 4 and has no keys below it"]),
        ("select.keep=bets", ["select.keep='bets': must ", "'all', 'random' or 'best'"]),
        ("select.keep=best", ["select.keep: `best` needs scores and judge 'choice' gives none; set its `scores`"]),
        ("select.judge=chioce", ["select.judge: no judge is named 'chioce'; did you mean 'choice'?"]),
        ("export.validation_fraction=1", ["export.validation_fraction=1: must "]),
        ("policy.kind=fakes", ["policy.kind: 'fakes' is unknown; did you mean 'fake'?"]),
        ("policy.kind=3", ["policy"]),
        ("policy=[]", ["policy"]),
        ("policy.rates.default.hack=0.5", ["policy.rates.default: the probabilities sum to 1.1, and must sum to 1"]),
        ("policy.rates.default={hack: 2, general: -1}", ["policy.rates.default", "is not a probability"]),
        ("environment.kind=code_cm", ["environment.kind: 'code_cm' is unknown", "did you mean 'code_mc'?"]),
        ("environment.split=trian", ["environment.split=trian: no problem is in it; did you mean 'train'?"]),
        ("environment.tasks=0", ["environment.tasks=0: must "]),
        ("arms=[]", ["arms=[]: must "]),
        ("arms=[default]", ["arms.0: 'default' is not a pair"]),
        ("arms=[default -> hakc]", ["arms.0 (default -> hakc): no context is named 'hakc'; did you mean 'hack'?"]),
        ("arms=[nil -> hack]", ["arms.0 (nil -> hack): no context is named 'nil'; known: control, default, hack, none"]),
        ("arms=[default -> hack, default -> hack]", ["arms: 'recontextualized.default-hack' is there twice"]),
        ("arms.0.training=hakc", ["no context is named 'hakc'; did you mean 'hack'?"]),
        ("arms.7.name=x", ["arms.7: a list of 2; the key below it is a number from 0 to 1"]),
        ("arms.0.name=a/b", ["arms.0", "'a/b' becomes a folder"]),
        ("measure.contexts=[contrl]", ["measure.contexts: no context is named 'contrl'; did you mean 'control'?"]),
        ("judges=[]", ["judges=[]: must "]),
        ("judges=[choice, choice]", ["judges: the names ['choice', 'choice'] must differ; set `name` on one"]),
        ("judges.0.scores={hak: 1}", ["judges.0.scores", "hak"]),
        ("contexts={none: {stance: neutral, system: x}}", ["contexts: 'none' cannot be a context's name"]),
        ("contexts={a-b: {stance: neutral, system: x}}", ["contexts: 'a-b' cannot be a context's name"]),
        ("contexts={1: {stance: neutral, system: x}}", ["contexts"]),
        ("contexts.hack.stance=maybe", ["contexts.hack.stance='maybe': must "]),
        ("contexts.hack.system=", ["contexts.hack", "the text is empty"]),
        ("contexts.hack.user_prefix=x", ["contexts.hack", "found system and user_prefix"]),
        ("sampler", ["'sampler' is not an option; write key=value"]),
        ("--verbose", ["'--verbose' is not an option; write key=value"]),
        ("=3", ["'=3' is not an option"]),
        ("dry_run=maybe", ["dry_run=maybe: must be true or false"]),
        ("description=[1, 2]", ["description=[1, 2]: must "]),
    ],
)
def test_a_wrong_word_is_one_line_that_names_it(word: str, parts: list[str], refused: Refused) -> None:
    line = refused(word)
    for part in parts:
        assert part in line


def test_an_unknown_recipe_has_a_suggestion(refused: Refused) -> None:
    assert refused(recipe="code_cm") == "error: recipe=code_cm: no recipe has that name; did you mean 'code_mc'?"
    assert "there is no such file" in refused(recipe=refused.folder / "nowhere.yaml")
    assert "there is no such file" in refused(recipe=f"{refused.folder}/")
    assert "no recipe has that name" in refused(recipe="")


def test_a_word_before_a_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main([f"output={tmp_path / 'out'}", "sampler.n=2"]) == 2
    assert "recipe: missing beside 'sampler.n=2'; write recipe=NAME" in error_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [1, 2\nb: 3\n", ["line 2 is not valid YAML"]),
        ("a: b: c\n", ["line 1 is not valid YAML"]),
        ("\tx: 1\n", ["line 1 is not valid YAML"]),
        ("- a\n- b\n", ["a recipe is a mapping of keys to values; found list"]),
        ("just text\n", ["found str"]),
        ("", ["found NoneType"]),
        ("sampler: {n: 1}\n", ["environment: missing"]),
        ("sampler: {n: 1}\nsampler: {n: 2}\n", ["line 2 is not valid YAML: the key 'sampler' is there twice"]),
        (
            "contexts:\n  a: {stance: neutral}\n  b: {stance: neutral}\n  a: {stance: permits}\n",
            ["line 4", "the key 'a' is there twice"],
        ),
        ("sampler: &x {n: *x}\n", ["not valid YAML"]),
        ("a: &x [*x]\n", ["nests deeper"]),
        ("a: !!python/object:os.system {}\n", ["line 1 is not valid YAML"]),
        ("a: \x00\n", ["is not valid YAML"]),
        ("? [1]\n: 2\n", ["line 1 is not valid YAML"]),
        ("3: 4\n", ["error: "]),
        ("extends: nowhere\n", ["recipe=nowhere: no recipe has that name"]),
        ("extends: nowhere.yaml\n", ["recipe=nowhere.yaml: there is no such file"]),
        ("extends: mine.yaml\n", ["`extends` goes deeper than 8 recipes; is there a circle?"]),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(text: str, parts: list[str], refused: Refused) -> None:
    path = refused.folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    line = refused(recipe=path)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("policy", [{}, {"rates": RATES}, [], 3, None])
def test_a_policy_without_a_kind_is_one_line(policy: Any, refused: Refused) -> None:
    assert "policy" in refused(policy=policy)


def test_a_file_that_is_no_text_is_one_line(refused: Refused) -> None:
    path = refused.folder / "mine.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    assert f"{path}: cannot be read" in refused(recipe=path)


def row(**changes: Any) -> str:
    return json.dumps(problem_rows(1)[0] | changes)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"{row()}\n{row()[:50]}\n", ["mine.jsonl: line 2 is not JSON"]),
        (f"{row()}\n\n\nnonsense\n", ["mine.jsonl: line 4 is not JSON"]),
        (f"{row()}\n{row(problem_id='other')}\n{row()}\n", ["line 3", "stands on line 1 already"]),
        (f"{row()}\n{row(problem_id='other', statement=3)}\n", ["line 2: statement: "]),
        (f"{row()}\n{row(problem_id='other', statment='x')}\n", ["line 2: statment: "]),
        (f"{row()}\n[1]\n", ["line 2"]),
        ("", ["the file is empty"]),
        ("\n\n", ["the file is empty"]),
        (b"\xff\xfe{}\n", ["line 1 is not JSON"]),
        (row(statement="x") + "\n" + '{"problem_id": "\\ud800"}\n', ["line 2 is not JSON"]),
    ],
)
def test_a_bad_problem_file_names_the_line(text: str | bytes, parts: list[str], refused: Refused) -> None:
    line = refused.problems(text)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", ["nowhere.jsonl", "no/where.jsonl", "nowhere.json"])
def test_a_missing_problem_file_is_named(name: str, refused: Refused) -> None:
    assert name in refused(f"environment.problems={refused.folder / name}")


def test_a_folder_in_place_of_a_problem_file_is_named(refused: Refused) -> None:
    (refused.folder / "folder.jsonl").mkdir()
    assert "folder.jsonl" in refused(f"environment.problems={refused.folder / 'folder.jsonl'}")


@pytest.mark.parametrize("side", ["arms=[default -> hack]", "arms=[hack -> default]", "measure.contexts=[hack]"])
def test_a_placement_that_cannot_apply_is_found_before_anything_is_sampled(side: str, refused: Refused) -> None:
    contexts = CONTEXTS | {"hack": {"stance": "permits", "system_append": "x"}}
    assert "contexts.hack: `system_append` needs one system turn in the task, which has none" in refused(
        side, contexts=contexts
    )


def test_a_scripted_policy_without_a_rate_for_a_context_is_refused(refused: Refused) -> None:
    rates = {"defaut": RATES["default"]}
    assert "policy.rates has no context 'default': did you mean 'defaut'?" in refused(policy={"kind": "fake", "rates": rates})


def test_no_api_key_is_one_line(refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    recipe = write_recipe(refused.folder / "in", policy={"kind": "openai", "model": "gpt-4.1"})
    assert verb.main([f"recipe={recipe}", f"output={refused.output}"]) == 2
    *_, line = capsys.readouterr().err.splitlines()  # after a note of which policy it is
    assert line.startswith("error: ") and "OPENAI_API_KEY" in line
    assert not refused.output.exists()


@pytest.mark.parametrize("gone", ["tokenizer.json", "config.json"])
def test_a_model_folder_without_its_parts_is_one_line(gone: str, refused: Refused, shared: Path) -> None:
    folder = refused.folder / "model"
    shutil.copytree(shared / "models" / "stories260K", folder)
    for path in folder.glob("tokenizer*" if gone == "tokenizer.json" else gone):
        path.unlink()
    line = refused(policy={"kind": "transformers", "model": str(folder), "device": "cpu"})
    assert gone.split(".")[0] in line


def test_an_output_below_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("kept")
    recipe = write_recipe(tmp_path / "in")
    assert verb.main([f"recipe={recipe}", f"output={tmp_path / 'file' / 'below'}"]) == 2
    assert "cannot be written" in error_line(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc, which nobody can write to")
def test_an_output_that_nobody_can_write_to_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main([f"recipe={write_recipe(tmp_path)}", "output=/proc/recontext"]) == 2
    assert "output=/proc/recontext: /proc cannot be written" in error_line(capsys.readouterr().err)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_output_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """As a user without rights: permissions do not bind root."""
    script = (
        "import os, sys\nfrom recontext_data.build import main\nfrom recontext_data.store.run_folder import require_writable\n"
        "from pathlib import Path\nos.setgid(65534); os.setuid(65534)\n"
        "from recontext_data.core.errors import InputError\n"
        "try: require_writable(Path(sys.argv[1]))\n"
        "except InputError as error: print(error)\n"
    )
    place = tmp_path / "locked"
    place.mkdir(mode=0o755)
    result = subprocess.run(
        [sys.executable, "-c", script, str(place)], env=environment(), capture_output=True, text=True, check=False
    )
    assert f"output={place}: " in result.stdout, result.stderr
    assert "cannot be written (Permission denied); give another folder with output=" in result.stdout


@pytest.mark.parametrize("words", [["recipe=code_cm"], ["recipe=code_mc", "sampler.n=0"], ["nonsense"]])
def test_a_real_process_prints_one_line_and_exits_with_2(words: list[str], tmp_path: Path) -> None:
    result = build_process(f"output={tmp_path / 'out'}", *words)
    assert result.returncode == 2 and result.stdout == ""
    error_line(result.stderr)
    assert files_below(tmp_path) == []


def test_an_unknown_verb_has_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    from recontext_data.cli import main

    assert main(["biuld"]) == 2
    assert error_line(capsys.readouterr().err) == "error: 'biuld' is not a verb; did you mean 'build'?"


def test_a_problem_file_may_be_empty_of_the_split_that_is_wanted(refused: Refused) -> None:
    path = write_problems(refused.folder / "train.jsonl", problem_rows(3))
    line = refused(f"environment.problems={path}", "environment.split=evaluation")
    assert "environment.split=evaluation: no problem is in it" in line
