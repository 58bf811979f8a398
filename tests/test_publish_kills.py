"""kill -9 at 20 random moments of upload-and-train over 3 arms and 2 seeds, started again each time."""

import random
import time
from pathlib import Path

from tests.fake_openai import Conduct, FakeOpenAI
from tests.publish_children import start
from tests.publish_world import ARMS, KEY, contract, make_run, require_bound, server, texts_below

__all__ = ["contract", "server"]  # fixtures

KILLS = 20
SLOW = ("create_file", "create_job", "add_part", "complete_upload")


def test_no_file_and_no_job_twice_and_every_model_under_its_seed(server: FakeOpenAI, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    dice = random.Random(20)
    # Slow where it matters, so that kills fall between what the server has done and what the ledger says.
    server.conduct = Conduct(job_seconds=1.5, delay=lambda step: dice.uniform(0.05, 0.3) if step in SLOW else 0.0)
    words = [
        "to=openai", "run=small", f"output={tmp_path}", f"server.base_url={server.base_url}", "model=gpt-4.1-mini",
        "seeds=0,1", "wait.poll_seconds=0.1", "wait.at_once=6", "server.lookup_seconds=2",
        "server.single_file_mb=0.002", "server.part_mb=0.001",
    ]  # fmt: skip
    open_steps, said = 0, tmp_path / "said"
    for _ in range(KILLS):
        target = len(server.log) + dice.randint(1, 12)
        process = start(words, str(said))
        while len(server.log) < target and process.is_alive():
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.2))
        process.kill()
        process.join(timeout=60)
        assert process.exitcode in (-9, 0), said.read_text()
        open_steps += _open_steps(folder)
    process = start(words, str(said))
    process.join(timeout=120)
    assert process.exitcode == 0, said.read_text()
    names = [stored.facts["filename"] for stored in server.files.values()]
    assert len(names) == len(set(names)) == 6
    keys = [job["metadata"]["recontext_key"] for job in server.jobs.values()]
    assert len(keys) == len(set(keys)) == 6
    entries = require_bound(server, folder)
    assert [(entry["arm"], entry["seed"]) for entry in entries] == sorted((arm, seed) for arm in ARMS for seed in (0, 1))
    assert all(entry["status"] == "succeeded" for entry in entries)
    assert KEY not in texts_below(folder)
    assert open_steps > 0, "no kill fell between a step and the ledger's word that it was done: the test proves nothing"


def _open_steps(folder: Path) -> int:
    """Uploads and creations that are begun in the ledger and not ended: where the kill fell."""
    from recontext_data.publishing.services.ledger import Ledger

    ledger = Ledger(folder / "openai")
    names = {entry["name"] for entry in ledger.entries if entry["step"] == "upload"}
    keys = {entry["key"] for entry in ledger.entries if entry["step"] == "create"}
    return sum(ledger.open_since("upload", "uploaded", name=name) is not None for name in names) + sum(
        ledger.open_since("create", "created", key=key) is not None for key in keys
    )
