"""Writes tests/golden/datasets.json: what the builds of tests/golden/cases.yaml give, as hashes.

    git worktree add ../reference COMMIT && PYTHONPATH=../reference python scripts/make_golden.py

The file must be made by the reference commit, whose package PYTHONPATH names here: it says what users have on disk, and
`tests/test_golden.py` compares what the code at hand builds with it. Make it anew only where a change of the data is wanted,
and say so in CHANGELOG.md. A case that is added later is made with `only=NAME`, which leaves the others as they are.

Builds run through the command line alone, all in one process, and everything is read from disk: nothing here knows the modules
of the package. Of a build are kept: the fingerprint (the run's folder), the rows of each split, the SHA-256 of the files of the
arms but their cards, the content of the tables (Parquet's bytes hold the versions of libraries) and the manifest's numbers.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
DATASETS = GOLDEN / "datasets.json"
TABLES = ("tasks", "candidates", "judgements", "selection", "violations")
DIGITS = 9
"""Significant digits of a number in what is compared by content; the bytes of an arm have them all."""
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "ledger": ("stage", "scope", "in", "kept", "dropped"),
    "gates": ("gate", "scope", "rows", "violations", "action", "row_ids"),
    "arms": ("name", "kind", "generation_context", "training_context", "rows", "labels"),
    "rates": ("context", "role", "judge", "labels", "counts", "mean_score", "unscored", "total", "tasks"),
}
"""What is compared of the lists of a manifest; a key that is added to an entry changes nothing here."""

_COMMANDS = """
import contextlib, importlib, io, json, sys
for line in sys.stdin:
    verb, *words = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = importlib.import_module("recontext_data." + verb).main(words)
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
"""


def read_cases() -> dict[str, Any]:
    """The file of cases."""
    cases: dict[str, Any] = yaml.safe_load((GOLDEN / "cases.yaml").read_text(encoding="utf-8"))
    return cases


def names_of(cases: Mapping[str, Any]) -> list[str]:
    """The cases by name, in the file's order."""
    return [*cases["shipped"], *cases["small"]]


