"""The documentation is true: commands run, recipes load, code runs, links lead somewhere, quoted messages are said."""

import ast
import asyncio
import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from recontext_data.cli import HELP, VERBS, main
from recontext_data.config.help import HELP_RECIPE, build_help
from recontext_data.config.loading import load, shipped_recipes
from recontext_data.config.options import VerbOptions, by_key, fields_of
from recontext_data.config.recipe import Recipe
from recontext_data.config.verb_options import BuildOptions
from recontext_data.publishing.targets import target_of
from recontext_data.reports import modes
from scripts.make_api import PAGE as API
from scripts.make_api import api_page
from scripts.make_options import FORMATS, OPTIONS, formats_page, options_page, with_files
from scripts.make_options import HELP as HELP_TEXT
from tests.helpers import ROOT, environment

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EXAMPLES = DOCS / "examples"
OWN_TESTS = ("docs/contexts.md", "docs/judges.md")
"""Pages whose YAML is loaded, on top of more, by tests of their own."""

NEEDS = {
    "docs/security.md": "a sandbox",
    "docs/hub.md": "a Hub",
}
"""Pages whose Python is compiled and not run, and why."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The example that it shows."""
        found = re.match(r"# file: (\S+)\n", self.text)
        return found[1] if found else None


def blocks(*languages: str) -> list[Block]:
    found = []
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found.append(Block(name, text[: match.start()].count("\n") + 1, match[1], match[2]))
    return [block for block in found if block.language in languages]


