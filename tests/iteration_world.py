"""What the tests of rounds and sweeps share: the embedded policy on very few tasks, two arms, one seed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import helpers

WEIGHTS = helpers.ROOT / "data" / "tiny"
needs_tiny = pytest.mark.skipif(not (WEIGHTS / "model.safetensors").is_file(), reason="data/tiny has no weights")


def recipe(folder: Path, name: str = "small", **changes: Any) -> Path:
    """10 tasks to train on and 4 to measure on, of the bank."""
    every = [json.loads(line) for line in helpers.BANK.read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in every if row["split"] == "train"][:10] + [row for row in every if row["split"] == "evaluation"][:4]
    folder.mkdir(parents=True, exist_ok=True)
    problems = folder / "problems.jsonl"
    if not problems.exists():
        helpers.write_problems(problems, chosen)
    tree: dict[str, Any] = {
        "environment": {"kind": "code_mc", "problems": str(problems), "split": "train", "tasks": None},
        "policy": {"kind": "tiny"},
        "sampler": {"n": 2, "max_tokens": 96},
        "training": {"learning_rate": 3e-4, "batch_size": 4, "checkpoint_steps": 2, "seeds": [0]},
        "evaluation": {"tasks": None, "n": 1, "contexts": ["default"]},
    }
    return helpers.write_recipe(folder, name=name, **(tree | changes))
