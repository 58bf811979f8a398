"""The words of a commit: what changed, arm by arm, in rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from recontext_data.publishing.hub.data import Split
from recontext_data.publishing.hub.repo import Change
from recontext_data.publishing.runs import FinishedRun


def dataset_message(run: FinishedRun, splits: Sequence[Split], *, before: Mapping[str, Any], change: Change) -> tuple[str, str]:
    """Title and description of a dataset's commit. `before`: what the repository says of its rows."""
    now: dict[str, dict[str, Split]] = {}
    for split in splits:
        now.setdefault(split.arm, {})[split.name] = split
    added = [arm for arm in now if arm not in before]
    removed = [arm for arm in before if arm not in now]
    changed = [arm for arm in now if arm in before and _differs(now[arm], before[arm])]
    lines = [f"+ {arm}: {_rows(now[arm])}" for arm in added]
    lines += [f"~ {arm}: {_rows(now[arm])}; before: {_rows_before(before[arm])}" for arm in changed]
    lines += [f"- {arm}: removed; it had {_rows_before(before[arm])}" for arm in removed]
    same = [arm for arm in now if arm not in added and arm not in changed]
    lines += [f"= {arm}: the same rows" for arm in same] if before else []
    if not (added or changed or removed):
        lines.append(f"files: {', '.join([*(item.path for item in change.add), *change.delete])}")
    return _title(run, before, added=added, changed=changed, removed=removed), "\n".join([*lines, "", _origin(run)])


def _title(
    run: FinishedRun, before: Mapping[str, Any], *, added: Sequence[str], changed: Sequence[str], removed: Sequence[str]
) -> str:
    if not before:
        return f"{run.recipe_name}: {_count(len(added), 'arm')}"
    parts = [(len(added), "added"), (len(changed), "changed"), (len(removed), "removed")]
    said = ", ".join(f"{_count(count, 'arm')} {what}" for count, what in parts if count)
    return f"{run.recipe_name}: {said or 'card and records, rows unchanged'}"


def models_message(run: FinishedRun, change: Change) -> tuple[str, str]:
    """Title and description of a commit of models."""
    folders = list(dict.fromkeys(item.path.rpartition("/")[0] for item in change.add if "/" in item.path))
    lines = [f"+ {folder}" for folder in folders] + [f"- {path}" for path in change.delete]
    return f"{run.recipe_name}: {_count(len(folders), 'model')}", "\n".join([*lines, "", _origin(run)])


def _differs(now: Mapping[str, Split], before: Mapping[str, Any]) -> bool:
    return {name: split.fingerprint for name, split in now.items()} != {
        name: facts.get("fingerprint") for name, facts in before.items()
    }


def _rows(splits: Mapping[str, Split]) -> str:
    return ", ".join(f"{split.rows:,} rows in {name}" for name, split in splits.items())


def _rows_before(splits: Mapping[str, Any]) -> str:
    return ", ".join(f"{facts['rows']:,} in {name}" for name, facts in splits.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _origin(run: FinishedRun) -> str:
    version = run.manifest.get("versions", {}).get("recontext_data", "unknown")
    return f"recipe {run.recipe_name}, fingerprint {run.fingerprint[:16]}, recontext_data {version}"
