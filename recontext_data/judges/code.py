"""Identity of a judge's code: when the code that decides a verdict changes, the run's fingerprint changes with it.

A judge of somebody's own is identified by its source: the bytes of the module that defines its class, of every module of the
same package that this module imports, directly or through others, and of the toolkit modules that those import, except for
plumbing that no verdict depends on. Other packages are not followed; their versions are in the manifest.

A judge that ships with the toolkit has a pinned identity in `identities.json`, valid for the source whose digest stands
beside it. Moving code or rewording a docstring therefore keeps every run's fingerprint: `scripts/pin_judges.py` records the
new digest, and the tests show that no verdict changed. Source with any other digest has been edited, and identifies itself.
"""

import ast
import functools
import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

PLUMBING = (
    *("core.config", "core.errors", "core.records", "core.registry", "core.resources", "core.yaml_text"),
    *("judges.code", "policies", "reports"),
)
"""Modules and packages of the toolkit that judges import and that decide no verdict."""

IDENTITIES = Path(__file__).with_name("identities.json")
"""Kind of a shipped judge -> {source: digest of today's source, identity: what stands for it in fingerprints}."""


def code_identity(judge: object) -> str:
    """The hash that stands for a judge's code in fingerprints: pinned for unedited shipped judges, else the source's digest."""
    digest = source_digest(judge)
    return _pinned().get(digest, digest)


@functools.cache
def _pinned() -> dict[str, str]:
    return {row["source"]: row["identity"] for row in json.loads(IDENTITIES.read_text(encoding="utf-8")).values()}


def source_digest(judge: object) -> str:
    """SHA-256 of the source that decides a judge's verdicts; of the class's name alone where the class has no file."""
    kind = type(judge)
    digest = hashlib.sha256(kind.__qualname__.encode())
    for name, path in sorted(_files(kind).items()):
        content = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows is the same code
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _files(kind: type) -> dict[str, Path]:
    """Module -> file, for every module that is hashed."""
    room, _, _ = kind.__module__.rpartition(".")
    try:
        first = Path(inspect.getfile(kind))
    except (TypeError, OSError):
        return {}
    toolkit, depth = kind.__module__.partition(".")[0], kind.__module__.count(".")
    root = first.parents[max(depth - 1, 0)]
    found, waiting = {kind.__module__: first}, [first]
    while waiting:
        for name in _imported(waiting.pop(), toolkit):
            path = _file_of(root, name)
            plumbing = f"{name}.".startswith(tuple(f"{toolkit}.{part}." for part in PLUMBING))
            if path is None or name in found or plumbing:
                continue
            found[name] = path
            if room and name.startswith(f"{room}."):  # beyond its room one step, lest everything depend on everything
                waiting.append(path)
    return found


def _imported(path: Path, toolkit: str) -> Iterator[str]:
    """Names under `toolkit` that a file imports, in functions too; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith(f"{toolkit}."))


def _file_of(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
