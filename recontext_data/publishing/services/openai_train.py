"""Creates the jobs of a plan and waits for them: each once, several at the same time, every model under its arm and seed.

Before a job is created the ledger says so, and after it; a job whose answer was lost, in this process or in one that was
killed, is found among the server's by its key. A job that fails, is cancelled or stalls ends its own wait and no other's.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import PublishError
from recontext_data.publishing.services.ledger import Ledger
from recontext_data.publishing.services.openai_api import Lost, NotAllowed, Server, ServerBusy
from recontext_data.publishing.services.openai_config import OpenAIOptions
from recontext_data.publishing.services.openai_models import ModelList
from recontext_data.publishing.services.openai_plan import ENDED_BADLY, LIVE, JobSpec, find_job
from recontext_data.publishing.services.openai_upload import TRIES, Uploader, looked_for, pause_for
from recontext_data.publishing.services.openai_watch import JobWatch

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob

MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """What became of one job."""

    spec: JobSpec
    status: str
    """The server's word, or `stalled`, or `not created`."""
    job_id: str | None = None
    model: str | None = None
    reason: str = ""
    """Why there is no model."""
    loss: float | None = None
    """The last training loss that the server told."""


class Trainer:
    """Brings a plan to its end."""

    def __init__(self, server: Server, ledger: Ledger, models: ModelList, *, options: OpenAIOptions, watch: JobWatch) -> None:
        self._server, self._ledger, self._models, self._options, self._watch = server, ledger, models, options, watch
        self._uploader = Uploader(server, ledger, options.server)
        self._jobs: list[FineTuningJob] = []

    async def run(self, specs: Sequence[JobSpec]) -> list[JobOutcome]:
        """All jobs, in the order of the plan.

        Raises:
            NotAllowed: the organisation may not create jobs; what is under way goes on at the server.
        """
        self._jobs = await self._server.jobs()
        gate = asyncio.Semaphore(self._options.wait.at_once)
        results: dict[int, JobOutcome] = {}

        async def one(place: int, spec: JobSpec) -> None:
            async with gate:
                results[place] = await self._one(spec)

        try:
            async with asyncio.TaskGroup() as group:
                for place, spec in enumerate(specs):
                    group.create_task(one(place, spec))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [results[place] for place in range(len(specs))]

    async def _one(self, spec: JobSpec) -> JobOutcome:
        try:
            job, attempt = await self._ensured(spec)
        except NotAllowed:
            raise
        except PublishError as error:
            self._watch.say(spec, "not created")
            return JobOutcome(spec=spec, status="not created", reason=str(error))
        self._models.put(spec, job, attempt=attempt)
        return await self._ended(spec, job, attempt)

    async def _ensured(self, spec: JobSpec) -> "tuple[FineTuningJob, int]":
        """The job for a spec, found or created, and which attempt it is."""
        self._watch.say(spec, "files")
        train = await self._uploader.file_id(spec.train)
        validation = await self._uploader.file_id(spec.validation) if spec.validation else None
        files, attempt, latest = (train, validation), 0, None
        while (job := await self._found(spec, files, attempt)) is not None:
            latest = (job, attempt)
            attempt += 1
        if latest is not None and not (self._options.job.again and latest[0].status in ENDED_BADLY):
            return latest
        return await self._created(spec, files, attempt), attempt

    async def _found(self, spec: JobSpec, files: tuple[str, str | None], attempt: int) -> "FineTuningJob | None":
        """The job of an attempt, if it was ever created: in the list, by the ledger, or showing up after a lost answer."""
        key = spec.key(attempt)
        begun = self._ledger.open_since("create", "created", "refused", key=key)
        others = begun["others"] if begun else [job.id for job in self._jobs]
        job = find_job(spec, self._jobs, attempt=attempt, files=files, others=others)
        if job is None and (known := self._ledger.last("created", key=key)):
            job = await self._known(known["job"])
        if job is None and begun:
            until = begun["time"] + self._options.server.lookup_seconds
            job = await looked_for(lambda: self._listed(spec, files, attempt, others), until=until)
        if job is not None and begun:
            self._ledger.add("created", key=key, job=job.id, arm=spec.arm, seed=spec.seed, found=True)
        return job

    async def _known(self, job_id: str) -> "FineTuningJob":
        """A job that the ledger says was created: never taken for lost because the server has a bad moment."""
        for turn in range(TRIES):
            if (job := await self._server.job(job_id)) is not None:
                return job
            await pause_for(turn, None)
        raise PublishError(f"{self._server.name}: does not say how job {job_id} is; run again")

    async def _created(self, spec: JobSpec, files: tuple[str, str | None], attempt: int) -> "FineTuningJob":
        key, told = spec.key(attempt), ""
        others = [job.id for job in self._jobs if job.training_file == files[0]]
        request = spec.request(*files, attempt=attempt)
        for turn in range(TRIES):
            self._watch.say(spec, "creating")
            self._ledger.add(
                "create", key=key, arm=spec.arm, seed=spec.seed, attempt=attempt, training_file=files[0], others=others
            )
            wish, job = None, None
            try:
                job = await self._server.create_job(request)
            except Lost as error:
                told = str(error)
                until = time.time() + self._options.server.lookup_seconds
                job = await looked_for(lambda: self._listed(spec, files, attempt, others), until=until)
            except ServerBusy as error:
                told, wish = str(error), error.seconds
            except PublishError:
                self._ledger.add("refused", key=key, arm=spec.arm, seed=spec.seed)
                raise
            if job is not None:
                self._ledger.add("created", key=key, job=job.id, arm=spec.arm, seed=spec.seed)
                return job
            await pause_for(turn, wish)
        raise PublishError(f"{told}; tried {TRIES} times; run again, and a job that was created is found")

    async def _listed(
        self, spec: JobSpec, files: tuple[str, str | None], attempt: int, others: list[str]
    ) -> "FineTuningJob | None":
        return find_job(spec, await self._server.jobs(), attempt=attempt, files=files, others=others)

    async def _ended(self, spec: JobSpec, job: "FineTuningJob", attempt: int) -> JobOutcome:
        """Waits until the job has ended or is given up. News count: an event, another status."""
        seen: set[str] = set()
        heard, status = time.monotonic(), ""
        wait = self._options.wait
        while True:
            news = await self._server.events(job.id, seen)
            seen.update(event.id for event in news)
            if news or job.status != status:
                heard, status = time.monotonic(), job.status
            self._watch.hear(spec, job, news)
            if job.status not in LIVE:
                return await self._closed(spec, job, attempt)
            if not wait.end:
                return self._outcome(spec, job, "is under way; the same command waits for it")
            if time.monotonic() - heard > wait.stall_minutes * MINUTE:
                self._ledger.add("stalled", job=job.id, arm=spec.arm, seed=spec.seed, status=job.status)
                told = f"no news for {wait.stall_minutes:g} minutes while {job.status}; the same command waits again"
                self._models.put(spec, job, attempt=attempt, stalled=True, losses=self._watch.losses(spec))
                return self._outcome(spec, job, told, status="stalled")
            await asyncio.sleep(wait.poll_seconds)
            job = await self._server.job(job.id) or job

    async def _closed(self, spec: JobSpec, job: "FineTuningJob", attempt: int) -> JobOutcome:
        points: list[dict[str, Any]] = []
        if job.status == "succeeded":
            points = [
                {"model": point.fine_tuned_model_checkpoint, "step": point.step_number, "metrics": point.metrics.model_dump()}
                for point in await self._server.checkpoints(job.id)
            ]
            points.sort(key=lambda point: point["step"])
        self._models.put(spec, job, attempt=attempt, checkpoints=points, losses=self._watch.losses(spec))
        self._ledger.add("ended", job=job.id, arm=spec.arm, seed=spec.seed, status=job.status, model=job.fine_tuned_model)
        reason = {
            "failed": job.error.message if job.error else "",
            "cancelled": "it was cancelled; job.again=true creates another",
            "succeeded": "",
        }
        return self._outcome(spec, job, reason.get(job.status) or ("" if job.status == "succeeded" else "no reason was given"))

    def _outcome(self, spec: JobSpec, job: "FineTuningJob", reason: str, *, status: str = "") -> JobOutcome:
        losses = self._watch.losses(spec)
        return JobOutcome(
            spec=spec, status=status or job.status, job_id=job.id,
            model=job.fine_tuned_model if job.status == "succeeded" else None,
            reason=self._server.line(reason), loss=losses[-1][1] if losses else None,
        )  # fmt: skip
