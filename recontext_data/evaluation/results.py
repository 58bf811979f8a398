"""Writes what an evaluation found: outcomes.parquet (a row per answer), results.json (rates and differences), report.html."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.environments.base import TaskSet
from recontext_data.evaluation.contexts import measured, roles
from recontext_data.evaluation.costs import costs
from recontext_data.evaluation.matrix import baseline_of
from recontext_data.evaluation.models import Model
from recontext_data.evaluation.summary import summarise
from recontext_data.pipeline.preparation import Prepared
from recontext_data.pipeline.summary import ARITHMETIC_CAVEAT, SCRIPTED_CAVEAT
from recontext_data.store.files import replace_file, writing
from recontext_data.store.run_folder import RunFolder

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1


def write_results(
    table: "pl.DataFrame",
    *,
    job: Prepared,
    models: Sequence[Model],
    tasks: TaskSet,
    run: RunFolder,
    command: str = "",
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Summarises the outcomes and writes everything to `evaluation/`; results.json last, as the mark that the rest is there.

    `more`: costs that do not follow from the table, as rows by name.
    """
    results = {"format": FORMAT, **_about(job, models, tasks), **_summary(table, job)}
    results["costs"] = {**costs(table, results["cells"], job.recipe), **(more or {})}
    results |= {"rows": _rows(run), "command": command}
    folder = run.path / "evaluation"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").unlink(missing_ok=True)
    replace_file(folder / "outcomes.parquet", lambda path: table.write_parquet(path, compression="zstd"))
    from recontext_data.reports.evaluation import write_evaluation

    write_evaluation(folder, results)
    text = orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    replace_file(folder / "results.json", lambda path: path.write_bytes(text))
    return results


def _summary(table: "pl.DataFrame", job: Prepared) -> dict[str, Any]:
    recipe = job.recipe
    return summarise(
        table,
        kinds={arm.name: arm.kind for arm in job.arms},
        baseline=baseline_of(recipe),
        misbehaviour=recipe.environment.misbehaviour,
        labels=recipe.environment.labels,
        confidence=recipe.evaluation.confidence,
    )


def _rows(run: RunFolder) -> dict[str, dict[str, int]]:
    """Labels of the rows that each arm is trained on; nothing where the run is not built."""
    return {arm["name"]: arm["labels"] for arm in (run.manifest() or {"arms": []})["arms"]}


def _about(job: Prepared, models: Sequence[Model], tasks: TaskSet) -> dict[str, Any]:
    recipe, places = job.recipe, roles(job.recipe)
    return {
        "recipe_name": job.name,
        "fingerprint": job.fingerprint,
        "policy": {"kind": recipe.policy.kind, "description": job.policy.description},
        "environment": {
            "kind": recipe.environment.kind,
            "labels": list(recipe.environment.labels),
            "misbehaviour": recipe.environment.misbehaviour,
        },
        "split": recipe.evaluation.split,
        "tasks": len(tasks.tasks),
        "n": recipe.evaluation.n,
        "exact": recipe.evaluation.exact,
        "confidence": recipe.evaluation.confidence,
        "contexts": {
            name: {
                "stance": context.stance if context else "neutral",
                "text": context.text if context else "",
                "roles": places[name],
            }
            for name, context in measured(recipe).items()
        },
        "models": [
            {"name": model.name, "arm": model.arm, "seed": model.seed, "identity": dict(model.policy.identity)}
            for model in models
        ],
        "arms": {arm.name: {"kind": arm.kind, "generation": arm.generation, "training": arm.training} for arm in job.arms},
        "caveats": [SCRIPTED_CAVEAT if recipe.policy.kind == "fake" else ARITHMETIC_CAVEAT],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
