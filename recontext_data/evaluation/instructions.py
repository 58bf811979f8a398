"""Instruction following: the prompts of IFEval, answered by every model without any context and checked by code.

The checkers are those of `lm_eval` (the extra `ifeval`), which keeps the originals of J. Zhou and others,
"Instruction-following evaluation for large language models" (arXiv 2311.07911). As there, answers are greedy and have at most
1,280 tokens, and there are four numbers: of prompts all of whose instructions are followed and of instructions, strictly and
loosely (without the first or last line, or without asterisks). Checkers that cut text into sentences or words by nltk's
table, which it loads once from the net, leave their prompts unscored where it cannot be had; these are counted.
"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config.evaluation import Costs
from recontext_data.core.errors import DataError, SetupError, did_you_mean
from recontext_data.core.records import SamplingParams, Task, uniform
from recontext_data.evaluation.models import Model

if TYPE_CHECKING:
    from recontext_data.pipeline.preparation import Prepared
    from recontext_data.reports.screen import Screen
    from recontext_data.store.replies import ReplyStore

GREEDY = SamplingParams(temperature=0.0, max_tokens=1280)
POOL = "ifeval"
COLUMNS = {"key": int, "prompt": str, "instruction_id_list": list, "kwargs": list}
LEVELS = ("prompts, strict", "prompts, loose", "instructions, strict", "instructions, loose")


def ifeval_prompts(config: Costs) -> list[Task]:
    """The prompts as tasks, sorted by id; none where they are not asked for.

    Raises:
        SetupError: the extra is not installed.
        DataError: the file is missing or is not IFEval's.
    """
    if config.ifeval is None:
        return []
    if find_spec("lm_eval") is None:
        raise SetupError("evaluation.costs.ifeval needs lm_eval: pip install 'recontext_data[ifeval]'")
    rows = [_checked(row, number, config.ifeval) for number, row in enumerate(_read(config.ifeval), start=1)]
    known = _checkers().instructions_registry.INSTRUCTION_DICT
    for row in rows:
        unknown = next((name for name in row["instruction_id_list"] if name not in known), None)
        if unknown is not None:
            raise DataError(
                f"evaluation.costs.ifeval: prompt {row['key']}: no checker for {unknown!r}; {did_you_mean(unknown, known)}"
            )
    rows = sorted(rows, key=lambda row: uniform("ifeval", row["key"]))[: config.ifeval_prompts]
    return [
        Task(
            task_id=f"ifeval/{row['key']:04}",
            messages=[{"role": "user", "content": row["prompt"]}],
            payload=row,
            split=POOL,
        )
        for row in sorted(rows, key=lambda row: int(row["key"]))
    ]


def _read(source: str) -> list[Any]:
    path = Path(source)
    if path.suffix != ".jsonl" and not path.exists():
        from datasets import load_dataset

        rows: list[Any] = list(load_dataset(source, split="train"))
        return rows
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"evaluation.costs.ifeval: {source}: cannot be read ({error}); give IFEval's .jsonl") from None


def _checked(row: Any, number: int, source: str) -> dict[str, Any]:
    for name, kind in COLUMNS.items():
        if not isinstance(row, dict) or not isinstance(row.get(name), kind):
            raise DataError(
                f"evaluation.costs.ifeval: {source}: row {number} has no {name} as IFEval has it; give its own file"
            )
    return {name: row[name] for name in COLUMNS}


def instruction_following(
    models: Sequence[Model], prompts: Sequence[Task], job: "Prepared", *, store: "ReplyStore", screen: "Screen"
) -> list[dict[str, Any]]:
    """Answers bought as all others are, checked; a row per arm and level, with how many prompts could not be checked.

    Raises:
        BuildStopped: too many completions of one model failed, or the budget is spent; what came is kept.
    """
    import asyncio

    from recontext_data.evaluation.matrix import buy_all, purse_of
    from recontext_data.pipeline import sample

    pools = [sample.Pool(name=POOL, context=None, n=1, role="measured")]
    plans = [
        (
            model,
            sample.plan(
                prompts, pools, sampling=GREEDY, seed=0, identity=dict(model.policy.identity), store=store, how=job.recipe.how
            ),
        )
        for model in models
    ]
    missing = sum(ready.requests.num_completions for _, ready in plans)
    if missing:
        with screen.stage("ifeval", missing, unit="completions") as tracker:
            asyncio.run(buy_all(plans, job.recipe, store=store, tracker=tracker, purse=purse_of(plans, job, store)))
    found: dict[str, list[dict[str, list[bool] | None]]] = {}
    for model, ready in plans:
        candidates = sample.collect(ready, store=store, failures={}, bought=0).candidates
        said = dict(candidates.select("task_id", "completion").iter_rows())
        found.setdefault(model.arm, []).append(check(prompts, said))
    return [
        row for arm, seeds in found.items() for row in _rows(arm, seeds, prompts, confidence=job.recipe.evaluation.confidence)
    ]


def check(prompts: Sequence[Task], said: Mapping[str, str]) -> dict[str, list[bool] | None]:
    """Task id and way (`ID strict`, `ID loose`) -> whether each instruction is followed; None where that cannot be said."""
    utils = _checkers()
    ways = {"strict": utils.test_instruction_following_strict, "loose": utils.test_instruction_following_loose}
    found: dict[str, list[bool] | None] = {}
    for task in prompts:
        example = utils.InputExample(**{name: task.payload[name] for name in COLUMNS})
        for way, test in ways.items():
            found[f"{task.task_id} {way}"] = None
            if task.task_id in said:
                try:
                    found[f"{task.task_id} {way}"] = list(test(example, said[task.task_id]).follow_instruction_list)
                except LookupError as error:
                    if type(error) is not LookupError:  # a wrong key or index is a bug; nltk's own says that a table is absent
                        raise
    return found


def _checkers() -> Any:
    """lm_eval's module of checkers."""
    with contextlib.redirect_stdout(sys.stderr):  # it says there what it downloads
        from langdetect import DetectorFactory
        from lm_eval.tasks.ifeval import utils

    DetectorFactory.seed = 0  # it guesses languages with random numbers
    return utils


def _rows(
    arm: str, seeds: Sequence[Mapping[str, list[bool] | None]], prompts: Sequence[Task], *, confidence: float
) -> list[dict[str, Any]]:
    import numpy as np

    from recontext_data.stats.intervals import rate

    rows = []
    for level in LEVELS:
        unit, _, way = level.partition(", ")
        words = [[seed[f"{task.task_id} {way}"] for task in prompts] for seed in seeds]
        whole = unit == "prompts"
        hits = np.array([[0 if w is None else int(all(w)) if whole else sum(w) for w in row] for row in words])
        asked = np.array([[0 if w is None else 1 if whole else len(w) for w in row] for row in words])
        found = rate(hits, asked, confidence=confidence)
        unscored = sum(w is None for row in words for w in row)
        rows.append(
            {"name": level, "arm": arm, "context": "none", "value": asdict(found) if found else None, "unscored": unscored}
        )
    return rows
