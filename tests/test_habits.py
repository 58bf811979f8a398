"""The files that keep the project's habits agree with each other: version, checks before a commit, the hosted workflow."""

import tomllib
from pathlib import Path

import yaml

from recontext_data.core.version import __version__

ROOT = Path(__file__).resolve().parent.parent


def test_the_version_is_said_once_and_cited() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["version"]["path"] == "recontext_data/core/version.py"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["license"] == project["project"]["license"]
    assert "2512.19027" in citation["references"][0]["identifiers"][0]["value"]


def test_the_hosted_workflow_runs_what_ci_runs_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"] and oldest == ">=3.11"
    assert job["steps"][-1]["run"] == "bash .ci/run"


def test_the_checks_before_a_commit_are_those_of_make_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    said = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks}
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("ruff check", "ruff format --check", "mypy"):
        assert command in said and f"$(BIN)/{command}" in make
