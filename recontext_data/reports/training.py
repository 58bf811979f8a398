"""The report of one training: all arms and seeds on a single HTML page with no script, no network and no hidden characters.

    write_training(folder, facts)   # -> folder/report.html

`facts` is what `training.report` gathers: `recipe_name`, `command`, `models` (records with the `run` they lie in), `arms` (of
the build, in its order), `on_disk` (rows by a dataset's hash) and `previews` (rows by arm). As in `html`, everything that a
model or a user wrote reaches the page through the template's autoescape and `show`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.reports import training_numbers as numbers
from recontext_data.reports.difference import compare_turns
from recontext_data.reports.evaluation import weights
from recontext_data.reports.html import page_environment, save_page
from recontext_data.reports.text import LIMIT
from recontext_data.reports.training_figure import plots

if TYPE_CHECKING:
    from jinja2 import Environment

Facts = Mapping[str, Any]

TAIL = 200
"""Characters of a prompt's end that stand open; the rest is folded."""


def write_training(folder: Path, facts: Facts) -> Path:
    """Writes `folder/report.html`, whole or not at all, and returns its path.

    Raises:
        StoreError: the folder cannot be written.
    """
    return save_page(folder / "report.html", render_training(facts))


def render_training(facts: Facts) -> str:
    """The page, a function of the facts alone."""
    records = facts["models"]
    groups = _by_arm(records)
    return (
        _environment()
        .get_template("training.html.j2")
        .render(
            facts=facts,
            records=records,
            finding=numbers.finding(records),
            attention=numbers.attention(records, missing=numbers.absent(records, facts["arms"])),
            arms=list(zip(groups, groups.values(), plots(list(groups.values())), strict=True)),
            rows=numbers.rows(records, facts["on_disk"]),
            previews={arm: [_preview(row) for row in found] for arm, found in facts["previews"].items()},
            settings=numbers.settings(records),
            versions=_versions(records),
            bases=list(dict.fromkeys((one["base"]["name"], weights(one["base"]["identity"])) for one in records)),
            seconds=sum(sum(record["seconds"].values()) for record in records),
            created=max(record["created"] for record in records),
            limit=LIMIT,
        )
    )


def _environment() -> "Environment":
    environment = page_environment(LIMIT)
    environment.filters |= {"loss": numbers.number, "small": numbers.small, "model_name": numbers.model_name}
    environment.globals["losses"] = numbers.losses
    return environment


def _by_arm(records: numbers.Records) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["arm"], []).append(record)
    return groups


def _preview(row: Mapping[str, Any]) -> dict[str, Any]:
    before, after, masked = row["generation_prompt"], row["training_prompt"], row["masked"]
    return {
        **row,
        "turns": None if before is None else compare_turns(before, after),
        "head": masked[:-TAIL],
        "tail": masked[-TAIL:],
    }


def _versions(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each library with its version; where models were trained with several, all of them."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, version in record["versions"].items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return [(name, " and ".join(known)) for name, known in found.items()]
