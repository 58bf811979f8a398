"""A whole build on a disk that is full, and over a store that cannot be written: one line, and nothing acknowledged is lost.

On file systems of their own, which only root can mount. tests/test_replies_scale.py does the same to the store alone, and
tests/test_build.py to every file of a run by another way.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kills import prompts_stored
from recontext_data.core.records import content_hash
from tests.fault_server import Faults, FaultServer
from tests.helpers import (
    arm_hashes,
    build_process,
    built,
    candidates,
    error_line,
    files_below,
    problem_rows,
    write_problems,
    write_recipe,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a file system")
CONCURRENCY = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def recipe_for(folder: Path, server: FaultServer, *, tasks: int) -> Path:
    problems = folder / "problems.jsonl"
    write_problems(problems, problem_rows(tasks))
    return write_recipe(
        folder,
        environment={"kind": "code_mc", "problems": str(problems), "split": "all", "tasks": None},
        policy={
            "kind": "openai",
            "model": "m",
            "base_url": server.base_url,
            "api_key_env": "",
            "max_concurrency": CONCURRENCY,
        },
        sampler={"n": 2},
        limits={"max_invalid_rate": 1.0},
    )


def test_a_disk_that_fills_while_sampling_ends_the_build_and_what_is_on_it_is_not_bought_again(
    tmp_path: Path, disk: Path
) -> None:
    with FaultServer(Faults(latency_seconds=0.01)) as server:
        recipe = recipe_for(tmp_path, server, tasks=120)
        filler = disk / "filler"
        filler.write_bytes(b"x" * 3_020_000)
        done = build_process(f"recipe={recipe}", f"output={disk}")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert (
            last.startswith(f"error: {disk / 'replies'}") and "No space left on device; what was there is still there" in last
        )
        assert "Traceback" not in done.stderr
        there, sent = prompts_stored(disk), len(server.seen)
        assert 10 < len(there) < 120 and sent - len(there) <= CONCURRENCY, "only what was under way is lost"

        filler.unlink()
        made = built(recipe, disk)
        again = {content_hash(body["messages"]) for body in server.bodies[sent:]}
        assert not again & there and len(again) == 120 - len(there)
        assert made["requests"]["found"] == 2 * len(there)
        built(recipe, tmp_path / "calm")
    assert arm_hashes(disk, cards=False) == arm_hashes(tmp_path / "calm", cards=False)
    assert candidates(disk).equals(candidates(tmp_path / "calm"))


def test_a_store_that_cannot_be_written_is_found_out_before_anything_is_sent(tmp_path: Path, disk: Path) -> None:
    output = tmp_path / "out"
    with FaultServer(Faults()) as server:
        recipe = recipe_for(tmp_path, server, tasks=6)
        output.mkdir()
        (output / "replies").symlink_to(disk)
        built(recipe, output)
        assert len(server.seen) == 6
        before = files_below(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        done = build_process(f"recipe={recipe}", f"output={output}", "sampler.n=4")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert error_line(last).startswith(f"error: {output / 'replies'}: cannot be written: Read-only file system")
        assert len(server.seen) == 6, "nothing was sent"
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert files_below(disk) == before
        assert built(recipe, output, "sampler.n=4")["requests"]["found"] == 12
    assert len(server.seen) == 12
