"""Checkpoints of a training under way, in a folder beside where the model will be.

    models/<arm>/.seed-0.work/request.json, checkpoint-100/

A checkpoint counts only with a whole trainer_state.json, which the trainer writes last; what a kill left half written is
removed. A folder that another request left (other rows, another config) is begun anew.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recontext_data.store.files import replace_file, writing

STATE = "trainer_state.json"


def work_folder(target: Path) -> Path:
    """Where the training of `target` keeps its checkpoints."""
    return target.with_name(f".{target.name}.work")


def prepare(work: Path, request: Mapping[str, Any]) -> Path | None:
    """Makes the work folder fit for this request; returns the checkpoint to continue from, if there is one."""
    text = json.dumps(request, sort_keys=True, indent=1)
    note = work / "request.json"
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        with writing(work):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        replace_file(note, lambda path: path.write_text(text, encoding="utf-8"))
        return None
    for folder in work.glob("checkpoint-*"):
        if finished_step(folder) is None:
            shutil.rmtree(folder)
    return latest(work)


def latest(work: Path) -> Path | None:
    """The finished checkpoint of the most steps."""
    found = {step: folder for folder in work.glob("checkpoint-*") if (step := finished_step(folder)) is not None}
    return found[max(found)] if found else None


def finished_step(folder: Path) -> int | None:
    """The step that a checkpoint stands at; None for one that was not written to its end."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    step = state.get("global_step") if isinstance(state, dict) else None
    return step if isinstance(step, int) and folder.name == f"checkpoint-{step}" else None


def remove(work: Path) -> None:
    """Checkpoints of a training that is finished."""
    shutil.rmtree(work, ignore_errors=True)
