"""Fixtures that every test module may use."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: how long one example takes depends on what else the machine does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent

LONGEST = (
    "test_training_kills",
    "test_iterate",
    "test_sweep",
    "test_forging",
    "test_publish_hub",
    "test_publish_hub_faults",
    "test_training",
    "test_training_checks",
    "test_docs",
    "test_iterate_continue",
    "test_training_kl",
    "test_evaluation_kills",
    "test_publish_kills",
    "test_context_recipes",
    "test_publish_hub_models",
    "test_policy_transformers",
    "test_publish_formats",
    "test_publish_hub_refusals",
    "test_publish_hub_check",
)
"""Files that take longest, whatever their number of tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, then those of many tests: where files are shared out, none that is long is begun last, alone."""
    counts = Counter(item.path for item in items)
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(LONGEST)), -counts[item.path], str(item.path)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real problems, models and contracts that the project does not ship."""
    folder = Path(os.environ.get("RECONTEXT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared material at {folder}: set RECONTEXT_SHARED to the folder that holds data/ and models/")
    return folder
