"""Trains the models of a recipe: one for each chosen arm and seed. Missing datasets are built first."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock

from recontext_data.config.loading import Loaded
from recontext_data.config.options import command_line
from recontext_data.contexts.arms import folder_name
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.pipeline.build import build
from recontext_data.pipeline.preparation import prepared
from recontext_data.reports.screen import Screen
from recontext_data.store.run_folder import RunFolder
from recontext_data.training.arguments import check_extra, is_main, micro_batch, num_processes
from recontext_data.training.base import find_base
from recontext_data.training.device import has_cuda, say_device
from recontext_data.training.jobs import job_of
from recontext_data.training.kl import require_one_process
from recontext_data.training.libraries import quiet, require_libraries
from recontext_data.training.models import is_finished
from recontext_data.training.preparing import TrainingJob
from recontext_data.training.report import trained_in, write_report
from recontext_data.training.sharing import helped, train_all
from recontext_data.training.watching import closing_table


def train_arms(
    loaded: Loaded,
    *,
    output: Path = Path(),
    arms: Sequence[str] = (),
    models: str = "models",
    workers: int = 1,
    dry_run: bool = False,
    words: Sequence[str] = (),
    build_command: str = "",
) -> list[Mapping[str, Any]]:
    """Trains what is asked for and is not there yet; the seeds are the recipe's.

    `arms`: names or pairs; none means all. `models`: the folder in the run that the models go to. `words`: the options of the
    command, for the other workers and the report. Returns the records of the models that were not there before.

    Raises:
        RecontextError: of any kind; finished models stay, and the same call continues.
    """
    config, screen = loaded.recipe.training, Screen() if is_main() else Screen(out=StringIO(), err=StringIO())
    require_libraries(config.method)
    micro_batch(config)
    require_one_process(config)
    if config.extra:  # before the datasets are built, and paid for
        check_extra(config.extra, cuda=has_cuda())
    wanted = folders_of_arms(loaded, arms)
    run, manifest = _built(loaded, output=output, dry_run=dry_run, command=build_command, screen=screen)
    jobs = _jobs(loaded, run, manifest, wanted=wanted, models=models) if manifest else []
    if dry_run:
        _show_plan(jobs, screen)
        return []
    say_device(config, screen)
    # The others find the datasets built: they train, and build nothing.
    with helped(words, workers=min(workers, len(jobs)) if num_processes() == 1 else 1):
        trained = train_all(jobs, screen=screen)
    if is_main():
        assert manifest is not None
        command = command_line("train", words, without=["output", "workers"])
        report = _report(jobs, run, manifest, models=models, command=command)
        _closing(jobs, trained, report, screen)
    return trained


def folders_of_arms(loaded: Loaded, names: Sequence[str]) -> list[str]:
    """The folders of the arms that are asked for, in the recipe's order."""
    recipe = loaded.recipe
    folders = {folder_name(arm, recipe.contexts): arm for arm in recipe.arms}
    by_pair = {arm.pair: folder for folder, arm in folders.items()}
    found = []
    for name in names:
        pair = " -> ".join(side.strip() for side in name.split("->"))
        if name not in folders and pair not in by_pair:
            known = did_you_mean(pair if "->" in name else name, [*folders, *by_pair])
            raise RecipeError(
                f"arms={name}: the recipe has no such arm; {known} (to declare others, write arms='[{pair}]' as in build)"
            )
        found.append(name if name in folders else by_pair[pair])
    return [folder for folder in folders if folder in found] if names else list(folders)


def _built(
    loaded: Loaded, *, output: Path, dry_run: bool, command: str, screen: Screen
) -> tuple[Path, Mapping[str, Any] | None]:
    """The run's folder and manifest; builds what is not there. In a dry run the manifest may be None."""
    job = prepared(loaded.name, loaded.recipe, output=output, screen=screen)
    run = RunFolder(output, recipe=loaded.name, fingerprint=job.fingerprint)
    if run.manifest() is None and is_main() and not dry_run:
        screen.note(f"the datasets are not built yet; building them first: {command}")
        build(job, output=output, screen=screen, command=command)
    if num_processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
    return run.path, run.manifest()


def _jobs(loaded: Loaded, run: Path, manifest: Mapping[str, Any], *, wanted: Sequence[str], models: str) -> list[TrainingJob]:
    base = find_base(loaded.recipe)
    return [
        job_of(loaded, run, manifest, arm=name, seed=seed, base=base, models=models)
        for name in wanted
        for seed in loaded.recipe.training.seeds
    ]


def _show_plan(jobs: Sequence[TrainingJob], screen: Screen) -> None:
    there = [is_finished(job.target, job.request()) for job in jobs]
    models = [
        {"arm": job.arm, "seed": job.seed, "is_there": is_there, "method": job.config.method, "base": job.base.folder.name}
        for job, is_there in zip(jobs, there, strict=True)
    ]
    if screen.result("training plan", {"is_built": bool(jobs), "models": models}):
        return
    screen.line(
        "would train (nothing is written):" if jobs else "would build the datasets first, and then train each arm and seed"
    )
    for one in models:
        state = "there already" if one["is_there"] else f"{one['method']}, {one['base']}"
        screen.line(f"  {one['arm']}  seed {one['seed']}  {state}")


def _report(jobs: Sequence[TrainingJob], run: Path, manifest: Mapping[str, Any], *, models: str, command: str) -> Path:
    """The page about every model that is there by now, whoever trained it."""
    folder = run / models
    # Read and written under one lock: else the page of the process that read first could replace that of the last.
    with quiet(), FileLock(folder / ".report.lock"):
        found = trained_in(run, manifest, models=models, base=jobs[0].base)
        return write_report(found, folder=folder, command=command)


def _closing(jobs: Sequence[TrainingJob], records: Sequence[Mapping[str, Any]], report: Path, screen: Screen) -> None:
    folder, skipped = jobs[0].target.parents[1], len(jobs) - len(records)
    if screen.result("training", {"folder": folder, "report": report, "models": records, "there_already": skipped}):
        return
    if records:
        closing_table(records, screen)
    if skipped:
        screen.note(f"{skipped} of {len(jobs)} models were there already")
    screen.line(f"models    {folder}")
    screen.line(f"report    {report}")
