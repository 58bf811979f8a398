"""Where forged problems come from: our bank, MBPP, or a file; forged once and kept.

Forging runs code in the sandbox and takes a minute for MBPP, so its result is kept in the cache folder under the hash of
what went in and of the code that made it. The bank ships with its items and needs neither.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import DataError, did_you_mean
from recontext_data.core.records import Task, content_hash
from recontext_data.core.resources import shipped
from recontext_data.core.row_ledger import entry
from recontext_data.environments.base import ALL, TaskSet, chosen_numbers, require_unique_ids
from recontext_data.environments.coding import CodingProblems
from recontext_data.environments.problems import Problem, ProblemFile, read_json_lines
from recontext_data.store.files import file_digest, replace_file, writing
from recontext_data.store.task_file import TaskFile

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

BANK_LICENCE = "Apache-2.0 (the problem bank of recontext_data)"
MBPP_LICENCE = "CC-BY-4.0 (MBPP, Google Research)"
MBPP_ID = "google-research-datasets/mbpp"

BATCH = 100
"""Problems forged between two words to the screen."""


@dataclass(frozen=True)
class Items:
    """Forged problems, and what could not be forged with the reason."""

    problems: Iterable[Problem]
    """Gone through again each time that it is asked for its problems."""
    dropped: list[tuple[str, str]]
    licence: str = ""


def load_items(source: str, *, plus: str | None, cache: Path, screen: "Screen | None" = None) -> Items:
    """The forged problems of a source: `bank`, `mbpp`, a Hub id or a path.

    Raises:
        DataError: the source is missing, malformed or empty.
        SandboxMissing: the source has to be forged, and there is no sandbox to run its code in.
    """
    if plus is not None and (source == "bank" or (Path(source).is_file() and _is_ours(source))):
        raise DataError(f"environment.plus={plus}: only MBPP has MBPP+; leave it out, or set environment.problems=mbpp")
    if source == "bank":
        return Items(ProblemFile(shipped("data/problems.jsonl")), [], BANK_LICENCE)
    if _is_ours(source) and (file := ProblemFile(Path(source))).is_forged:
        return Items(file, [], "")  # nothing to derive, so nothing to keep: a refused or dry build writes nothing
    name = MBPP_ID if source == "mbpp" else source
    files = [Path(part) for part in (name, plus) if part is not None]
    if all(file.is_file() for file in files):
        key = content_hash([_versions(), [file_digest(file) for file in files]])
        return _kept(cache / f"items-{key[:32]}.json", lambda: _loaded(name, plus, screen))
    # What a Hub id stands for is known only when it has been read.
    problems, licence = _read(name, plus)
    key = content_hash([_versions(), [problem.model_dump(mode="json") for problem in problems]])
    return _kept(cache / f"items-{key[:32]}.json", lambda: _forged(problems, licence, screen))


def load_tasks(
    asked: CodingProblems, to_task: Callable[[Problem], Task | str], *, cache: Path, screen: "Screen | None" = None
) -> TaskSet:
    """The tasks that `to_task` makes of the problems asked for, as `Environment.load` gives them; a text is why it makes none.

    Raises:
        DataError, SandboxMissing: as `load_items`; no problem is in the split; an id is there twice.
    """
    source = load_items(asked.problems, plus=asked.plus, cache=cache, screen=screen)
    drops = [f"cannot be forged: {reason}" for _id, reason in source.dropped]
    tasks, ids = TaskFile(), list[str]()
    splits: Counter[str] = Counter()
    for problem in source.problems:  # one at a time: a task is much smaller than the problem that it is made of
        splits[problem.split] += 1
        if asked.split in (ALL, problem.split):
            made = to_task(problem)
            if isinstance(made, Task):
                tasks.add(made)
                ids.append(made.task_id)
            else:
                drops.append(made)
    others = 0 if asked.split == ALL else splits.total() - splits[asked.split]
    if others == splits.total():
        raise DataError(
            f"environment.split={asked.split}: no problem is in it; {did_you_mean(asked.split, [*sorted(splits), ALL])}"
        )
    require_unique_ids(ids, asked.problems)
    drops += ["another split"] * others
    kept = tasks.picked(chosen_numbers(ids, limit=asked.tasks, seed=asked.seed))
    drops += [f"over the limit of {asked.tasks} tasks"] * (len(tasks) - len(kept))
    rows_in = splits.total() + len(source.dropped)
    return TaskSet(kept, entry("tasks", "all", rows_in=rows_in, kept=len(kept), drops=drops), source.licence)


def _loaded(source: str, plus: str | None, screen: "Screen | None") -> Items:
    if plus is not None and screen is not None:
        screen.note("computing the expected values of MBPP+'s inputs in the sandbox (a minute or two, once)")
    problems, licence = _read(source, plus)
    if all(problem.forged for problem in problems):
        return Items(problems, [], licence)
    return _forged(problems, licence, screen)


def _read(source: str, plus: str | None) -> tuple[list[Problem], str]:
    if _is_ours(source):
        problems, licence = list(ProblemFile(Path(source))), ""
    else:
        from recontext_data.environments import mbpp

        problems, licence = mbpp.load(source, plus=plus), MBPP_LICENCE
    if not problems:
        raise DataError(f"environment.problems={source}: there is no problem in it")
    return problems, licence


def _is_ours(source: str) -> bool:
    """Whether a file is in our format rather than MBPP's, by the keys of its first line."""
    if not source.endswith(".jsonl"):
        return False
    first = next(read_json_lines(Path(source), "environment.problems"), None)
    if first is None:
        raise DataError(f"environment.problems={source}: the file is empty")
    return isinstance(first[1], dict) and "problem_id" in first[1]


def _forged(problems: list[Problem], licence: str, screen: "Screen | None") -> Items:
    from recontext_data.environments import forge
    from recontext_data.sandbox import open_sandbox

    done: list[Problem] = []
    dropped: list[tuple[str, str]] = []
    stage = screen.stage("forge", len(problems), unit="problems") if screen else contextlib.nullcontext()
    with open_sandbox() as sandbox, stage as tracker:
        for start in range(0, len(problems), BATCH):
            batch = problems[start : start + BATCH]
            made, failed = forge.forge(batch, sandbox=sandbox)
            done += made
            dropped += failed
            if tracker is not None:
                tracker.advance(len(batch), failed=len(failed))
    return Items(done, dropped, licence)


def _kept(path: Path, make: Callable[[], Items]) -> Items:
    """What `make` gives, from the file where it was made before."""
    import orjson

    if path.is_file():
        stored = orjson.loads(path.read_bytes())
        return Items(
            [Problem.model_validate(row) for row in stored["problems"]],
            [tuple(d) for d in stored["dropped"]],
            stored["licence"],
        )
    items = make()
    stored = {
        "problems": [problem.model_dump(mode="json") for problem in items.problems],
        "dropped": items.dropped,
        "licence": items.licence,
    }
    with writing(cache := path.parent):
        cache.mkdir(parents=True, exist_ok=True)
    replace_file(path, functools.partial(_write_json, stored))
    return items


def _versions() -> list[str]:
    """The sources of the forge and the loaders: what another version of them made is not served."""
    from recontext_data.environments import forge

    here = Path(__file__).parent
    return [forge.version(), *(file_digest(path) for path in sorted(here.glob("mbpp*.py"))), file_digest(here / "asserts.py")]


def _write_json(value: Any, path: Path) -> None:
    import orjson

    path.write_bytes(orjson.dumps(value))
