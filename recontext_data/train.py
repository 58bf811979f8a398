"""Trains a model on each arm of a recipe, for each seed: `python -m recontext_data.train recipe=code_mc [key=value ...]`.

    recontext train recipe=code_mc seeds=0,1,2
    recontext train recipe=code_mc arms='default -> hack' seeds=3      # one model: for a cluster's queue
    accelerate launch --config_file recontext_data/training/accelerate/fsdp.yaml -m recontext_data.train recipe=mine.yaml

What is not built yet is built first; what is trained already is left alone.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.cli import Arguments, guarded, parse, seed_list
from recontext_data.config.loading import Loaded, load
from recontext_data.core.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen
    from recontext_data.training.preparing import TrainingJob

OPTIONS = {
    "arms": (
        "names",
        "some of the recipe's arms, by name or pair: arms='default -> hack'; in [brackets] the recipe's own list, as in build",
    ),
    "seeds": ("numbers", "0,1,2 or 0-9; in place of training.seeds"),
    "workers": ("number", "processes that share the models among them; on a CPU one per core; 1"),
    "models": ("text", "the folder in the run that the models go to, to keep several trainings of one arm apart; `models`"),
}


MAX_WORKERS = 64


@dataclass(frozen=True)
class Chosen:
    """What the verb's own options say."""

    arms: Sequence[str] = ()
    """Empty: all."""
    seeds: Sequence[int] = ()
    """Empty: the recipe's."""
    models: str = "models"
    workers: int = 1


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    given = parse(words)
    arguments, chosen = take_out(given)
    if arguments.help:
        from recontext_data.config.help import verb_help

        return verb_help("train", arguments, section="training", own=OPTIONS)
    if arguments.recipe is None:
        raise RecipeError(
            "recipe: missing; write recipe=NAME or recipe=path/to/mine.yaml (`recontext build` alone lists the recipes)"
        )
    loaded = load(arguments.recipe, arguments.overrides)
    return train(loaded, arguments, chosen, words=words)


def take_out(arguments: Arguments) -> tuple[Arguments, Chosen]:
    """The verb's own options, and the arguments without them."""
    rest: list[str] = []
    found: dict[str, Any] = {}
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key == "arms" and not value.strip().startswith("["):
            found["arms"] = [name.strip() for name in value.split(",") if name.strip()]
        elif key == "seeds":
            found["seeds"] = seed_list(value)
        elif key == "workers":
            found["workers"] = _count(value)
        elif key == "models":
            found["models"] = _folder_name(value)
        else:
            rest.append(word)
    return Arguments(arguments.recipe, arguments.output, arguments.dry_run, arguments.help, rest), Chosen(**found)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise RecipeError(f"workers={text}: will not do; write a number from 1 to {MAX_WORKERS}")
    return int(text)


def _folder_name(text: str) -> str:
    if not text or not text.replace("-", "").replace("_", "").replace(".", "").isalnum() or text.startswith("."):
        raise RecipeError(f"models={text}: becomes a folder; use letters, digits, '.', '_' and '-'")
    return text


def train(loaded: Loaded, arguments: Arguments, chosen: Chosen, *, words: Sequence[str]) -> int:
    """Trains what is asked for and is not there yet. `words`: the command line, for other workers.

    Raises:
        RecontextError: of any kind; finished models stay, and the same command continues.
    """
    from recontext_data.reports.screen import Screen
    from recontext_data.training.arguments import check_extra, is_main, micro_batch, num_processes
    from recontext_data.training.device import has_cuda, say_device
    from recontext_data.training.kl import require_one_process
    from recontext_data.training.libraries import require_libraries

    loaded = _with_seeds(loaded, chosen)
    config, screen = loaded.recipe.training, Screen() if is_main() else Screen(out=StringIO(), err=StringIO())
    require_libraries(config.method)
    micro_batch(config)
    require_one_process(config)
    if config.extra:  # before the datasets are built, and paid for
        check_extra(config.extra, cuda=has_cuda())
    wanted = _wanted_arms(loaded, chosen.arms)
    run, manifest = _built(loaded, arguments, screen)
    jobs = _jobs(loaded, run, manifest, wanted=wanted, models=chosen.models) if manifest else []
    if arguments.dry_run:
        return _dry_run(jobs, screen)
    say_device(config, screen)
    from recontext_data.training.sharing import helped, train_all

    # The others find the datasets built: they train, and build nothing.
    with helped(words, workers=min(chosen.workers, len(jobs)) if num_processes() == 1 else 1):
        trained = train_all(jobs, screen=screen)
    if is_main():
        assert manifest is not None
        report = _report(jobs, run, manifest, models=chosen.models, words=words)
        _closing(jobs, trained, report, screen)
    return 0


