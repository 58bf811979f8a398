"""`recontext publish to=openai run=RUN model=MODEL`: rows to a fine-tuning API, a job per arm and seed, and their models.

    recontext publish to=openai run=code_mc model=gpt-4.1-mini seeds=0,1 dry_run=true     # rows, tokens, cost; nothing is sent
    recontext publish to=openai run=code_mc model=gpt-4.1-mini seeds=0,1 job.epochs=1
    recontext publish to=openai run=code_mc action=status
    recontext publish to=openai data=mine.jsonl model=gpt-4.1-mini                         # a file in OpenAI's format

<run>/openai/ then has ledger.jsonl, preflight.jsonl, files/ and models.json.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.core.errors import InputError, PublishError, SetupError
from recontext_data.policies.openai.chat import OPENAI
from recontext_data.publishing.services.openai_config import OpenAIOptions
from recontext_data.publishing.services.openai_report import report_outcomes, report_plan, report_rows, require_budget
from recontext_data.publishing.sources import FileSource, JobSource, RunSource

if TYPE_CHECKING:
    from recontext_data.publishing.runs import FinishedRun
    from recontext_data.publishing.services.openai_api import Server
    from recontext_data.publishing.services.openai_files import DataFile, Preflight, Report
    from recontext_data.publishing.services.openai_plan import JobSpec
    from recontext_data.reports.screen import Screen

OPTIONS = OpenAIOptions


def publish(run: "FinishedRun | None", options: OpenAIOptions, *, output: Path = Path()) -> int:
    """Checks rows, sends files, creates jobs, waits for them; 0 where every model is there.

    Raises:
        RecontextError: of any kind; what was sent is in the ledger, and the same command continues.
    """
    from recontext_data.reports.screen import Screen

    source = _source(run, options, output)
    check_suffixes(source, options)
    screen = Screen()
    if options.action in ("status", "cancel"):
        from recontext_data.publishing.services.openai_jobs import cancel, status

        act = cancel if options.action == "cancel" else status
        return asyncio.run(_with_server(options, lambda server: act(source, options, server, screen)))
    if options.dry_run:
        return asyncio.run(_dry_run(source, options, screen))
    with locked(source.folder):
        return asyncio.run(_with_server(options, lambda server: _train(source, options, server, screen)))


def _source(run: "FinishedRun | None", options: OpenAIOptions, output: Path) -> JobSource:
    if run is not None and options.data:
        raise InputError(f"data={','.join(options.data)}: stands in place of run=; give one of them")
    if run is not None:
        return RunSource(run)
    return FileSource(tuple(Path(name).expanduser() for name in options.data), output)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder: two at once would create the same jobs.

    Raises:
        PublishError: somebody else holds it.
    """
    from filelock import FileLock, Timeout

    from recontext_data.store.files import writing

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise PublishError(
            f"{folder}: another publish is at work here; wait for it, or look with recontext publish action=status"
        ) from None


async def _with_server(options: OpenAIOptions, act: "Callable[[Server], Awaitable[int]]") -> int:
    from recontext_data.publishing.services.openai_api import Server

    server = Server(options.server)
    try:
        return await act(server)
    finally:
        await server.close()


async def _dry_run(source: JobSource, options: OpenAIOptions, screen: "Screen") -> int:
    files, preflight = await prepare(source, options, server=None, report=None)
    report_rows(preflight, screen, path=None)
    report_plan(source, files, options, screen)
    if moderated(options):
        screen.note("texts are moderated when the command is run without dry_run")
    if options.on_bad == "fail":
        preflight.fail("")
    return 0


