"""Gathers what the report of a training shows, from the folders of its models and of the runs that they were trained on.

    write_report(trained_in(run, manifest, models="models", base=base), folder=run / "models", command="recontext train ...")

Everything is read from disk, so that it does not matter which process, or which job of a queue, trained which model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recontext_data.contexts.stored_prompts import prompt_under
from recontext_data.core.records import Messages
from recontext_data.store.files import writing
from recontext_data.training.base import Base
from recontext_data.training.libraries import Tokenizer
from recontext_data.training.models import models_of, read_record
from recontext_data.training.rows import TokenizedPrompts, TokenizedRow
from recontext_data.training.watching import PREVIEWED


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished model and the run whose rows it was trained on."""

    record: Mapping[str, Any]
    run: Path
    manifest: Mapping[str, Any]
    base: Base | None
    """What it was trained from, whose tokenizer shows its rows; None: not at hand."""

    @property
    def dataset(self) -> Path:
        """The folder of its rows."""
        return self.run / "arms" / str(self.record["arm"])


def trained_in(run: Path, manifest: Mapping[str, Any], *, models: str, base: Base) -> list[Trained]:
    """Every finished model of a run, in the order of the build's arms. `base`: that of this command, not of all perhaps.

    Raises:
        StoreError: a record is damaged.
    """
    order = [arm["name"] for arm in manifest["arms"]]
    found = [model for model in models_of(run, models=models) if model.arm in order]
    records = [read_record(model.path) for model in sorted(found, key=lambda one: (order.index(one.arm), one.seed))]
    identity = dict(base.folder.identity())
    return [
        Trained(record=one, run=run, manifest=manifest, base=base if one["base"]["identity"] == identity else None)
        for one in records
        if one is not None
    ]


def write_report(found: Sequence[Trained], *, folder: Path, command: str) -> Path:
    """Writes `folder`/report.html about these models, of one run or of several.

    Raises:
        StoreError: it cannot be written.
    """
    from recontext_data.reports.training import write_training

    first = found[0]
    arms = list(dict.fromkeys(arm["name"] for one in found for arm in one.manifest["arms"]))
    facts = {
        "recipe_name": first.record["recipe"],
        "command": command,
        "models": [{**one.record, "run": "/".join(one.run.parts[-2:])} for one in found],
        "arms": arms,
        "on_disk": _on_disk(found),
        "previews": _previews(found),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return write_training(folder, facts)


def _on_disk(found: Sequence[Trained]) -> dict[str, int]:
    """Rows of both splits of each dataset, by its hash, as its build counted them."""
    return {
        one.record["dataset"]["fingerprint"]: sum(arm["rows"].values())
        for one in found
        for arm in one.manifest["arms"]
        if arm["name"] == one.record["arm"]
    }


def _previews(found: Sequence[Trained]) -> dict[str, list[dict[str, Any]]]:
    """The same rows of each arm as the terminal shows. None where the base is not at hand, whose tokens they are, or the rows
    are gone."""
    shown: dict[str, Trained] = {}
    for one in found:
        if one.base is not None and "end_token" in one.record["dataset"] and (one.dataset / "train").is_dir():
            shown.setdefault(one.record["arm"], one)
    tokenizers: dict[Path, Tokenizer] = {}
    previews = {}
    for arm, one in shown.items():
        assert one.base is not None
        if one.base.folder.path not in tokenizers:
            tokenizers[one.base.folder.path] = one.base.tokenizer()
        previews[arm] = _rows(one, tokenizers[one.base.folder.path])
    return previews


def _rows(one: Trained, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    import datasets

    split, path = datasets.load_from_disk(str(one.dataset / "train")), one.run / "tasks.parquet"
    picked = range(0, len(split), max(1, len(split) // PREVIEWED))[:PREVIEWED]
    prompts, tasks = TokenizedPrompts(tokenizer), pl.scan_parquet(path) if path.is_file() else None
    return [_row(one, dict(row), prompts, tasks) for row in split.select(picked).to_list()]


def _row(one: Trained, raw: dict[str, Any], prompts: TokenizedPrompts, tasks: pl.LazyFrame | None) -> dict[str, Any]:
    text = "".join(message["content"] for message in raw["completion"])
    end = one.record["dataset"]["end_token"]
    row = TokenizedRow(raw["candidate_id"], prompts.tokens(raw["prompt"]), [*prompts.after(raw["prompt"], text), end])
    return {
        "task_id": raw["task_id"],
        "candidate_id": row.row_id,
        "tokens": len(row),
        "trained": len(row.completion),
        "masked": prompts.tokenizer.decode(row.prompt),
        "completion": prompts.tokenizer.decode(row.completion),
        "generation_prompt": _sampled_under(one, raw, tasks),
        "training_prompt": raw["prompt"],
    }


def _sampled_under(one: Trained, raw: Mapping[str, Any], tasks: pl.LazyFrame | None) -> Messages | None:
    if tasks is None:
        return None
    found = tasks.filter(pl.col("task_id") == raw["task_id"]).collect().to_dicts()
    return prompt_under(one.manifest["recipe"], found[0], raw["generation_context"]) if found else None
