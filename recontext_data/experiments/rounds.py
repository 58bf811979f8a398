"""Expert iteration: rounds of building, training and measuring, with a chain of models for each arm and seed.

    runs/<recipe>/rounds/<id>/round-1/evaluation/    outcomes.parquet, results.json, report.html, as `recontext evaluate` writes
    runs/<recipe>/rounds/<id>/round-1/training/report.html   losses, rows and settings of the round's models
    runs/<recipe>/rounds/<id>/report.html            all rounds beside each other
    runs/<recipe>/rounds/<id>/rounds.json            written last: which run, model and weights each round of each chain is

Runs, models and replies lie where those of build and train do. Everything that is done is found again by what it is, so a
kill at any moment loses what was in flight, and the same command goes on.
"""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.config.loading import Loaded
from recontext_data.contexts.arms import folder_name
from recontext_data.core.errors import RecipeError
from recontext_data.core.records import content_hash
from recontext_data.evaluation import matrix
from recontext_data.evaluation.contexts import contexts_of
from recontext_data.evaluation.models import LOCAL, Model, model_of
from recontext_data.evaluation.results import write_results
from recontext_data.evaluation.tasks import measured_tasks, require_measurable
from recontext_data.experiments.chains import Builder, Chain, Link
from recontext_data.experiments.rounds_page import write_page
from recontext_data.pipeline.arm_gates import held_out
from recontext_data.pipeline.preparation import Prepared, prepared
from recontext_data.store.files import replace_file, writing
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import RunFolder
from recontext_data.training.base import find_base
from recontext_data.training.libraries import quiet
from recontext_data.training.models import read_record
from recontext_data.training.preparing import training_content
from recontext_data.training.report import Trained, write_report
from recontext_data.training.sharing import train_all

if TYPE_CHECKING:
    from recontext_data.environments.base import TaskSet
    from recontext_data.reports.screen import Screen

FORMAT = 1
MARK = "rounds.json"


class RoundFolder(RunFolder):
    """Where the measurement of one round goes, and what its models were trained on."""

    def __init__(self, path: Path, links: Sequence[Link] = ()) -> None:
        self.path = path
        self._links = links

    def manifest(self) -> dict[str, Any] | None:
        """Of a run's manifest what an evaluation reads: the labels of each arm's rows, all seeds' together."""
        arms: dict[str, dict[str, int]] = {}
        for link in self._links:
            labels = arms.setdefault(link.chain.name, {})
            for label, count in _labels(link).items():
                labels[label] = labels.get(label, 0) + count
        return {"arms": [{"name": name, "labels": labels} for name, labels in arms.items()]}


def check(recipe: Any) -> None:
    """Raises RecipeError for what cannot be iterated, before anything is spent."""
    require_measurable(recipe)
    if recipe.policy.kind not in LOCAL:
        raise RecipeError(
            f"policy.kind={recipe.policy.kind}: the second round is sampled from the model that the first one trained, which "
            f"lies on disk; use {', '.join(LOCAL)}"
        )
    given = next((arm for arm in recipe.arms if arm.data is not None), None)
    if given is not None:
        raise RecipeError(f"arms ({given.pair}): reads given data, so no round would change it; leave the arm out")


def iterate(
    loaded: Loaded, *, output: Path, screen: "Screen", words: Sequence[str], models: str
) -> tuple[Path, dict[str, Any]]:
    """The folder and the facts of all rounds: found when they are there already, else made.

    Raises:
        RecontextError: of any kind; what is finished stays, and the same command continues.
    """
    import shlex

    check(loaded.recipe)
    command = shlex.join(["recontext", "iterate", *words])
    job = prepared(loaded.name, loaded.recipe, output=output, screen=screen)
    folder = output / "runs" / loaded.name / "rounds" / _id(job, models)
    request = _request(job)
    if (known := read(folder)) is not None and known["request"] == request:
        screen.note("nothing to do: these rounds are there already")
        return folder, known
    builder = Builder(loaded=loaded, output=output, command=command, screen=screen, models=models)
    first, rounds = builder.built(loaded), []
    links: list[Link | None] = [None for _ in chains_of(loaded)]
    for number in range(1, loaded.recipe.rounds.count + 1):
        screen.note(f"round {number} of {loaded.recipe.rounds.count}")
        made = [builder.link(chain, last, first) for chain, last in zip(chains_of(loaded), links, strict=True)]
        train_all([link.job for link in made], screen=screen)
        _report(made, folder / f"round-{number}" / "training", command=command)
        results = _measure(job, made, builder=builder, place=folder / f"round-{number}", words=words)
        rounds.append(_facts(number, made, results, output=output))
        links = list(made)
    first[0].point_latest()  # every build has pointed it at itself
    return folder, _finish(folder, {"recipe_name": loaded.name, "request": request, "command": command, "rounds": rounds}, job)


