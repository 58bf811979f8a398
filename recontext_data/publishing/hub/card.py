"""The card of a dataset repository: README.md with the header that the Hub and `load_dataset` read.

Its parts are those of an arm's own card (`reports/card.py`), put together for all arms. The same run gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from recontext_data.contexts.context import NONE
from recontext_data.core.tables import TRAINING_ROWS
from recontext_data.publishing.hub.data import Split
from recontext_data.reports import numbers
from recontext_data.reports.arm_parts import generated_under, trained_under, which
from recontext_data.reports.card import Licence, caveats_of, code, licence_of, markdown_environment, portable, size_category
from recontext_data.reports.numbers import Manifest


def repository_card(manifest: Manifest, *, repo: str, splits: Sequence[Split], licence: str | None = None) -> str:
    """README.md of a repository with these splits. `licence`: an id of the Hub's, in place of what the problems come under."""
    template = markdown_environment().get_template("hub_card.md.j2")
    return template.render(manifest=manifest, repo=repo, licence=_licence(manifest, licence), **_facts(manifest, splits))


def _licence(manifest: Manifest, wanted: str | None) -> Licence:
    own = licence_of(manifest["environment"].get("licence"))
    return own if wanted is None else Licence(wanted, "", own.text or wanted)


def _facts(manifest: Manifest, splits: Sequence[Split]) -> dict[str, Any]:
    published = {split.arm for split in splits}
    arms = [arm for arm in manifest["arms"] if arm["name"] in published]
    bad = manifest["environment"]["misbehaviour"]
    used = {side for arm in arms for side in (*generated_under(arm), *trained_under(arm))}
    scopes = used | published
    ledger = [e for e in numbers.ledger(manifest) if e.stage == "tasks" or scopes & {e.scope, e.scope.split(" / ")[0]}]
    return {
        "arms": [_arm(manifest, arm, splits) for arm in arms],
        "split_names": list(dict.fromkeys(split.name for split in splits)),
        "labels": numbers.labels(manifest),
        "bad": bad,
        "bad_total": sum(numbers.arm_share(arm, bad).part for arm in arms),
        "size": size_category(sum(split.rows for split in splits)),
        "contexts": {name: context for name, context in manifest["contexts"].items() if name in used},
        "bare": NONE in used,
        "given": sorted(used - set(manifest["contexts"]) - {NONE}),
        "judges": [_judge(manifest, judge) for judge in manifest["recipe"].get("judges", ())],
        "ledger": ledger,
        "gates": _gates(manifest, published),
        "columns": TRAINING_ROWS,
        "command": portable(manifest.get("command") or f"recontext build recipe={manifest['recipe_name']}"),
        "caveats": _caveats(manifest, arms),
    }


def _caveats(manifest: Manifest, arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What holds for every arm once, and what holds for one under its name."""
    of_arm = {arm["name"]: caveats_of(manifest, arm) for arm in arms}
    shared = [text for text in next(iter(of_arm.values())) if all(text in texts for texts in of_arm.values())]
    own = [f"{name}: {text}" for name, texts in of_arm.items() for text in texts if text not in shared]
    return [*own, *shared]


def _arm(manifest: Manifest, arm: Mapping[str, Any], splits: Sequence[Split]) -> dict[str, Any]:
    own = [split for split in splits if split.arm == arm["name"]]
    return {
        "name": arm["name"],
        "kind": arm["kind"],
        "generation": generated_under(arm),
        "training": trained_under(arm),
        "parts": [{**part, "which": which(part)} for part in arm.get("parts", ())],
        "rows": {split.name: split.rows for split in own},
        "labels": arm["labels"],
        "unlabelled": numbers.arm_rows(arm) - sum(arm["labels"].values()),
        "share": numbers.arm_share(arm, manifest["environment"]["misbehaviour"]),
        "splits": [{"name": split.name, "pattern": f"data/{split.arm}/{split.name}-*.parquet"} for split in own],
    }


def _judge(manifest: Manifest, judge: Mapping[str, Any]) -> dict[str, Any]:
    """A judge's line. The manifest has a calibration by judge, or within what it says of the judge; or none."""
    name = judge.get("name") or judge["kind"]
    said = manifest.get("judges")
    of_judge = said.get(name) if isinstance(said, Mapping) else next((j for j in said or () if j.get("name") == name), None)
    found = (manifest.get("calibration") or {}).get(name) or (of_judge or {}).get("calibration")
    return {"name": name, "kind": judge["kind"], "calibration": _in_words(found)}


def _in_words(calibration: Any) -> str:
    """Plain facts as `name value, name value`; what is nested stays in the manifest."""
    if not isinstance(calibration, Mapping):
        return ""
    plain_facts = {key: value for key, value in calibration.items() if isinstance(value, str | int | float | None)}
    return ", ".join(f"{code(str(key))} {'–' if value is None else code(_number(value))}" for key, value in plain_facts.items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _gates(manifest: Manifest, published: set[str]) -> str:
    own = [gate for gate in manifest["gates"] if gate["scope"] in published]
    names = ", ".join(dict.fromkeys(code(gate["gate"]) for gate in own)) or "none"
    violations, rows = sum(gate["violations"] for gate in own), sum(gate["rows"] for gate in own)
    return f"{names}; {violations:,} violations in {rows:,} rows looked at"
