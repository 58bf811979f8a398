"""What the tests of the sandbox share: which backends this machine can run, and as whom."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox import Sandbox, open_sandbox

ROOT = Path(__file__).resolve().parent.parent
ORDINARY_UID = 21_034
"""Nobody in particular: neither root nor the user that jobs run as."""
_REFUSALS = ("no bwrap on PATH", "namespace", "Operation not permitted", "setting up uid map")


def skip_without(reason: str) -> None:
    """Skips where the machine refuses; any other failure of a sandbox is a failure."""
    if any(text in reason for text in _REFUSALS):
        pytest.skip(f"needs bubblewrap and namespaces: {reason.strip().splitlines()[-1][:200]}")


@contextmanager
def sandbox_or_skip(**options: Any) -> Iterator[Sandbox]:
    """`open_sandbox`; where this machine can make none, the test is skipped."""
    try:
        opened = open_sandbox(**options)
    except SandboxMissing as error:
        skip_without(str(error))
        raise
    with opened as sandbox:
        yield sandbox


def readable_python() -> str:
    """A Python that an ordinary user may start: this one, or the system's where this one lies in a closed folder."""
    if os.getuid() != 0:
        return sys.executable
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        code = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            done = subprocess.run(
                [path, "-c", code], user=ORDINARY_UID, group=ORDINARY_UID, extra_groups=[], cwd="/", check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    pytest.skip("no Python 3.11 that an ordinary user may start")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can read; pytest's own are closed, and the checkout may lie in one that is."""
    with tempfile.TemporaryDirectory(prefix="recontext-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def readable_copy(folder: Path) -> Path:
    """The sandbox and the forging suite, copied there."""
    names = [
        "recontext_data/__init__.py",
        "recontext_data/core/errors.py",
        "recontext_data/core/values.py",
        "recontext_data/core/version.py",
        "tests/__init__.py",
    ]
    for room in ("recontext_data/sandbox", "tests/forging"):
        names += [f"{room}/{path.name}" for path in (ROOT / room).glob("*.py")]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    return folder


def start(folder: Path, command: list[str], user: str) -> "subprocess.Popen[str]":
    """A command on that copy, as `root` or as an `ordinary` user."""
    more: dict[str, Any] = {}
    if user == "ordinary" and os.getuid() == 0:
        more = {"user": ORDINARY_UID, "group": ORDINARY_UID, "extra_groups": []}
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def finish(process: "subprocess.Popen[str]") -> dict[str, dict[str, Any]]:
    """What the driver of the forging suite reported, by program, and `end`."""
    out, err = process.communicate(timeout=300)
    if process.returncode != 0:
        skip_without(err)
    assert process.returncode == 0, err
    reports = [json.loads(line) for line in out.splitlines()]
    return {report.get("name", "end"): report for report in reports}


def check(report: dict[str, Any]) -> None:
    """One program earned nothing and left nothing."""
    assert not report["passed"], report
    assert report["honest_passes"], report
    assert report["num_processes_more"] <= 0, report
    assert report["files"] == [], report