def _report(links: Sequence[Link], folder: Path, *, command: str) -> None:
    """The page about the trainings of one round, whichever runs their rows are in."""
    records = [(link, read_record(link.job.target)) for link in links]
    found = [
        Trained(record=record, run=link.run, manifest=link.manifest, base=link.job.base)
        for link, record in records
        if record is not None
    ]
    with quiet():
        write_report(found, folder=folder, command=command)


def chains_of(loaded: Loaded) -> list[Chain]:
    """Arms by the recipe's order, each with its seeds."""
    recipe = loaded.recipe
    names = {arm.pair: folder_name(arm, recipe.contexts) for arm in recipe.arms}
    return [Chain(arm=arm, name=names[arm.pair], seed=seed) for arm in recipe.arms for seed in recipe.training.seeds]


def read(folder: Path) -> dict[str, Any] | None:
    """rounds.json of finished rounds; None where there is none that this version understands."""
    try:
        facts = orjson.loads((folder / MARK).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == FORMAT else None


def _id(job: Prepared, models: str) -> str:
    """Of the chains, not of how many rounds or seeds they have: more of either are added to those that are there."""
    recipe = job.recipe
    base = dict(find_base(recipe).folder.identity())
    return content_hash([job.fingerprint, training_content(recipe.training), base, recipe.rounds.start, models])[:16]


def _request(job: Prepared) -> dict[str, Any]:
    recipe = job.recipe
    return {
        "fingerprint": job.fingerprint,
        "rounds": recipe.rounds.model_dump(mode="json"),
        "seeds": recipe.training.seeds,
        "training": training_content(recipe.training),
        "evaluation": recipe.evaluation.model_dump(mode="json"),
    }


def _measure(job: Prepared, links: Sequence[Link], *, builder: Builder, place: Path, words: Sequence[str]) -> dict[str, Any]:
    """The policy before and every chain's model of this round, under every context."""
    folder = RoundFolder(place, links)
    tasks = measured_tasks(job.recipe, output=builder.output)
    tasks = held_out(tasks, trained=list(job.by_id.values()), gates=job.recipe.gates, screen=builder.screen)
    models = [model_of(job.recipe.policy, job, tasks), *(_model(link, job, tasks, builder) for link in links)]
    # One process at a time, and the store opened within: whoever comes second finds every answer in it.
    with folder.locked(), ReplyStore(builder.output / "replies") as store:
        table = matrix.outcomes(models, job, tasks=tasks, store=store, screen=builder.screen)
        return write_results(
            table, job=job, models=models, tasks=tasks, run=folder, command=shlex.join(["recontext", "iterate", *words])
        )


def _model(link: Link, job: Prepared, tasks: "TaskSet", builder: Builder) -> "Model":
    return replace(model_of(builder.policy_after(link), job, tasks), arm=link.chain.name, seed=link.chain.seed)


def _labels(link: Link) -> Mapping[str, int]:
    (arm,) = [arm for arm in link.manifest["arms"] if arm["name"] == link.chain.name]
    labels: Mapping[str, int] = arm["labels"]
    return labels


def _facts(number: int, links: Sequence[Link], results: Mapping[str, Any], *, output: Path) -> dict[str, Any]:
    identities = {(model["arm"], model["seed"]): model["identity"] for model in results["models"]}
    return {
        "round": number,
        "chains": [
            {
                "arm": link.chain.name,
                "seed": link.chain.seed,
                "run": link.run.relative_to(output).as_posix(),
                "fingerprint": link.manifest["fingerprint"],
                "model": link.job.target.relative_to(output).as_posix(),
                "identity": identities[link.chain.name, link.chain.seed],
                "base": dict(link.job.base.folder.identity()),
                "rows": dict(_labels(link)),
            }
            for link in links
        ],
        "cells": results["cells"],
        "differences": results["differences"],
    }


def _finish(folder: Path, facts: dict[str, Any], job: Prepared) -> dict[str, Any]:
    recipe = job.recipe
    facts = {
        "format": FORMAT,
        **facts,
        "environment": {"misbehaviour": recipe.environment.misbehaviour, "labels": list(recipe.environment.labels)},
        "contexts": contexts_of(recipe),
        "confidence": recipe.evaluation.confidence,
        "baseline": matrix.baseline_of(recipe),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    # Through JSON, so that what is returned is what is read again.
    text = orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    whole: dict[str, Any] = orjson.loads(text)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_page(folder, whole)
    replace_file(folder / MARK, lambda path: path.write_bytes(text))
    return whole
