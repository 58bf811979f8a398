"""What a judge's code is, as a hash: an edited judge makes another run, which judges anew and asks for no reply again.

Hashed are the bytes of the module that the judge's class is written in, of every module of its room (its package) that this
one imports, directly or through others, and of what these import from the rest of the toolkit, apart from the plumbing that
no verdict depends on. What comes from other packages is not followed: versions are in the manifest.
"""

import ast
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path

PLUMBING = ("config", "errors", "records", "kinds", "policies", "reports", "resources", "yaml_text")
"""Modules and rooms of the toolkit that judges use and that decide nothing."""


def code_identity(judge: object) -> str:
    """Hash of the source that decides what a judge says; of the class's name where it has no file (typed into a session)."""
    kind = type(judge)
    digest = hashlib.sha256(kind.__qualname__.encode())
    for name, path in sorted(_files(kind).items()):
        content = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows is the same code
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _files(kind: type) -> dict[str, Path]:
    """Module -> file, of all that is hashed."""
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
            plumbing = name.removeprefix(f"{toolkit}.").partition(".")[0] in PLUMBING
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
