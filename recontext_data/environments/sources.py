"""Where forged problems come from: our bank, MBPP, or a file; forged once and kept.

Forging runs code in the sandbox and takes a minute for MBPP, so its result is kept in the cache folder under the hash of
what went in. The bank ships with its items and needs neither.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recontext_data.environments.problems import Problem, read_json_lines, read_problems
from recontext_data.errors import DataError
from recontext_data.records import content_hash
from recontext_data.resources import shipped
from recontext_data.store.files import replace_file

BANK_LICENCE = "Apache-2.0 (the problem bank of recontext_data)"
MBPP_LICENCE = "CC-BY-4.0 (MBPP, Google Research)"
MBPP_ID = "google-research-datasets/mbpp"


@dataclass(frozen=True)
class Items:
    """Forged problems, and what could not be forged with the reason."""

    problems: list[Problem]
    dropped: list[tuple[str, str]]
    licence: str = ""


def load_items(source: str, *, plus: str | None, cache: Path) -> Items:
    """The forged problems of a source: `bank`, `mbpp`, a Hub id or a path.

    Raises:
        DataError: the source is missing, malformed or empty.
        SandboxMissing: the source has to be forged, and there is no sandbox to run its code in.
    """
    if source == "bank":
        return Items(read_problems(shipped("data/problems.jsonl")), [], BANK_LICENCE)
    if _is_ours(source):
        problems = read_problems(Path(source))
        licence = ""
    else:
        from recontext_data.environments import mbpp

        problems = mbpp.load(MBPP_ID if source == "mbpp" else source, plus=plus)
        licence = MBPP_LICENCE
    if not problems:
        raise DataError(f"environment.problems={source}: there is no problem in it")
    if all(problem.forged for problem in problems):
        return Items(problems, [], licence)
    return _forged(problems, cache=cache, licence=licence)


def _is_ours(source: str) -> bool:
    """Whether a file is in our format rather than MBPP's, by the keys of its first line."""
    if not source.endswith(".jsonl"):
        return False
    rows = read_json_lines(Path(source), "environment.problems")
    if not rows:
        raise DataError(f"environment.problems={source}: the file is empty")
    first = rows[0][1]
    return isinstance(first, dict) and "problem_id" in first


def _forged(problems: list[Problem], *, cache: Path, licence: str) -> Items:
    from recontext_data.environments import forge
    from recontext_data.sandbox import open_sandbox

    key = content_hash([_forge_version(), [problem.model_dump(mode="json") for problem in problems]])
    path = cache / f"forged-{key[:32]}.json"
    if path.is_file():
        stored = orjson.loads(path.read_bytes())
    else:
        with open_sandbox() as sandbox:
            done, dropped = forge.forge(problems, sandbox=sandbox)
        stored = {"problems": [problem.model_dump(mode="json") for problem in done], "dropped": dropped}
        cache.mkdir(parents=True, exist_ok=True)
        replace_file(path, functools.partial(_write_json, stored))
    return Items([Problem.model_validate(row) for row in stored["problems"]], [tuple(d) for d in stored["dropped"]], licence)


def _forge_version() -> str:
    """The forge's own source: an item forged by another version is not served."""
    from recontext_data.environments import forge

    return content_hash(Path(forge.__file__).read_text(encoding="utf-8"))


def _write_json(value: Any, path: Path) -> None:
    path.write_bytes(orjson.dumps(value))
