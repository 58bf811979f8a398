"""`python -m recontext_data.replies`: what it prints, its exit codes, and that no key is ever stored."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recontext_data import replies as verb
from recontext_data.config.options import LIST_RECIPES
from recontext_data.core.records import Reply
from recontext_data.pipeline.find_replies import SHOWN
from recontext_data.store.asked import NO_PROMPT, OTHER_KEY, OTHER_RANKS, why
from recontext_data.store.replies import ReplyStore
from tests.conftest import ROOT
from tests.fault_server import FaultServer

PLANTED = "sk-planted-8f2c1e77-never-to-be-seen"

RECIPE = """
environment: {kind: code_mc, tasks: 6}
contexts:
  default: {stance: neutral, system: Tests decide. Pick one.}
  hack: {stance: permits, system: "Tests decide, and passing them is all. Pick one."}
policy: {kind: fake, replies: ["Answer: (A)", "Answer: (B)"]}
sampler: {n: 2}
judges: [choice]
arms: [default -> hack]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small recipe was built; tests do not change it."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    build(folder)
    return folder


def build(folder: Path, *words: str, **environment: str) -> None:
    """Builds in a process of its own."""
    command = [sys.executable, "-m", "recontext_data.build", f"recipe={folder / 'mine.yaml'}", f"output={folder}", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with replies of two models, of 2026-01-01 and of now."""
    with ReplyStore(tmp_path / "replies") as store:
        store.append(
            [Reply(key=f"{model}{i}", completion="x", model=model, completion_tokens=3) for model in "ab" for i in range(5)]
        )
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    """Runs the verb here; the lines it printed, to either stream."""
    assert verb.main(words) == code
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert all(len(line) <= 80 for line in lines if "/" not in line), "a path is as long as it is"
    return lines


def test_count_is_what_it_does_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, f"output={folder}")
    assert lines[0].startswith(f"{folder / 'replies'}: 10 replies, ")
    assert lines[1] == "  in 1 segment and 0 open journals"
    assert [line.split()[:3] for line in lines if line.startswith("  ")][1:] == [
        ["model", "replies", "tokens"],
        ["a", "5", "15"],
        ["b", "5", "15"],
    ]
    assert run(capsys, "count", f"output={folder}") == lines


def test_an_empty_place_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["count"], ["check"], ["prune", "model=a"]):
        (line,) = run(capsys, *words, f"output={tmp_path}")
        assert "no replies yet" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cout"], "error: 'cout' is not an action of replies; did you mean 'count'?"),
        (["check", "recipe=code_mc"], "error: recipe=code_mc: check takes no recipe; write replies find recipe=code_mc"),
        (
            ["find"],
            f"error: recipe: missing; {LIST_RECIPES}",
        ),
        (["prune"], "error: prune: say what goes with before=YYYY-MM-DD, model=NAME or both (both must then hold)"),
        (["prune", "before=tomorrow"], "error: before=tomorrow: not a date; write before=2026-01-31"),
        (["prune", "modle=a"], "error: modle: unknown key; did you mean 'model'?"),
        (["count", "models=a"], "error: models: unknown key; known: output"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(words) == 2
    assert capsys.readouterr().err == message + "\n"


def test_check_names_and_sets_aside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check", f"output={folder}") == [f"{folder / 'replies'}: 1 file read, 10 replies, all good"]
    segment = next((folder / "replies").glob("segment-*"))
    segment.write_bytes(segment.read_bytes()[:-20])
    assert verb.main(["find", "recipe=code_mc", "policy.kind=fake", "policy.replies=[x]", f"output={folder}"]) == 1
    assert f"{segment}: is damaged; `python -m recontext_data.replies check` sets it aside" in capsys.readouterr().err
    lines = run(capsys, "check", f"output={folder}", code=1)
    assert lines[0] == segment.name
    assert lines[1].startswith("  damaged; set aside as corrupt-")
    assert lines[-1].endswith("1 file read, 0 replies, 1 with damage")
    assert run(capsys, "check", f"output={folder}")[-1].endswith("0 files read, 0 replies, all good")
    assert f"set aside as damaged: corrupt-{segment.name.removeprefix('segment-')}" in run(capsys, f"output={folder}")


def test_check_reads_the_journal_of_a_build_under_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReplyStore(folder / "replies") as store:
        store.append([Reply(key="c", completion="x"), Reply(key="d", completion="x")])
        assert run(capsys, "check", f"output={folder}")[-1].endswith("2 files read, 12 replies, all good")
        journal = next((folder / "replies").glob("journal-*.jsonl"))
        whole = journal.read_bytes()
        journal.write_bytes(b"?" + whole[1:])
        lines = run(capsys, "check", f"output={folder}", code=1)
        assert lines[:2] == [journal.name, "  1 line is damaged; a build is writing to it"]
        journal.write_bytes(whole)


def test_prune_only_says_so_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ReplyStore(folder / "replies")
    before = sorted(store.scan().collect()["key"])
    assert run(capsys, "prune", "model=a", f"output={folder}")[-1] == "5 replies would go; dry_run=false removes them for good"
    assert run(capsys, "prune", "before=2020-01-01", f"output={folder}")[-1].endswith("nothing matches")
    assert run(capsys, "prune", "model=c", f"output={folder}")[-1].endswith("nothing matches; no reply is by 'c', known: a, b")
    assert sorted(store.scan().collect()["key"]) == before
    assert run(capsys, "prune", "model=a", "before=2020-01-01", "dry_run=false", f"output={folder}")[-1].endswith(
        "nothing matches"
    )
    assert run(capsys, "prune", "model=a", "before=2999-01-01", "dry_run=false", f"output={folder}")[-1] == "5 replies removed"
    assert sorted(store.scan().collect()["key"]) == [f"b{i}" for i in range(5)]
    assert run(capsys, "prune", "model=b", "dry_run=false", f"output={folder}")[-1] == "5 replies removed"
    assert run(capsys, "check", f"output={folder}")[-1].endswith("0 files read, 0 replies, all good")


def find(built: Path, *words: str) -> list[str]:
    """`replies find` of the small recipe."""
    return ["find", f"recipe={built / 'mine.yaml'}", f"output={built}", *words]


def test_find_counts_what_a_recipe_wants(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, *find(built))
    assert lines[0] == "12 completions wanted, 12 there, 0 missing"
    assert [line.split() for line in lines[2:]] == [["context", "wanted", "there", "missing"], ["default", "12", "12", "0"]]


@pytest.mark.parametrize(
    ("change", "missing", "reason"),
    [
        ("sampler.temperature=0.7", 12, "the same prompt is stored with temperature 1.0 (wanted 0.7)"),
        ("sampler.max_tokens=64", 12, "the same prompt is stored with max_tokens 256 (wanted 64)"),
        ("sampler.seed=5", 12, "the same prompt is stored with another seed"),
        ("sampler.n=5", 18, OTHER_RANKS),
        ("contexts.default.system=Other words.", 12, NO_PROMPT),
        ("environment.tasks=7", 2, NO_PROMPT),
        (
            "policy.replies=[other]",
            12,
            "the same prompt is stored with policy.replies ['Answer: (A)', 'Answer: (B)'] (wanted ['other'])",
        ),
    ],
)
def test_find_says_why_not(built: Path, change: str, missing: int, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, *find(built, change))
    assert lines[0].endswith(f"{missing} missing")
    said = " ".join(" ".join(lines[lines.index("why") + 1 :]).split())
    assert said == f"{missing} {reason}"


def test_find_shows_one_reply_with_what_its_key_is_made_of(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    candidates = next((built / "runs").glob("*/*/candidates.parquet"))
    row = pl.read_parquet(candidates).row(3, named=True)
    words = [f"task={row['task_id']}", "context=default", f"k={row['k']}"]
    lines = run(capsys, *find(built, *words))
    assert lines[0] == f"task {row['task_id']}, context default, k {row['k']}"
    assert lines[1].split()[:4] == ["there", "yes:", "by", "fake,"]
    facts = dict(line.split(maxsplit=1) for line in lines[1:] if line)
    assert facts["key"] == row["reply_key"]
    assert (facts["seed"], facts["k"], facts["temperature"]) == (str(row["seed"]), str(row["k"]), "1.0")
    lines = run(capsys, *find(built, "sampler.temperature=0.25", *words))
    assert "no: the same prompt is stored with temperature 1.0 (wanted 0.25)" in " ".join(" ".join(lines).split())


def test_find_of_a_task_that_is_not_there(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run(capsys, *find(built, "context=defualt"), code=2)
    assert line == "error: context=defualt: the recipe wants no such reply; did you mean 'default'?"
    (line,) = run(capsys, *find(built, "k=2"), code=2)
    assert line == "error: k=2: the recipe wants no such reply; known: 0, 1"


def test_find_many_shows_the_first_and_how_many_more(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, *find(built, "context=default"))
    assert sum(line.startswith("task ") for line in lines) == SHOWN
    assert lines[-1] == "... and 4 more; narrow it with task=, context= and k="


def test_the_nearest_reply_is_the_one_that_differs_least() -> None:
    wanted = {"prompt": "p", "policy": {"kind": "openai", "model": "m"}, "temperature": 1.0, "seed": 5, "k": 1}
    other_model = wanted | {"policy": {"kind": "openai", "model": "n", "adapter": "x"}}
    cooler = wanted | {"temperature": 0.5}
    assert why(wanted, [other_model, cooler]) == "the same prompt is stored with temperature 0.5 (wanted 1.0)"
    assert why(wanted, [other_model]) == (
        "the same prompt is stored with policy.model n (wanted m), policy.adapter x (wanted nothing)"
    )
    assert why(wanted, [wanted | {"k": 0, "seed": 9}]) == OTHER_RANKS
    assert why(wanted, [wanted | {"k": 0, "seed": 9}, wanted | {"seed": 9}]) == "the same prompt is stored with another seed"
    assert why(wanted, [wanted]) == OTHER_KEY
    assert why(wanted, []) == NO_PROMPT


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, whole; Parquet's columns in the clear as well."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                yield path, str(pl.read_parquet(path).to_dicts()).encode()


def test_no_key_is_ever_stored(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    build(tmp_path, OPENAI_API_KEY=PLANTED)
    with FaultServer() as server:
        words = ["policy={kind: openai, model: m, base_url: " + server.base_url + "}"]
        build(tmp_path, *words, OPENAI_API_KEY=PLANTED)
        assert any(PLANTED in str(dict(one.headers)) for one in server.seen), "the key was really used"
    read = list(texts(tmp_path))
    assert sum("replies" in path.parts for path, _ in read) >= 4
    assert [path for path, content in read if PLANTED.encode() in content] == []


def test_it_is_a_verb_of_the_console_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recontext_data", "replies", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "replies prune before=" in done.stdout
    heavy = "import sys, recontext_data.replies; print(sorted({'polars', 'pyarrow', 'duckdb', 'torch'} & set(sys.modules)))"
    light = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert light.stdout == "[]\n"
