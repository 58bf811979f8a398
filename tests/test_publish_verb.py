"""The verb `publish`: targets, runs by name and by path, help, and one line for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from recontext_data.cli import VERBS
from recontext_data.config.options import help_lines
from recontext_data.core.errors import DataError, RecipeError
from recontext_data.publishing.runs import open_run
from tests.helpers import environment, error_line
from tests.publish_world import ARMS, make_run, publish, row
from tests.test_startup import HEAVY


def test_a_run_is_found_by_its_recipe_by_its_folder_and_by_latest(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for name, output in (("small", tmp_path), (str(folder), Path()), (str(folder.parent / "latest"), Path())):
        assert open_run(name, output=output).path == folder.resolve()
    assert open_run(str(folder.parent)).path == folder.resolve(), "the recipe's folder means its latest run"


def test_latest_may_be_a_file_with_the_folders_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder.parent / "latest").unlink()
    (folder.parent / "latest").write_text(folder.name + "\n")
    assert open_run("small", output=tmp_path).path == folder


def test_rows_stream_in_batches(tmp_path: Path) -> None:
    run = open_run(str(make_run(tmp_path, arms=ARMS[:1], train=2500)))
    sizes = [batch.num_rows for batch in run.batches(ARMS[0], "train", size=600)]
    assert sum(sizes) == 2500 == run.num_rows(ARMS[0], "train") and max(sizes) <= 600
    assert list(run.rows(ARMS[0], "validation")) == [row(ARMS[0], i) for i in range(2500, 2504)]
    assert run.splits(ARMS[0]) == ["train", "validation"]


def test_arms_go_by_folder_and_by_pair_in_the_recipes_order(tmp_path: Path) -> None:
    run = open_run(str(make_run(tmp_path)))
    assert run.wanted([]) == list(ARMS)
    assert run.wanted(["default->default", ARMS[0]]) == list(ARMS[:2])
    with pytest.raises(RecipeError, match=r"arms=default -> hck: the run has no such arm; did you mean 'default -> hack'\?"):
        run.wanted(["default -> hck"])


def test_a_run_that_is_none_is_one_line(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(RecipeError, match=r"run=smal: there is no run of that name .*did you mean 'small'\?"):
        open_run("smal", output=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="holds no finished run"):
        open_run(str(tmp_path / "empty"))
    (tmp_path / "empty" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        open_run(str(tmp_path / "empty"))
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="is not a manifest of a run"):
        open_run(str(tmp_path / "empty"))


def test_a_damaged_or_missing_split_is_one_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    run = open_run(str(folder))
    (data,) = (folder / "arms" / ARMS[0] / "train").glob("*.arrow")
    data.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        list(run.rows(ARMS[0], "train"))
    data.unlink()
    with pytest.raises(DataError, match="has no Arrow file"):
        list(run.rows(ARMS[0], "train"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run=small"], "to: missing; write to=hub | to=openai | to=file"),
        (["to=opanai", "run=small"], "to=opanai: must be hub | openai | file; did you mean 'openai'?"),
        (["to=file", "format=openai"], "run: missing"),
        (["to=openai", "model=x"], "run: missing"),
        (["to=file", "to=hub"], "to: given twice"),
        (["file"], "'file' is not an option; write key=value"),
        (["to=openai", "data=nowhere.jsonl", "model=x"], "data=nowhere.jsonl: there is no such file"),
        (["to=openai", "data=x.jsonl"], "model: missing"),
    ],
)
def test_a_wrong_command_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    make_run(tmp_path)
    assert publish(*words, f"output={tmp_path}") == 2
    assert told in error_line(capsys.readouterr().err)


def test_help_shows_every_option_of_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    from recontext_data.publishing.formats.export import OPTIONS as FILE
    from recontext_data.publishing.services.openai_finetune import OPTIONS as OPENAI

    assert "publish" in VERBS
    assert publish() == 0 and "to=TARGET" in capsys.readouterr().out
    for target, options in (("file", FILE), ("openai", OPENAI)):
        assert publish(f"to={target}", "--help") == 0
        out = capsys.readouterr().out
        for key, (_, meaning) in help_lines(options).items():
            assert f"\n{key}: " in out and meaning and meaning in out, key


@pytest.mark.parametrize("words", [["--help"], ["to=file", "--help"], ["to=openai", "--help"], ["to=nowhere"]])
def test_starting_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\nfrom recontext_data.publish import main\nmain(sys.argv[1:])\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *words], env=environment(), capture_output=True, text=True, check=True
    )
    assert set(result.stderr.splitlines()[-1].split()) & set(HEAVY) == set()


def test_every_option_and_format_is_in_the_documentation() -> None:
    from recontext_data.publishing.formats.export import OPTIONS as FILE
    from recontext_data.publishing.formats.formats import FORMATS
    from recontext_data.publishing.services.openai_finetune import OPTIONS as OPENAI

    text = (Path(__file__).parent.parent / "docs" / "publishing.md").read_text(encoding="utf-8")
    for name in [*help_lines(FILE), *help_lines(OPENAI), *FORMATS]:
        assert f"`{name}" in text, name
