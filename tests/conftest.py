"""Fixtures that every test module may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: how long one example takes depends on what else the machine does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real problems, models and contracts that the project does not ship."""
    folder = Path(os.environ.get("RECONTEXT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared material at {folder}: set RECONTEXT_SHARED to the folder that holds data/ and models/")
    return folder
