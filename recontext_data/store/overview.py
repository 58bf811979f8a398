"""What lies in an output folder, read off its manifests, locks and journals. Writes nothing and waits for nobody."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recontext_data.core.errors import StoreError
from recontext_data.store.run_folder import RunFolder

_FINGERPRINT = re.compile("[0-9a-f]{16}")

DONE, BUILDING, UNFINISHED, DAMAGED = "done", "building", "unfinished", "damaged"
"""A run's state: its manifest agrees with its files; somebody holds its lock; neither; its manifest cannot be read."""


def overview(output: Path) -> dict[str, Any]:
    """`runs`, the newest first, and `stores`. What is not known is None, never 0."""
    runs = sorted(_runs(output), key=lambda run: (run["created"] or "9999", run["recipe"]), reverse=True)
    return {"output": str(output), "runs": runs, "stores": _stores(output)}


def _runs(output: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((output / "runs").glob("*/*")):
        if path.is_dir() and not path.is_symlink() and _FINGERPRINT.fullmatch(path.name):  # labels/ stands beside the runs
            yield _run(output, path)


def _run(output: Path, path: Path) -> dict[str, Any]:
    folder = RunFolder(output, recipe=path.parent.name, fingerprint=path.name)
    held, damage = is_held(path / ".lock"), None
    manifest: Mapping[str, Any] | None = None
    try:
        manifest = folder.manifest()
    except StoreError as error:
        damage = str(error)
    state = DONE if manifest else BUILDING if held else DAMAGED if damage else UNFINISHED
    return {
        "recipe": path.parent.name,
        "fingerprint": path.name,
        "folder": str(path),
        "state": state,
        "is_locked": held,
        "is_latest": (path.parent / "latest").exists() and (path.parent / "latest").resolve() == path.resolve(),
        "damage": damage,
        "models": len(list(path.glob("models*/*/seed-*/training.json"))),
        "is_evaluated": (path / "evaluation" / "results.json").is_file(),
        **_of_manifest(manifest),
    }


def _of_manifest(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    if manifest is None:
        return dict.fromkeys(("created", "tasks", "rows", "sampled", "failed", "cost_usd", "judging_usd"))
    judged = [one.get("cost_usd") for one in manifest.get("judging", ())]
    return {
        "created": manifest["created"],
        "tasks": manifest["tasks"],
        "rows": sum(sum(arm["rows"].values()) for arm in manifest["arms"]),
        "sampled": manifest["requests"]["wanted"] - manifest["requests"]["failed"],
        "failed": manifest["requests"]["failed"],
        "cost_usd": manifest["cost_usd"],
        "judging_usd": sum(cost for cost in judged if cost is not None) if any(c is not None for c in judged) else None,
    }


def _stores(output: Path) -> list[dict[str, Any]]:
    folder = output / "replies"
    if not folder.is_dir():
        return []
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.upkeep import summary

    facts = summary(ReplyStore(folder))
    return [
        {
            "folder": str(folder),
            "replies": facts.replies,
            "bytes": facts.bytes,
            "segments": facts.segments,
            "journals": facts.journals,
            "writers": sum(is_held(lock) for lock in folder.glob("journal-*.lock")),
            "set_aside": facts.aside,
            "batches": len(list((folder / "batches").glob("*.json"))),
        }
    ]


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock. One that nobody holds is taken for a moment and given back: whoever wants it in that
    moment finds it held and waits."""
    if not lock.is_file():
        return False
    from filelock import FileLock, Timeout

    one = FileLock(lock, thread_local=False)
    try:
        one.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return False
    one.release()
    return False
