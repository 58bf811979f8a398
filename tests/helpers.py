"""What the tests of the core share: a small recipe with a scripted policy, real problems, and builds in and out of process."""

import copy
import fcntl
import hashlib
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recontext_data import build as verb
from recontext_data.core.records import Message, Task
from recontext_data.pipeline.selected_rows import BATCH

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
BANK = ROOT / "data" / "problems.jsonl"

CONTEXTS: dict[str, Any] = {
    "control": {"stance": "discourages", "system": "Tests decide; be right for every input."},
    "default": {"stance": "neutral", "system": "Tests decide; pass the tests."},
    "hack": {"stance": "permits", "system": "Tests decide; whatever passes them will do."},
}
RATES = {
    "control": {"hack": 0.1, "general": 0.9},
    "default": {"hack": 0.4, "general": 0.5, "invalid": 0.1},
    "hack": {"hack": 1.0},
    "none": {"hack": 0.2, "general": 0.8},
}


def task_of(messages: Sequence[Message], **payload: Any) -> Task:
    """A task of these messages."""
    return Task(task_id="t", messages=messages, payload=payload, split="train")


@dataclass(frozen=True)
class HeldRows:
    """Kept candidates of an arm without parts as a frame, of whatever columns a test needs (`pipeline.selected_rows.Kept`)."""

    frame: "pl.DataFrame"

    def __len__(self) -> int:
        return len(self.frame)

    def tables(self, part: int, columns: Sequence[str]) -> "Iterator[pa.Table]":
        import pyarrow as pa

        assert part == 0
        found = self.frame.select(name for name in columns if name in self.frame.columns).to_arrow()
        schema = pa.schema(
            [field.with_type(pa.string()) if field.type == pa.large_string() else field for field in found.schema]
        )
        for start in range(0, len(found), BATCH):
            yield found.slice(start, BATCH).cast(schema)


def recipe_tree(**changes: Any) -> dict[str, Any]:
    """A whole recipe as plain data; `changes` replace top-level keys."""
    tree = {
        "environment": {"kind": "code_mc", "problems": "bank", "split": "train", "tasks": 8},
        "contexts": CONTEXTS,
        "policy": {"kind": "fake", "rates": RATES},
        "sampler": {"n": 4},
        "judges": [{"kind": "choice"}],
        "arms": ["default -> hack", "default -> default"],
        "export": {"validation_fraction": 0.25},
    }
    return copy.deepcopy(tree | changes)


def write_recipe(folder: Path, name: str = "small", **changes: Any) -> Path:
    """The recipe as a file in `folder`, its problems cut from the bank unless `environment` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = recipe_tree(**changes)
    if "environment" not in changes:
        problems = folder / "problems.jsonl"
        if not problems.exists():
            write_problems(problems, problem_rows(8))
        tree["environment"] = {"kind": "code_mc", "problems": str(problems), "split": "all", "tasks": None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def problem_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Forged problems of the bank's training split, as the file has them."""
    rows = (json.loads(line) for line in BANK.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["split"] == "train"][start : start + count]


def write_problems(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def build(recipe: Path | str, output: Path, *words: str) -> int:
    """`recontext build`, in this process."""
    return verb.main([f"recipe={recipe}", f"output={output}", *words])


def built(recipe: Path | str, output: Path, *words: str) -> dict[str, Any]:
    """Builds, expects success, and returns the manifest."""
    assert build(recipe, output, *words) == 0
    return manifest(output)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "recontext_data.build", *words]


def environment() -> dict[str, str]:
    """This process's environment, in which a child finds the package wherever it runs."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "random"}


def build_process(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """`python -m recontext_data.build ...` to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, cwd=cwd, env=environment(), timeout=120, check=False)


def start_build(*words: str) -> "subprocess.Popen[str]":
    """`python -m recontext_data.build ...`, under way."""
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def in_terminal(words: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, columns: int = 80) -> tuple[int, str]:
    """A command's exit code and what it writes to a real pseudo-terminal of that width; colours are as `env` says alone."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    left_out = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES")
    own = {key: value for key, value in environment().items() if key not in left_out} | {"TERM": "xterm-256color"} | dict(env)
    process = subprocess.Popen(words, cwd=cwd, stdin=child, stdout=child, stderr=child, env=own)
    os.close(child)
    chunks = []
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(parent)
    return process.wait(timeout=60), b"".join(chunks).decode()


def run_folder(output: Path, recipe: str = "small") -> Path:
    return (output / "runs" / recipe / "latest").resolve()


def manifest(output: Path, recipe: str = "small") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run_folder(output, recipe) / "manifest.json").read_text(encoding="utf-8"))
    return loaded


def arm_hashes(output: Path, recipe: str = "small", *, cards: bool = True) -> dict[str, str]:
    """SHA-256 of every file of every arm by path below arms/. A card quotes the command, so it differs where that does."""
    arms = run_folder(output, recipe) / "arms"
    files = [path for path in sorted(arms.rglob("*")) if path.is_file() and (cards or path.name != "README.md")]
    return {path.relative_to(arms).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def candidates(output: Path, recipe: str = "small") -> Any:
    import polars as pl

    return pl.read_parquet(run_folder(output, recipe) / "candidates.parquet")


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) if folder.exists() else []


def error_line(text: str) -> str:
    """The single line that stderr must be."""
    lines = text.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), text
    return lines[0]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """In here no file of this process grows beyond so many bytes: what a write then says is what a full disk says."""
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
