"""What is pinned must install on every Python that the project says it runs on, not only on the newest of its series."""

import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent


def test_what_is_pinned_runs_on_the_oldest_python() -> None:
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=") + ".0"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    looked_at, too_new = 0, []
    for name, version in (line.split("==") for line in lines if "==" in line and not line.startswith("#")):
        try:
            about = metadata(name)
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        looked_at += 1
        if about["Version"] == version and not SpecifierSet(about["Requires-Python"] or "").contains(oldest):
            too_new.append(f"{name}=={version} wants Python {about['Requires-Python']}")
    assert looked_at > 50 and too_new == []