def run_commands(
    commands: Sequence[Sequence[str]], *, folder: Path, env: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The exit code, output and errors of each command ([verb, key=value, ...]), all run in one process in `folder`."""
    lines = "".join(json.dumps(list(command)) + "\n" for command in commands)
    words = [sys.executable, "-c", _COMMANDS]
    done = subprocess.run(words, input=lines, capture_output=True, text=True, cwd=folder, env=env, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(answers) < len(commands):
        raise SystemExit(f"{commands[min(len(answers), len(commands) - 1)]} ended the process:\n{done.stderr}")
    return answers


def prepare(folder: Path, cases: Mapping[str, Any]) -> None:
    """Puts the files that the recipes name, and the recipes, into an empty folder."""
    shutil.copytree(GOLDEN / "inputs", folder, dirs_exist_ok=True)
    for name, changes in cases["small"].items():
        recipe = yaml.safe_dump(cases["tree"] | changes, sort_keys=False)
        (folder / f"{name}.yaml").write_text(recipe, encoding="utf-8")


def command_of(name: str, cases: Mapping[str, Any]) -> list[str]:
    """The command that builds a case."""
    words = [*cases["words"], *cases["shipped"][name]] if name in cases["shipped"] else []
    recipe = name if name in cases["shipped"] else f"./{name}.yaml"
    return ["build", *given_once([f"recipe={recipe}", f"output=out/{name}", "screen=plain", *words])]


def given_once(words: Sequence[str]) -> list[str]:
    """The words with each key once: a case's own value replaces the common one."""
    return list({word.partition("=")[0]: word for word in words}.values())


def later_commands(name: str, cases: Mapping[str, Any]) -> Iterator[list[str]]:
    """What is done with the finished run of a case: exports and a measurement."""
    for format_ in cases["exports"].get(name, ()):
        yield ["publish", "to=file", f"format={format_}", f"run={name}", f"output=out/{name}"]
    if name in cases["evaluated"]:
        yield ["evaluate", *given_once([*command_of(name, cases)[1:], *cases["evaluated"][name]])]


def build_cases(names: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Case -> its facts, as datasets.json has them, from builds in `folder`; with `error` where a command failed."""
    cases = read_cases()
    prepare(folder, cases)
    built = run_commands([command_of(name, cases) for name in names], folder=folder, env=env)
    later = [(name, command) for name in names for command in later_commands(name, cases)]
    followed = run_commands([command for _, command in later], folder=folder, env=env)
    answers = {name: [answer] for name, answer in zip(names, built, strict=True)}
    for (name, _), answer in zip(later, followed, strict=True):
        answers[name].append(answer)
    return {name: facts_of(folder / "out" / name / "runs", answers[name]) for name in names}


def facts_of(runs: Path, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is compared of one build. Of one that failed this is its exit code: no run is finished."""
    manifests = [path for path in runs.glob("*/*/manifest.json") if path.parent.name != "latest"]
    failed = next((answer for answer in answers if answer["code"]), None)
    if failed is not None:
        return {"exit_code": failed["code"], "finished": len(manifests), "error": failed["err"]}
    (path,) = manifests
    manifest = json.loads(path.read_text(encoding="utf-8"))
    run = path.parent
    return {
        "fingerprint": run.name,
        "rows": {arm["name"]: arm["rows"] for arm in manifest["arms"]},
        "numbers": {key: _digest(_numbers(manifest, key)) for key in (*NUMBERS, "requests")},
        "tables": {table: content_of(run / f"{table}.parquet") for table in TABLES},
        "files": dict(_files(run)),
    }


def _numbers(manifest: Mapping[str, Any], key: str) -> Any:
    if key == "requests":
        return {kind: manifest[key][kind] for kind in ("wanted", "found", "sampled", "failed")}
    return [{field: entry.get(field) for field in NUMBERS[key]} for entry in manifest[key]]


def _files(run: Path) -> Iterator[tuple[str, Any]]:
    """Hashes of the files of arms, exports and a measurement, by path. Cards quote the command and are left out; a split's
    state.json holds a hash of the Arrow file beside it and nothing else that changes.
    """
    for path in sorted(path for folder in ("arms", "exports") for path in (run / folder).rglob("*")):
        if path.is_dir() or path.name in ("README.md", "state.json"):
            continue
        is_table = path.suffix in (".arrow", ".parquet")
        facts = {"content": content_of(path)} if is_table else {}
        if path.suffix != ".parquet":  # its bytes hold the version of the library
            facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        yield path.relative_to(run).as_posix(), facts
    if (run / "evaluation").is_dir():
        yield "evaluation/outcomes.parquet", {"content": content_of(run / "evaluation" / "outcomes.parquet")}


def content_of(path: Path) -> str:
    """Hash of a table's columns, types and values in their order; the run's fingerprint, which every row of an arm has, is
    left out, so that rows can be told to be equal where only the run's name differs.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
    else:
        table = pq.read_table(path)
    table = table.select([name for name in table.column_names if name != "recipe_fingerprint"])
    schema = [(field.name, _type_name(field.type)) for field in table.schema]
    return _digest([schema, _rounded(table.to_pylist())])


def _type_name(type_: Any) -> str:
    """An Arrow type, however this version of a library stores texts and names the members of lists."""
    return re.sub(r"\b(large_|_view)?(string|list)(_view)?\b", r"\2", re.sub(r"<(item|element): ", "<", str(type_)))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {key: _rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def _digest(value: Any) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What the bytes of an Arrow file may depend on."""
    import pyarrow as pa

    return {"pyarrow": pa.__version__}


def main(words: Sequence[str]) -> int:
    """Builds all cases, or those of `only=NAME,...`, and writes the file."""
    chosen = next((word.removeprefix("only=").split(",") for word in words if word.startswith("only=")), None)
    cases = read_cases()
    names = names_of(cases)
    with tempfile.TemporaryDirectory() as folder:
        made = build_cases(chosen or names, folder=Path(folder))
    for name, facts in made.items():
        error = facts.pop("error", None)
        if (error is not None) != (name in cases["fails"]):
            raise SystemExit(f"case {name}: {error or 'was to fail and did not'}")
    known = json.loads(DATASETS.read_text(encoding="utf-8"))["cases"] if chosen else {}
    DATASETS.write_text(_text({name: (known | made)[name] for name in names if name in known | made}), encoding="utf-8")
    print(f"{len(made)} cases -> {DATASETS.name}")
    return 0


def _text(cases: Mapping[str, Any]) -> str:
    """JSON with a line for each file of a case, so that a difference can be read."""
    text = json.dumps({"versions": versions(), "cases": cases}, indent=1)
    return re.sub(r"\{\s*(\"[^{}]*?)\s*\}", lambda found: "{" + re.sub(r"\s+", " ", found[1]) + "}", text) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
