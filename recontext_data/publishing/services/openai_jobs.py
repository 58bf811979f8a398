"""Looking at the jobs of a run, and cancelling those under way: `action=status` and `action=cancel`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recontext_data.core.errors import PublishError
from recontext_data.publishing.services.ledger import Ledger
from recontext_data.publishing.services.openai_api import Server
from recontext_data.publishing.services.openai_config import OpenAIOptions
from recontext_data.publishing.services.openai_plan import ARM, FINGERPRINT, LIVE, SEED, metadata_of
from recontext_data.publishing.sources import JobSource

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob

    from recontext_data.reports.screen import Screen


async def status(source: JobSource, options: OpenAIOptions, server: Server, screen: "Screen") -> int:
    """Prints every job that the server has for this run; nothing is written."""
    jobs = await jobs_of(source, options, server)
    _show(jobs, screen)
    return 0


async def cancel(source: JobSource, options: OpenAIOptions, server: Server, screen: "Screen") -> int:
    """Cancels the run's jobs that are under way; those of some arms and seeds where they are named."""
    cancelled, failed = [], []
    # A train that waits for these jobs may hold the ledger, and go on adding to it.
    ledger = None if options.dry_run else Ledger(source.folder, repair=False)
    for job in await jobs_of(source, options, server):
        if job.status not in LIVE:
            continue
        if ledger is None:
            print(f"would cancel {job.id}")
            continue
        ledger.add("cancel", job=job.id)
        try:
            cancelled.append(await server.cancel(job.id))
            ledger.add("cancelled", job=job.id)
        except PublishError as error:  # the others are cancelled all the same
            failed.append(str(error))
    _show(cancelled, screen)
    for told in failed:
        screen.error(PublishError(told))
    return 1 if failed else 0


async def jobs_of(source: JobSource, options: OpenAIOptions, server: Server) -> "list[FineTuningJob]":
    """The server's jobs that were created for this run, by arm, seed and time."""
    arms, seeds = set(source.arms(options.arms)), {str(seed) for seed in options.seeds}
    found = []
    for job in await server.jobs():
        facts = metadata_of(job)
        if facts.get(FINGERPRINT) != source.fingerprint or facts.get(ARM) not in arms:
            continue
        if not seeds or facts.get(SEED) in seeds:
            found.append(job)
    return sorted(found, key=lambda job: (metadata_of(job)[ARM], int(metadata_of(job)[SEED]), job.created_at))


def _show(jobs: "Sequence[FineTuningJob]", screen: "Screen") -> None:
    rows = [[metadata_of(job)[ARM], metadata_of(job)[SEED], job.status, job.id, job.fine_tuned_model or "-"] for job in jobs]
    if rows:
        screen.table(["arm", "seed", "status", "job", "model"], rows)
    else:
        print("no jobs")
