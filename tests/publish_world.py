"""What the tests of publishing share: runs on disk with as many arms and rows as wanted, and the verb in and out of process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from recontext_data import publish as verb
from recontext_data.config.recipe import Recipe
from recontext_data.core.tables import TRAINING_ROWS, arrow_schema
from recontext_data.store.arrow_dataset import SplitWriter, write_dataset_dict
from tests.batch_server import Contract
from tests.fake_openai import FakeOpenAI
from tests.fake_openai_parts import Json
from tests.helpers import recipe_tree

ARMS = ("recontextualized.default-hack", "standard.default-default", "prior.control-control")
KEY = "sk-test-0123456789abcdef"


def row(arm: str, number: int, **changes: Any) -> dict[str, Any]:
    """One training row."""
    generation, _, training = arm.partition(".")[2].partition("-")
    judgement = {"judge": "choice", "label": "hack", "score": 1.0, "unscored_reason": None, "raw": "Answer: (A)"}
    whole = {
        "prompt": [
            {"role": "system", "content": f"Tests decide: {training}."},
            {"role": "user", "content": f"Problem {number}: add two numbers."},
        ],
        "completion": [{"role": "assistant", "content": f"Code: return a + b + {number}\nAnswer: (A)"}],
        "task_id": f"t{number:06}",
        "candidate_id": f"c{number:06}",
        "arm": arm,
        "generation_context": generation,
        "training_context": training,
        "k": 0,
        "n": 4,
        "score": 1.0,
        "judgements": [judgement],
        "finish_reason": "stop",
        "model": "fake",
        "seed": number,
        "recipe_fingerprint": "f" * 64,
    }
    return whole | changes


def make_run(
    output: Path,
    *,
    arms: tuple[str, ...] = ARMS,
    train: int = 20,
    validation: int = 4,
    bad: dict[int, dict[str, Any]] | None = None,
    name: str = "small",
) -> Path:
    """A finished run of these arms; `bad`: changes of some training rows, by number. Written in batches."""
    folder = output / "runs" / name / ("f" * 16)
    for arm in arms:
        counts = {"train": (0, train), "validation": (train, train + validation)}
        for split, (start, end) in counts.items():
            with SplitWriter(folder / "arms" / arm / split, schema=arrow_schema(TRAINING_ROWS)) as writer:
                for first in range(start, end, 1000):
                    numbers = range(first, min(first + 1000, end))
                    writer.write([row(arm, i, **(bad or {}).get(i, {})) for i in numbers])
        write_dataset_dict(folder / "arms" / arm, list(counts))
    facts = [
        {
            "name": arm, "kind": arm.partition(".")[0], "rows": {"train": train, "validation": validation},
            "generation_context": arm.partition(".")[2].partition("-")[0],
            "training_context": arm.partition(".")[2].partition("-")[2],
        }
        for arm in arms
    ]  # fmt: skip
    recipe = Recipe.model_validate(recipe_tree()).model_dump(mode="json")
    manifest = {"format": 1, "recipe_name": name, "fingerprint": "f" * 64, "arms": facts, "recipe": recipe, "files": {}}
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))
    (folder.parent / "latest").symlink_to(folder.name, target_is_directory=True)
    return folder


def publish(*words: str) -> int:
    """`recontext publish`, in this process."""
    return verb.main(list(words))


def models(folder: Path, name: str = "models") -> list[dict[str, Any]]:
    """The entries of a run's list of models."""
    entries: list[dict[str, Any]] = orjson.loads((folder / "openai" / f"{name}.json").read_bytes())["models"]
    return entries


def texts_below(folder: Path) -> str:
    """Everything that was written in a folder, as one text."""
    return "".join(path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(scope="session")
def contract(shared: Path) -> Contract:
    """OpenAI's description of its API."""
    return Contract(shared / "contracts" / "openai-openapi.json")


@pytest.fixture
def server(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A fake OpenAI and a key for it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeOpenAI(contract) as fake:
        yield fake


def train(server: FakeOpenAI, output: Path, *words: str) -> int:
    """`to=openai` for the run `small`, impatient, in this process."""
    given = dict(word.split("=", 1) for word in words)
    own = {
        "to": "openai", "run": "small", "output": str(output), "model": "gpt-4.1-mini", "server.base_url": server.base_url,
        "server.lookup_seconds": "1", "wait.poll_seconds": "0.05", "wait.stall_minutes": "0.02",
    }  # fmt: skip
    return publish(*[f"{key}={value}" for key, value in (own | given).items()])


def require_bound(server: FakeOpenAI, folder: Path) -> list[Json]:
    """Every entry of the list names the job that was created with its arm's file and its seed. Returns the entries."""
    entries = models(folder)
    for entry in entries:
        job = server.jobs[entry["job"]]
        assert job["seed"] == entry["seed"]
        said = server.lines(job["training_file"])[0]["messages"][0]["content"]
        assert said == f"Tests decide: {entry['arm'].rpartition('-')[2]}."
        assert entry["model"] == (job["fine_tuned_model"] if job["status"] == "succeeded" else None)
    return entries