def _with_seeds(loaded: Loaded, chosen: Chosen) -> Loaded:
    if not chosen.seeds:
        return loaded
    from pydantic import ValidationError

    from recontext_data.config.loading import describe
    from recontext_data.config.training import Training

    tree = loaded.recipe.training.model_dump() | {"seeds": list(chosen.seeds)}
    try:
        training = Training.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(describe(error, tree)) from None
    return Loaded(loaded.name, loaded.recipe.model_copy(update={"training": training}), loaded.origins)


def _wanted_arms(loaded: Loaded, names: Sequence[str]) -> list[str]:
    """The folders of the arms that are asked for, in the recipe's order."""
    from recontext_data.contexts.arms import folder_name

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


def _built(loaded: Loaded, arguments: Arguments, screen: "Screen") -> tuple[Path, Mapping[str, Any] | None]:
    """The run's folder and manifest; builds what is not there. In a `dry_run` the manifest may be None."""
    from recontext_data.pipeline.build import build
    from recontext_data.pipeline.preparation import prepared
    from recontext_data.store.run_folder import RunFolder
    from recontext_data.training.arguments import is_main, num_processes

    job = prepared(loaded.name, loaded.recipe, output=arguments.output, screen=screen)
    run = RunFolder(arguments.output, recipe=loaded.name, fingerprint=job.fingerprint)
    if run.manifest() is None and is_main() and not arguments.dry_run:
        command = f"recontext build recipe={arguments.recipe} {' '.join(arguments.overrides)}".strip()
        screen.note(f"the datasets are not built yet; building them first: {command}")
        build(job, output=arguments.output, screen=screen, command=command)
    if num_processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
    return run.path, run.manifest()


def _jobs(loaded: Loaded, run: Path, manifest: Mapping[str, Any], *, wanted: Sequence[str], models: str) -> "list[TrainingJob]":
    from recontext_data.training.base import find_base
    from recontext_data.training.jobs import job_of

    base = find_base(loaded.recipe)
    return [
        job_of(loaded, run, manifest, arm=name, seed=seed, base=base, models=models)
        for name in wanted
        for seed in loaded.recipe.training.seeds
    ]


def _dry_run(jobs: "Sequence[TrainingJob]", screen: "Screen") -> int:
    from recontext_data.training.models import is_finished

    there = [is_finished(job.target, job.request()) for job in jobs]
    models = [
        {"arm": job.arm, "seed": job.seed, "is_there": is_there, "method": job.config.method, "base": job.base.folder.name}
        for job, is_there in zip(jobs, there, strict=True)
    ]
    if screen.result("training plan", {"is_built": bool(jobs), "models": models}):
        return 0
    screen.line(
        "would train (nothing is written):" if jobs else "would build the datasets first, and then train each arm and seed"
    )
    for one in models:
        state = "there already" if one["is_there"] else f"{one['method']}, {one['base']}"
        screen.line(f"  {one['arm']}  seed {one['seed']}  {state}")
    return 0


def _report(
    jobs: "Sequence[TrainingJob]", run: Path, manifest: Mapping[str, Any], *, models: str, words: Sequence[str]
) -> Path:
    """The page about every model that is there by now, whoever trained it."""
    import shlex

    from filelock import FileLock

    from recontext_data.training.libraries import quiet
    from recontext_data.training.report import trained_in, write_report

    folder = run / models
    command = shlex.join(["recontext", "train", *(word for word in words if not word.startswith(("output=", "workers=")))])
    # Looked and written under one lock: else the page of who looked first could replace that of who looked last.
    with quiet(), FileLock(folder / ".report.lock"):
        found = trained_in(run, manifest, models=models, base=jobs[0].base)
        return write_report(found, folder=folder, command=command)


def _closing(jobs: "Sequence[TrainingJob]", records: Sequence[Mapping[str, Any]], report: Path, screen: "Screen") -> None:
    from recontext_data.training.watching import closing_table

    folder, skipped = jobs[0].target.parents[1], len(jobs) - len(records)
    if screen.result("training", {"folder": folder, "report": report, "models": records, "there_already": skipped}):
        return
    if records:
        closing_table(records, screen)
    if skipped:
        screen.note(f"{skipped} of {len(jobs)} models were there already")
    screen.line(f"models    {folder}")
    screen.line(f"report    {report}")


if __name__ == "__main__":
    sys.exit(main())