def indented() -> list[Block]:
    """Commands that stand indented in a page, as blocks of one line (with what a backslash joins to it)."""
    found = []
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```", lambda match: "\n" * match[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
        for match in re.finditer(r"^    recontext (?:.*\\\n)*.*$", prose, re.MULTILINE):
            found.append(Block(name, prose[: match.start()].count("\n") + 1, "", match[0]))
    return found


def ident(block: Block) -> str:
    return f"{block.page}:{block.line}"


def commands() -> list[tuple[str, list[str]]]:
    """(page, words after `recontext`) of every such line in a block, and in code spans that have a key."""
    found = []
    for block in [*blocks("sh", ""), *indented()]:
        for line in block.text.replace("\\\n", " ").splitlines():
            line = line.strip()
            words = shlex.split(line, comments=True) if line.startswith(("recontext ", "python -m recontext_data.")) else []
            if words[:1] == ["python"]:
                words = ["recontext", words[2].partition(".")[2], *words[3:]]
            words = words[: next((i for i, word in enumerate(words) if word in (">", "|", "&&")), len(words))]
            if words and words[1:]:
                found.append((ident(block), words[1:]))
    for page, name in zip(PAGES, NAMES, strict=True):
        for span in re.findall(r"`(recontext [a-z]+ [^`\[]*=[^`]*)`", page.read_text(encoding="utf-8")):
            found.append((name, shlex.split(" ".join(span.split()))[1:]))
    return found


COMMANDS = commands()


def test_the_pages_were_found() -> None:
    assert len(PAGES) > 20 and len(COMMANDS) > 40
    assert len(blocks("yaml")) > 15 and len(blocks("python")) > 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, and the recipe that pages call mine.yaml."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    (folder / "mine.yaml").write_text(
        "extends: code_mc\njudges: [{kind: choice}, {kind: rubric, rubric: quality, policy: tiny}]\n"
    )
    (folder / "recipe.yaml").write_text("extends: code_mc\n")  # as a published dataset's card has it
    return folder


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_every_command_is_one(where: str, words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    verb, *rest = words
    assert verb in VERBS, f"{where}: {verb}"
    rest = [word for word in rest if word not in HELP and not re.fullmatch(r"\[.*|.*\.\.\.\]?", word)]
    rest = [word.replace("recipe=NAME", "recipe=code_mc").replace("to=TARGET", "to=file") for word in modes.take_out(rest)[0]]
    kind, known = options_of(verb, rest)
    given = by_key([word for word in rest if "=" in word], kind)
    overrides = [f"{key}={text}" for key, text in given.items() if key not in known or (key == "arms" and text[:1] == "[")]
    if kind.takes_overrides and verb != "calibrate":
        load(given.get("recipe", "code_mc"), overrides)
    else:
        assert {word.partition("=")[0] for word in overrides} <= {"policy.kind", "policy.model"}, f"{where}: {overrides}"


def options_of(verb: str, words: list[str]) -> tuple[type[VerbOptions], set[str]]:
    """The options of a command, and their keys."""
    found = importlib.import_module(f"recontext_data.{verb}").OPTIONS if verb != "build" else BuildOptions
    if isinstance(found, tuple):
        found = next((kind for kind in found if words and kind.verb == f"{verb} {words[0]}"), found[0])
    target = next((word.removeprefix("to=") for word in words if word.startswith("to=")), None) if verb == "publish" else None
    return found, {*fields_of(found), *(fields_of(target_of(target).OPTIONS) if target else {})}


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if b.page not in OWN_TESTS], ids=ident)
def test_every_yaml_block_is_a_recipe_or_a_part_of_one(
    block: Block, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(place))
    tree = yaml.safe_load(block.text)
    if block.file is not None:
        assert load(str(place / block.file)).recipe
        return
    monkeypatch.chdir(tmp_path)
    if all(isinstance(value, dict) and "stance" in value for value in tree.values()):
        tree = {"contexts": tree}  # contexts alone, by name
    assert set(tree) <= {*Recipe.model_fields, "extends"}
    path = tmp_path / "block.yaml"
    path.write_text(yaml.safe_dump({"extends": "code_mc", **tree}), encoding="utf-8")
    recipe = load(str(path)).recipe
    assert all(getattr(recipe, key) is not None for key in tree if key != "extends")


@pytest.mark.parametrize("page", OWN_TESTS)
def test_a_page_that_is_left_to_another_test_has_one(page: str) -> None:
    name = Path(page).name
    assert any(f'"{name}"' in test.read_text() for test in (ROOT / "tests").glob("test_*.py") if test.name != "test_docs.py")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the start page's commands were run, as written and in order."""
    folder = tmp_path_factory.mktemp("started")
    with contextlib.chdir(folder):
        for block in blocks("sh"):
            if block.page != "docs/start.md":
                continue
            for line in block.text.splitlines():
                if line.startswith("recontext ") and "train" not in line and "evaluate" not in line:
                    said = io.StringIO()
                    with contextlib.redirect_stdout(said):
                        assert main(shlex.split(line, comments=True)[1:]) == 0, line
                    assert said.getvalue().strip(), line
    return folder


def test_the_start_page_makes_what_it_says(started: Path) -> None:
    latest = started / "runs" / "code_mc" / "latest"
    assert (latest / "report.html").is_file()
    assert {path.name for path in latest.joinpath("arms").iterdir()} == {
        "recontextualized.control-hack",
        "standard.default-default",
    }


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_the_start_pages_trainings_plan(verb: str, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="the extra `local` is not installed")
    lines = [line for block in blocks("sh") if block.page == "docs/start.md" for line in block.text.splitlines()]
    (line,) = [line for line in lines if line.startswith(f"recontext {verb}")]
    monkeypatch.chdir(started)
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize("block", blocks("python"), ids=ident)
def test_every_python_block_runs(block: Block, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.text, ident(block), "exec")
    if block.page in NEEDS:
        return
    _with_first_arms(started, tmp_path)
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, {"__name__": "page"})


def _with_first_arms(started: Path, folder: Path) -> None:
    """The folder as it is before the page's step 4: `latest` is the run that has default -> hack."""
    shutil.copytree(started / "runs", folder / "runs", symlinks=True)
    first = next((folder / "runs").glob("code_mc/*/arms/recontextualized.default-hack")).parents[1]
    latest = folder / "runs" / "code_mc" / "latest"
    latest.unlink()
    latest.symlink_to(first.name, target_is_directory=True)


@pytest.mark.parametrize("recipe", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_every_example_builds(recipe: str, place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recontext_data.build", f"recipe={recipe}", f"output={tmp_path}", "screen=json"]
    env = environment() | {"PYTHONPATH": f"{ROOT}"}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    import json

    result = json.loads(done.stdout)
    assert all(arm["rows"]["train"] for arm in result["arms"]) and result["problems"] == []
    assert (tmp_path / result["folder"] / "report.html").is_file()


def test_every_example_is_shown_on_a_page() -> None:
    shown = {block.file for block in blocks("python", "yaml")}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} <= shown


@pytest.mark.parametrize("kind", ["nowhere:Thing", "last_number:Missing", "re:compile", "last_number:", ":Thing", "a b:C"])
def test_a_kind_of_ones_own_that_is_none_is_one_line(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.chdir(place)
    assert main(["build", "recipe=answer_key.yaml", f"judges=[{{kind: '{kind}'}}]", "dry_run=true"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: answer_key.yaml: judges.0: kind: ") and error.count("\n") == 1 and kind in error


def test_a_kind_must_say_the_same_itself(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recontext_data.core.errors import RecipeError
    from recontext_data.core.registry import own_config

    text = (place / "last_number.py").read_text().replace("last_number:LastNumber", "elsewhere:LastNumber")
    (tmp_path / "renamed_number.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RecipeError, match="LastNumber must declare its kind"):
        own_config("renamed_number:LastNumber")


def test_an_edit_of_ones_own_judge_is_another_run(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    shutil.copytree(place, folder)

    def fingerprint() -> str:
        script = "import sys; from recontext_data.config.loading import load\n"
        script += "from recontext_data.pipeline.preparation import prepared\n"
        script += "from pathlib import Path; l = load('answer_key.yaml')\n"
        script += "print(prepared(l.name, l.recipe, output=Path('out')).fingerprint)"
        env = environment() | {"PYTHONPATH": f"{ROOT}:{folder}"}
        done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    before = fingerprint()
    judge = folder / "last_number.py"
    judge.write_text(judge.read_text().replace("[-80:]", "[-81:]"))
    assert fingerprint() != before


def test_what_is_written_from_the_types_is_current() -> None:
    advice = "run python scripts/make_options.py"
    assert OPTIONS.read_text(encoding="utf-8") == options_page(), advice
    assert HELP_TEXT.read_text(encoding="utf-8") == build_help(load(HELP_RECIPE)), advice
    assert FORMATS.read_text(encoding="utf-8") == formats_page(FORMATS.read_text(encoding="utf-8")), advice
    for page in (DOCS / "extend").glob("*.md"):
        assert page.read_text(encoding="utf-8") == with_files(page.read_text(encoding="utf-8")), advice


def test_every_option_of_a_recipe_is_on_the_page_with_its_meaning() -> None:
    page = OPTIONS.read_text(encoding="utf-8")
    assert "|  |\n" not in page, "a field has no string under it"
    for name in Recipe.model_fields:
        assert f"| `{name}` |" in page
    for verb in VERBS:
        assert verb in page or verb in ("build", "replies", "status")


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


@pytest.mark.parametrize(("page", "name"), list(zip(PAGES, NAMES, strict=True)), ids=NAMES)
def test_internal_links_lead_somewhere(page: Path, name: str) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), f"{name}: {link}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {link}"


def said() -> Iterator[str]:
    """Every text of the source, with a NUL for each hole of an f-string; neighbours are one text, as Python reads them."""
    for path in (ROOT / "recontext_data").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


SAID = list(said())
QUOTED = [
    (double or single).strip()
    for double, single in re.findall(
        r"^\| (?:`` (.+?) ``|`(.+?)`) \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    if (double or single) != "message"
]


def test_messages_are_quoted() -> None:
    assert len(QUOTED) > 20


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_that_the_code_says(message: str) -> None:
    parts = [part.strip() for part in message.split("…") if part.strip(" :;.,()=")]
    pattern = re.compile(".*?".join(re.escape(part) for part in parts), re.DOTALL)
    assert any(pattern.search(text) for text in SAID), message


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_recipe_is_in_the_documentation(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", page.read_text(encoding="utf-8")) for page in PAGES if page.name != "LOG.md")


def test_the_figures_of_the_statistics_page_are_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join((DOCS / "statistics.md").read_text(encoding="utf-8").split())
    found = re.search(r"probability of (\d+) %, with five seeds (\d+) %", page)
    assert found, "the page no longer says what power three and five seeds have"
    for seeds, said_there in zip((3, 5), found.groups(), strict=True):
        assert main(["power", "base=.4", "effect=.1", "tasks=200", f"seeds={seeds}"]) == 0
        assert f"seen with a probability of {said_there} %" in capsys.readouterr().out


def test_every_script_and_target_that_is_named_is_there() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name in re.findall(r"`make ([a-z]+)`", text):
        assert name in targets, name
    named = re.findall(r"python ((?:benchmarks|scripts)/\w+\.py)", text)
    named += [f"benchmarks/{name}.py" for name in re.findall(r"python -m benchmarks\.(\w+)", text)]
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


PICTURES = sorted((DOCS / "pictures").glob("*.svg"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_well_formed_described_and_fetches_nothing(picture: Path) -> None:
    from xml.etree import ElementTree

    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    names = {child.tag.rpartition("}")[2] for child in root}
    assert {"title", "desc"} <= names and "prefers-color-scheme:dark" in text
    assert "href" not in text and "url(" not in text and "<script" not in text and text.count("http") == 1  # its namespace


def test_the_pictures_arms_are_the_codes() -> None:
    from recontext_data.contexts.arms import Arm, kind_of
    from recontext_data.contexts.context import Context

    contexts = {
        name: Context(stance=stance, system=name)  # type: ignore[arg-type]
        for name, stance in (("d", "discourages"), ("d2", "discourages"), ("n", "neutral"), ("p", "permits"), ("x", "placebo"))
    }
    grid = [["prior", "recontextualized", "recontextualized"], ["reversed", "standard", "recontextualized"]]
    grid += [["reversed", "reversed", "inoculation"]]
    for generation, row in zip("dnp", grid, strict=True):
        for training, kind in zip("dnp", row, strict=True):
            assert kind_of(Arm(generation=generation, training=training), contexts) == kind
    assert [kind_of(Arm(generation=g, training="none"), contexts) for g in "dn"] == ["distillation"] * 2
    assert kind_of(Arm(generation="n", training="x"), contexts) == "placebo"


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("properdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "properdocs", "build", "--strict", "-q", "-f", str(ROOT / "properdocs.yml"), "-d"]
    done = subprocess.run(
        [*command, str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    for page in pages:
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//', page.read_text(encoding="utf-8"))
        assert fetched == [], page.name


def test_every_page_is_in_the_navigation() -> None:
    site: Any = yaml.safe_load((ROOT / "properdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/]+\.md", str(site["nav"])))
    assert listed == {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}


def test_the_page_of_the_python_api_is_current() -> None:
    assert API.read_text(encoding="utf-8") == api_page(), "run python scripts/make_api.py"


def test_the_notebook_runs_inside_an_event_loop() -> None:
    cells = json.loads((DOCS / "api.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}

    async def run_cells() -> None:
        for cell in cells:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [], "outputs would go stale: clear them"
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)

    asyncio.run(run_cells())
    assert len(names["models"]) == 2
    assert len(names["results"].differences()) == 3
    assert names["hacks"]["hack"].null_count() == 0
    assert names["done"].dropped == [1]
    shutil.rmtree(names["output"])
