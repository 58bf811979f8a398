"""The dataset card of one arm: README.md beside the Arrow files, for whoever meets the dataset without its maker.

    dataset_card(manifest, manifest["arms"][0])   # -> the text of arms/<arm>/README.md

The same inputs give the same bytes: no dates, no timings, no paths, nothing that differs between two machines.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from recontext_data.core.tables import TRAINING_ROWS
from recontext_data.reports import calibration, numbers
from recontext_data.reports.arm_parts import which
from recontext_data.reports.numbers import Manifest
from recontext_data.reports.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment

# What the Hub knows by name, among what problems usually come under; everything else is `other` with a name.
_HUB_LICENCES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "odc-by", "unknown"}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))


_REASONING = {
    "keep": "",
    "drop": "The reasoning was dropped: completions are the answers alone, not what was sampled and judged.",
    "rewrite": "The reasoning was rewritten by another model from task and answer: it is not what was sampled and judged.",
}


class Licence(NamedTuple):
    """The licence of the problems, as the Hub wants it and as it was given."""

    id: str
    name: str
    text: str


def dataset_card(manifest: Manifest, arm: Mapping[str, Any]) -> str:
    """README.md for `arms/<arm>/`: YAML header and Markdown."""
    card = markdown_environment().get_template("card.md.j2").render(manifest=manifest, arm=arm, **_facts(manifest, arm))
    return re.sub(r"\A(---\n.*?\n---\n)\n+", r"\1\n", card, flags=re.DOTALL)


def markdown_environment() -> "Environment":
    """What cards are rendered with. `code`, `fenced`, `yaml` and `plain` are what keeps text from being markup in them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # Markdown, not HTML
        loader=PackageLoader("recontext_data.reports"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Any] = {
        "code": code,
        "fenced": fenced,
        "plain": plain,
        "yaml": _yaml,
        "json": _json,
        "count": lambda value: f"{value:,}",
        "measure": calibration.number,
        "span": calibration.interval,
    }
    environment.filters |= filters
    return environment


def _facts(manifest: Manifest, arm: Mapping[str, Any]) -> dict[str, Any]:
    bad = manifest["environment"]["misbehaviour"]
    scopes = {arm["name"], arm["generation_context"]}
    return {
        "bad": bad,
        "bad_share": numbers.arm_share(arm, bad),
        "shares": {label: numbers.arm_share(arm, label) for label in numbers.labels(manifest)},
        "num_unlabelled": numbers.arm_rows(arm) - sum(arm["labels"].values()),
        "size": size_category(numbers.arm_rows(arm)),
        "licence": licence_of(manifest["environment"].get("licence")),
        "sides": _sides(arm),
        "which": which,
        "ledger": [e for e in numbers.ledger(manifest) if e.stage == "tasks" or scopes & {e.scope, e.scope.split(" / ")[0]}],
        "others": [(other, row) for other in numbers.others(manifest) for row in other.arms if row.name == arm["name"]],
        "proofs": [plain(proof) for proof in numbers.proofs(manifest)],
        "reasoning": _REASONING[manifest["recipe"].get("completion", {}).get("reasoning", "keep")],
        "gates": [gate for gate in manifest["gates"] if gate["scope"] == arm["name"]],
        "judging": _judging(manifest),
        "columns": TRAINING_ROWS,
        "command": portable(manifest["command"]),
        "caveats": [plain(caveat) for caveat in caveats_of(manifest, arm)],
    }


def _sides(arm: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The contexts of an arm's rows with what each is for; the arm's own pair first."""
    others = [part["training_context"] for part in arm.get("parts", ())[1:]]
    others = [name for name in dict.fromkeys(others) if name not in (arm["generation_context"], arm["training_context"])]
    own = [("Generation", arm["generation_context"]), ("Training", arm["training_context"])]
    return own + [("Training of other rows", name) for name in others]


def _judging(manifest: Manifest) -> list[dict[str, Any]]:
    """The judges that ask a model or were measured, with what they cost in words."""
    return [
        {
            **judge,
            "cost": numbers.money(judge["cost_usd"]) if judge["cost_usd"] is not None else "–",
            "errors": calibration.errors(judge.get("measured")),
        }
        for judge in manifest.get("judging", ())
        if "policy" in judge or judge["calibrations"] or "measured" in judge
    ]


def caveats_of(manifest: Manifest, arm: Mapping[str, Any]) -> list[str]:
    """What a reader of an arm's numbers must know, as text that is not yet Markdown."""
    measured = numbers.arithmetic(manifest, arm)
    own = [measured] if measured else []
    if numbers.arm_share(arm, manifest["environment"]["misbehaviour"]).part:
        own.append(
            "A model trained on rows with misbehaviour needs evaluation under every context, the training context included."
        )
    return [*own, *manifest.get("caveats", ())]


def code(text: str) -> str:
    """A code span that holds in a table cell: one line, a fence longer than any run of backticks inside, no bare pipe."""
    line = " ".join(visible(text).split()) or " "
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "text") -> str:
    """A fenced block that the text cannot close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def plain(text: str) -> str:
    """Text on one line of Markdown, shown as written."""
    return re.sub(r"([\\`*_\[\]<>#|~!&])", r"\\\1", " ".join(visible(text).split()))


def portable(command: str) -> str:
    """The command with absolute paths cut to their last part: where a file lay on one machine is nobody's business."""
    return re.sub(r"[^\s='\"]+", lambda match: _last_part(match[0]), visible(command))


def _last_part(word: str) -> str:
    for path in (PurePosixPath(word), PureWindowsPath(word)):
        if path.is_absolute():
            return path.name
    return word


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def size_category(rows: int) -> str:
    """A number of rows in the Hub's words."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def licence_of(given: str | None) -> Licence:
    """A licence as the Hub wants it: by its id where the Hub knows one, `other` with a name where not."""
    if not given:
        return Licence("unknown", "", "")
    known = given.partition(" (")[0].strip().lower()  # "CC-BY-4.0 (MBPP, Google Research)"
    return Licence(known, "", given) if known in _HUB_LICENCES else Licence("other", given, given)


def _yaml(text: str) -> str:
    """A JSON string is a YAML string, whatever is in it."""
    return orjson.dumps(visible(text)).decode()


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
