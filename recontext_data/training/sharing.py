"""Trains a list of models, alone or with other processes that were given the same list.

Each model is locked while it is trained. A process takes the next one that is neither finished nor locked, and waits only
when nothing else is left: so `workers=2`, the same command in two terminals, or jobs of a cluster's queue share the work.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import PolicyError
from recontext_data.training.arguments import num_processes
from recontext_data.training.models import is_finished, read_record
from recontext_data.training.preparing import TrainingJob
from recontext_data.training.sft import TrainingInProgress, train

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen


def train_all(jobs: Sequence[TrainingJob], *, screen: "Screen") -> list[Mapping[str, Any]]:
    """The records of the models that were not there before, whoever trained them.

    Raises:
        RecontextError: of any kind; finished models stay.
    """
    # One of another config must not be found out after hours of training.
    missing = [job for job in jobs if not is_finished(job.target, job.request())]
    busy: list[TrainingJob] = []
    shown: set[str] = set()
    for job in missing:
        try:
            train(job, screen=screen, show=job.arm not in shown, wait=num_processes() > 1)
            shown.add(job.arm)
        except TrainingInProgress:
            busy.append(job)
    for job in busy:
        train(job, screen=screen, show=False)
    return [record for job in missing if (record := read_record(job.target)) is not None]


@contextmanager
def helped(words: Sequence[str], *, workers: int, verb: str = "train") -> Iterator[None]:
    """Other processes that run the same command while this one does; what they say is shown when one of them failed."""
    with tempfile.TemporaryFile("w+") as log:
        alone = [word for word in words if not word.startswith("workers=")]
        command = [sys.executable, "-m", f"recontext_data.{verb}", *alone, "workers=1"]
        helpers = [subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) for _ in range(workers - 1)]
        try:
            yield
            failed = [helper for helper in helpers if helper.wait()]
        finally:
            for helper in helpers:
                if helper.poll() is None:
                    helper.terminate()
                    helper.wait()
        if failed:
            log.seek(0)
            lines = log.read().strip().splitlines() or ["it said nothing"]
            raise PolicyError(f"workers: one of {workers} failed: {lines[-1].removeprefix('error: ')}")
