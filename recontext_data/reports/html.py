"""The report of one build: a single HTML page with no script, no network and no hidden characters.

    write_report(folder, manifest, samples={"recontextualized.default-hack": rows})   # -> folder/report.html

Everything that a model or a user wrote reaches the page through the template's autoescape and `show`; no Python here
makes markup, and no template marks anything as safe.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import StoreError
from recontext_data.reports import calibration, numbers
from recontext_data.reports.difference import compare_turns
from recontext_data.reports.figures import rate_figure
from recontext_data.reports.numbers import Manifest
from recontext_data.reports.text import LIMIT, cut, pieces, visible

if TYPE_CHECKING:
    from jinja2 import Environment

Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def write_report(folder: Path, manifest: Manifest, *, samples: Samples) -> Path:
    """Writes `folder/report.html`, whole or not at all, and returns its path.

    `samples` has the first rows of each arm: task_id, candidate_id, generation_prompt, training_prompt, completion, label, k.

    Raises:
        StoreError: the folder cannot be written.
    """
    return save_page(folder / "report.html", render_report(manifest, samples=samples))


def render_report(manifest: Manifest, *, samples: Samples, limit: int = LIMIT) -> str:
    """The page. A text longer than `limit` characters is cut there, and the page says by how much."""
    rates = numbers.rates(manifest)
    never = numbers.never_given(manifest)
    return (
        page_environment(limit)
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            bad=manifest["environment"]["misbehaviour"],
            labels=[label for label in numbers.labels(manifest) if label not in never],
            never=never,
            finding=numbers.finding(manifest),
            problems=numbers.problems(manifest),
            rates=rates,
            others=numbers.others(manifest),
            proofs=numbers.proofs(manifest),
            trusted=calibration.judges_shown(manifest),
            figure=rate_figure(rates),
            arms=[_arm(arm, manifest=manifest, rows=samples.get(arm["name"], ()), limit=limit) for arm in manifest["arms"]],
            ledger=numbers.ledger(manifest),
            limit=limit,
        )
    )


def page_environment(limit: int) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # 0.1 s, and only a finished build needs it

    environment = Environment(
        loader=PackageLoader("recontext_data.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pieces": pieces,
        "visible": visible,
        "cut": partial(cut, limit=limit),
        "count": lambda value: f"{value:,}",
        "percent": numbers.percent,
        "duration": numbers.duration,
        "money": numbers.money,
        "json": _json,
        "measure": lambda value: "–" if value is None else calibration.number(value),
        "span": lambda row: "–" if row["low"] is None else calibration.interval(row).replace("-", "–"),
        # A number is not parted from its percent sign at the end of a line. For our own sentences only.
        "tight": lambda sentence: sentence.replace(" %", "\u00a0%"),
    }
    environment.globals["share"] = lambda part, whole: numbers.Share(part=part, whole=whole)
    return environment


def _arm(arm: Mapping[str, Any], *, manifest: Manifest, rows: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    bad = manifest["environment"]["misbehaviour"]
    return {
        **arm,
        "num_rows": numbers.arm_rows(arm),
        "is_filtered": "selection" in arm and arm["selection"]["all"]["n"] != arm["selection"]["selected"]["n"],
        "num_unlabelled": numbers.arm_rows(arm) - sum(arm["labels"].values()),
        "shares": {label: numbers.arm_share(arm, label) for label in numbers.labels(manifest)},
        "arithmetic": numbers.arithmetic(manifest, arm),
        "samples": [
            {**row, "turns": compare_turns(row["generation_prompt"], row["training_prompt"], limit=limit)} for row in rows
        ],
        "num_bad_samples": sum(row["label"] == bad for row in rows),
    }


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def save_page(path: Path, page: str) -> Path:
    """Writes a report's page, whole or not at all, and returns where it is.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        replace_page(path, page.encode())
    except OSError as error:
        raise StoreError(f"report {path}: {error.strerror or error}; free the disk or choose another folder") from error
    return path


def replace_page(path: Path, content: bytes) -> None:
    """A reader of `path` sees the old file or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would keep a shared folder's readers out
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
