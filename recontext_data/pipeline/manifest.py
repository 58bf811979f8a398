"""The manifest of a run: all that was found, counted from its tables; and the files that are written from it."""

import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.recipe import Recipe
from recontext_data.contexts.arms import Arm
from recontext_data.contexts.context import Context, render
from recontext_data.core.budget import Budget
from recontext_data.core.records import content_hash
from recontext_data.core.version import __version__
from recontext_data.pipeline import sample
from recontext_data.pipeline.export import Exported
from recontext_data.pipeline.judge_client import JudgeClient
from recontext_data.pipeline.judge_models import Account, identities
from recontext_data.pipeline.preparation import Prepared
from recontext_data.pipeline.recontextualize import ArmPlan
from recontext_data.pipeline.sample import SampleOutcome
from recontext_data.pipeline.summary import (
    ARITHMETIC_CAVEAT,
    SCRIPTED_CAVEAT,
    by_position,
    judge_labels,
    label_counts,
    scripted_judges,
    scripted_judges_caveat,
)
from recontext_data.reports import arm_parts
from recontext_data.store.calibrations import find
from recontext_data.store.files import replace_file
from recontext_data.store.run_folder import RunFolder

if TYPE_CHECKING:
    import polars as pl


def manifest(
    build: Prepared,
    *,
    outcome: SampleOutcome,
    judged: "pl.DataFrame",
    counts: list[dict[str, Any]],
    exported: Mapping[str, Any],
    purse: Budget,
) -> dict[str, Any]:
    """Everything but the ledger, the timings and the files, which `run` adds."""
    recipe, environment = build.recipe, build.recipe.environment
    return {
        "recipe_name": build.name,
        "fingerprint": build.fingerprint,
        "recipe": recipe.model_dump(mode="json"),
        "versions": {
            "recontext_data": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("polars", "pyarrow")},
        },
        "policy": {"description": build.policy.description, "identity": dict(build.policy.identity)},
        "environment": {
            "kind": environment.kind,
            "labels": list(environment.labels),
            "misbehaviour": environment.misbehaviour,
            "licence": build.tasks.licence,
        },
        "contexts": {
            name: {"stance": context.stance, "placement": context.placement, "text": context.text}
            | ({"paraphrases": context.paraphrases} if context.paraphrases else {})
            | ({"environment": context.environment} if context.environment else {})
            for name, context in recipe.contexts.items()
        },
        "tasks": len(build.tasks.tasks),
        "rates": counts,
        "position": by_position(
            judged.filter(judged["judge"] == recipe.outcome_judge.name), build.by_id, misbehaviour=environment.misbehaviour
        ),
        "arms": [
            _arm_facts(build, arm, *exported[arm.name], judged=judged) | _parts(config, arm, exported[arm.name][0])
            for config, arm in zip(recipe.arms, build.arms, strict=True)
        ],
        "gates": [gate for done, _ in exported.values() for gate in done.gates],
        **_bill(outcome, purse),
        "caveats": [SCRIPTED_CAVEAT if recipe.policy.kind == "fake" else ARITHMETIC_CAVEAT, *_of_judges(recipe)],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _of_judges(recipe: Recipe) -> list[str]:
    names = scripted_judges(recipe.judges)
    return [scripted_judges_caveat(names)] if names else []


def judging_facts(
    build: Prepared, counsel: JudgeClient, tried: Mapping[str, Mapping[str, int]], *, output: Path
) -> list[dict[str, Any]]:
    """Each judge with its identity and what was measured of it (in `output`, see `store.calibrations`); those that ask a model
    also with what they asked, whom, and what that cost."""
    judges = build.recipe.judges
    known = identities(judges, build.judge_policies)
    facts = []
    for one in judges:
        row: dict[str, Any] = {"name": one.name, "kind": one.kind, "identity": content_hash(known[one.name])}
        account = counsel.accounts.get(one.name, Account()).as_json()
        if one.name in build.judge_policies:
            policy = build.judge_policies[one.name]
            row |= {"policy": {"description": policy.description, "identity": dict(policy.identity)}, "says": known[one.name]}
        if (measured := getattr(one, "measured", None)) is not None:
            row["measured"] = dict(measured())
        found = {"trial": dict(tried[one.name]) if one.name in tried else None, "calibrations": find(output, row["identity"])}
        facts.append(row | account | found)
    return facts