async def _train(source: JobSource, options: OpenAIOptions, server: "Server", screen: "Screen") -> int:
    from recontext_data.publishing.services.ledger import Ledger
    from recontext_data.publishing.services.openai_api import NotAllowed
    from recontext_data.publishing.services.openai_files import Report
    from recontext_data.publishing.services.openai_models import ModelList
    from recontext_data.publishing.services.openai_train import Trainer
    from recontext_data.publishing.services.openai_watch import JobWatch

    with Report(source.folder) as report:
        files, preflight = await prepare(source, options, server=server, report=report)
    report_rows(preflight, screen, path=report.path)
    if options.on_bad == "fail":
        preflight.fail(f", all of them in {report.path},")
    if options.action == "check":
        return 0
    cost = report_plan(source, files, options, screen)
    require_budget(cost, options)
    models = ModelList(source.folder, name=options.models, base_url=options.server.base_url)
    planned = specs(source, files, options)
    for spec in planned:
        models.require_same(spec)
    with JobWatch(planned) as watch:
        trainer = Trainer(server, Ledger(source.folder), models, options=options, watch=watch)
        try:
            outcomes = await trainer.run(planned)
        except NotAllowed as error:
            raise SetupError(f"{error}; {alternatives(source)}") from None
    report_outcomes(outcomes, screen, path=models.path)
    return 0 if all(one.model for one in outcomes) or not options.wait.end else 1


def check_suffixes(source: JobSource, options: OpenAIOptions) -> None:
    """Raises RecipeError, before a row is read, where an arm is unknown or a model's name would be too long."""
    from recontext_data.publishing.services.openai_plan import suffix_of

    for arm in source.arms(options.arms):
        for seed in options.seeds or source.seeds:
            suffix_of(options.job, recipe=source.name, arm=arm, seed=seed)


def alternatives(source: JobSource) -> str:
    """What to do where an organisation may not create fine-tuning jobs."""
    return (
        "this organisation may not create fine-tuning jobs here (OpenAI's own are open only to organisations that use "
        "fine-tuned models, and to none from 2027-01-06); train an open model instead: "
        f"recontext train recipe={source.name} training.method=qlora, or take the data elsewhere: "
        f"recontext publish to=file format=sharegpt run={source.name}"
    )


def moderated(options: OpenAIOptions) -> bool:
    """Whether texts are shown to the moderation endpoint."""
    wish = options.check.moderation
    return wish == "on" or (wish == "auto" and options.server.base_url.rstrip("/") == OPENAI)


async def prepare(
    source: JobSource, options: OpenAIOptions, *, server: "Server | None", report: "Report | None"
) -> "tuple[dict[tuple[str, str], DataFile], Preflight]":
    """Checks the rows of every arm and split; (arm, split) -> file. Without a report nothing is written."""
    from recontext_data.publishing.services.moderation import Moderator
    from recontext_data.publishing.services.openai_files import Preflight, check_size, counter, remove_leftovers
    from recontext_data.publishing.services.preflight import RowLimits

    checks = options.check
    moderator = None
    if server is not None and moderated(options):
        moderator = Moderator(
            lambda texts: server.moderate(texts, model=checks.moderation_model),
            folder=source.folder,
            model=checks.moderation_model,
        )
    preflight = Preflight(
        RowLimits(checks.max_tokens),
        moderator,
        counter(checks.tokenizer),
        drop_duplicates=checks.duplicates == "bad",
        report=report,
    )
    folder = source.folder / "files" if report else None
    if folder:
        remove_leftovers(folder)
    files: dict[tuple[str, str], DataFile] = {}
    for arm in source.arms(options.arms):
        for split in source.splits(arm):
            if split == "validation" and not options.job.validation:
                continue
            before, rows = preflight.dropped.total(), source.num_rows(arm, split)
            examples = source.examples(arm, split, method=options.job.method)
            file = await preflight.write(examples, arm=arm, split=split, folder=folder)
            if rows is not None:
                preflight.unpaired += rows - preflight.rows_in[f"{arm}.{split}"]
            if options.on_bad == "drop" or not preflight.dropped:
                check_size(file, preflight.dropped.total() - before)
            if file.num_rows:
                files[arm, split] = file
    return files, preflight


def specs(source: JobSource, files: "Mapping[tuple[str, str], DataFile]", options: OpenAIOptions) -> "list[JobSpec]":
    """The jobs of the plan, arm by arm."""
    from recontext_data.publishing.services.openai_plan import JobSpec

    return [
        JobSpec(
            recipe=source.name,
            fingerprint=source.fingerprint,
            arm=arm,
            seed=seed,
            model=options.model or "",
            config=options.job,
            train=files[arm, "train"],
            validation=files.get((arm, "validation")),
        )
        for arm in dict.fromkeys(arm for arm, split in files if split == "train")
        for seed in options.seeds or source.seeds
    ]
