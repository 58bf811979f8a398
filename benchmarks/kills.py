"""kill -9 in the middle of sampling: is a reply that is on disk ever bought again? `python benchmarks/kills.py [kills]`

A build samples from tests/fault_server.py (250 ms, 16 requests at a time), is killed at a random moment, and started again,
30 times over in one folder; then it is left to end. The server has every request that was ever sent. Printed beside what
must hold: requests for replies that were on disk (0), requests sent twice (those that were under way at the kills, and no
other, and at each kill no more than may be sent at once), and whether the datasets are those of a build that was left
alone. Under way is what was sent and is not on disk: a reply that has come keeps its request's place until it is synced.
Once with one completion a prompt, once with four in one request. Takes about two minutes.
"""

import itertools
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tests/, which are no part of the package

from recontext_data.core.records import content_hash  # noqa: E402
from recontext_data.store.replies import ReplyStore  # noqa: E402
from tests import helpers  # noqa: E402
from tests.fault_server import Faults, FaultServer  # noqa: E402

LATENCY_SECONDS = 0.25
CONCURRENCY = 16
TASKS_PER_KILL = 60
"""More than one round can sample, so that every kill falls into sampling."""


@dataclass
class Sums:
    """What the server and the disk say after all rounds. One request a prompt, so they go by their prompts."""

    wanted: int = 0
    sent: int = 0
    """Requests, all rounds together."""
    resent_though_stored: int = 0
    """Requests for completions that were on disk when the build began again: what must never happen."""
    under_way: list[int] = field(default_factory=list)
    """At each kill, requests that this round had sent and whose replies were not on disk."""
    is_same: bool = False
    """Whether the datasets and the candidates are those of the build that was left alone, byte for byte."""

    @property
    def resent(self) -> int:
        """Requests for completions that had been asked for before."""
        return self.sent - self.wanted

    @property
    def holds(self) -> bool:
        """Whether all of it is as it must be."""
        few = max(self.under_way) <= CONCURRENCY and self.resent == sum(self.under_way)
        return few and not self.resent_though_stored and self.is_same


def run(folder: Path, *, kills: int, dice: random.Random, n: int = 1) -> Sums:
    """Builds with so many kills, and once without, in `folder`; n completions a prompt, in one request."""
    count = TASKS_PER_KILL * (kills + 1)
    helpers.write_problems(folder / "problems.jsonl", _problems(count))
    recipe = _recipe(folder, n=n, concurrency=CONCURRENCY)
    sums = Sums(wanted=count)
    with FaultServer(Faults(latency_seconds=LATENCY_SECONDS)) as server:
        words = [f"recipe={recipe}", f"policy.base_url={server.base_url}"]
        output, calm = folder / "killed", folder / "calm"
        for round_ in range(kills + 1):
            if round_ == kills:
                _recipe(folder, n=n, concurrency=256)  # nobody kills any more: be quick
            stored, mark = prompts_stored(output), len(server.seen)
            process = helpers.start_build(*words, f"output={output}")
            if round_ < kills:
                _wait_for_request(server, mark)
                time.sleep(dice.uniform(0.0, 3.5 * LATENCY_SECONDS))
                process.kill()
            _, said = process.communicate(timeout=120)
            assert process.returncode == (-9 if round_ < kills else 0), said
            time.sleep(0.1)  # what the dead process had sent reaches the server
            asked = [content_hash(one.body["messages"]) for one in server.seen[mark:]]
            sums.resent_though_stored += len(stored.intersection(asked))
            if round_ < kills:
                sums.under_way.append(len(set(asked) - prompts_stored(output)))
        sums.sent = len(server.seen)
        assert helpers.build_process(*words, f"output={calm}").returncode == 0
    sums.is_same = _made(output) == _made(calm)
    return sums


def prompts_stored(output: Path) -> set[str]:
    """Hashes of the prompts whose completions are on disk."""
    asked = ReplyStore(output / "replies").scan().select("asked").collect()["asked"]
    return {orjson.loads(text)["prompt"] for text in asked}


def _problems(count: int) -> list[dict[str, Any]]:
    """So many problems, each with a text of its own."""
    rows = itertools.cycle(helpers.problem_rows(10**6))
    return [
        row | {"problem_id": f"{row['problem_id']}/{i}", "statement": f"{row['statement']} (No. {i})"}
        for i, row in zip(range(count), rows, strict=False)
    ]


def _recipe(folder: Path, *, n: int, concurrency: int) -> Path:
    return helpers.write_recipe(
        folder,
        environment={"kind": "code_mc", "problems": str(folder / "problems.jsonl"), "split": "all", "tasks": None},
        policy={"kind": "openai", "model": "m", "api_key_env": "", "max_concurrency": concurrency},
        sampler={"n": n},
        limits={"max_invalid_rate": 1.0},  # the server speaks of who asked, and chooses nothing
    )


def _wait_for_request(server: FaultServer, mark: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.seen) == mark:
        assert time.monotonic() < deadline, "the build sends nothing"
        time.sleep(0.002)


def _made(output: Path) -> dict[str, object]:
    run_folder = helpers.run_folder(output)
    return {**helpers.arm_hashes(output), "candidates": (run_folder / "candidates.parquet").read_bytes()}


def main(kills: int) -> int:
    """Prints the sums; 1 if something that must hold does not."""
    broken = 0
    for n in (1, 4):
        with tempfile.TemporaryDirectory() as place:
            started = time.monotonic()
            sums = run(Path(place), kills=kills, dice=random.Random(n), n=n)
        _print(sums, n=n, kills=kills, seconds=time.monotonic() - started)
        broken |= not sums.holds
    return broken


def _print(sums: Sums, *, n: int, kills: int, seconds: float) -> None:
    print(
        f"{kills} kills while sampling {sums.wanted:,} prompts, n={n}, {CONCURRENCY} requests at a time, 250 ms each, "
        f"in {seconds:.0f} s"
    )
    print(f"sent again though on disk: {sums.resent_though_stored} (must be 0)")
    print(
        f"sent again: {sums.resent}, of {sum(sums.under_way)} under way at the kills; {sums.sent:,} requests in all; "
        f"under way at one kill at most {max(sums.under_way)} (may be {CONCURRENCY})"
    )
    print(f"datasets and candidates byte for byte those of the build left alone: {sums.is_same}", flush=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 30))