def _bill(outcome: SampleOutcome, purse: Budget) -> dict[str, Any]:
    """Requests, tokens and cost. Tasks with the same prompt share their replies, which count once."""
    replies = outcome.candidates.unique("reply_key")
    return {
        "requests": {
            "wanted": len(replies) + outcome.failed,
            "found": len(replies) - outcome.bought,
            "sampled": outcome.bought,
            "failed": outcome.failed,
        },
        "tokens": {
            "prompt": int(replies["prompt_tokens"].sum()),
            "completion": int(replies["completion_tokens"].sum()),
        },
        "cost_usd": sample.cost_usd(replies, purse.price, factor=purse.factor) if purse.price else None,
    }


def _arm_facts(
    build: Prepared, arm: ArmPlan, done: Exported, kept: "pl.DataFrame", *, judged: "pl.DataFrame"
) -> dict[str, Any]:
    words = judged.join(kept.select("candidate_id"), on="candidate_id", how="semi")
    by_judge = {
        name: label_counts(words.filter(words["judge"] == name), known) for name, known in judge_labels(build.recipe).items()
    }
    return {
        "name": arm.name,
        "kind": arm.kind,
        "generation_context": arm.generation,
        "training_context": arm.training,
        "rows": done.rows,
        "labels": by_judge[build.recipe.outcome_judge.name],
        "select": build.recipe.select.keep,
        "judges": by_judge,
    }


def _parts(config: Arm, arm: ArmPlan, done: Exported) -> dict[str, Any]:
    """What an arm's rows are made from where not all are alike, and how many of each are on disk."""
    rows = [(plan.generation, plan.training, count) for plan, count in zip(arm.parts, done.parts, strict=True)]
    return {"parts": arm_parts.facts(config, rows)} if arm.others else {}


def finish(
    build: Prepared, manifest: dict[str, Any], *, exported: Mapping[str, tuple[Exported, Any]], folder: RunFolder
) -> dict[str, Any]:
    """Cards, report, and then the manifest, which says that the rest is there."""
    from recontext_data.reports.card import dataset_card
    from recontext_data.reports.html import write_report

    for arm in manifest["arms"]:
        _write_text(folder.path / "arms" / arm["name"] / "README.md", dataset_card(manifest, arm))
    samples = {name: _samples(build, done) for name, (done, _) in exported.items()}
    write_report(folder.path, manifest, samples=samples)
    return folder.finish(manifest)


def _write_text(path: Path, text: str) -> None:
    replace_file(path, lambda target: target.write_text(text, encoding="utf-8"))


def _samples(build: Prepared, done: Exported) -> list[dict[str, Any]]:
    """The first rows of an arm beside the prompt that they were sampled under."""
    arms = {arm.name: arm for arm in build.arms}
    tasks, outcome = build.by_id, build.recipe.outcome_judge.name
    return [
        {
            "task_id": row["task_id"],
            "candidate_id": row["candidate_id"],
            "k": row["k"],
            "label": next((word["label"] for word in row["judgements"] if word["judge"] == outcome), None),
            "generation_prompt": render(
                tasks[row["task_id"]],
                _generated_under(arms[row["arm"]], row["generation_context"]),
                name=row["generation_context"],
                how=build.recipe.how,
            ),
            "training_prompt": row["prompt"],
            "completion": row["completion"][0]["content"],
        }
        for row in done.first_rows
    ]


def _generated_under(arm: ArmPlan, name: str) -> Context | None:
    """The context of rows of an arm by the name in them; data that is mixed in has none."""
    return next(plan.generation_context for plan in (arm, *arm.others) if plan.generation == name)


def reused_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a finished run as the screen shows it to a build that had nothing to do."""
    wanted = manifest["requests"]["wanted"]
    return manifest | {"requests": {"wanted": wanted, "found": wanted, "sampled": 0, "failed": 0}, "timings_seconds": {}}
