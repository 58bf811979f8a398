"""Measures the structure of the package against the floor plan of docs/design.md: `python scripts/check_house.py`.

Prints each figure beside its limit and exits with 1 if one is missed; `tests/test_house.py` runs the same checks. A room is
a folder of the package, its subfolders included; the verbs, `cli` and the package's own `__init__` are rooms as well.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "recontext_data"
VERBS = ["build", "preview", "train", "evaluate", "iterate", "sweep"]
VERBS += ["calibrate", "publish", "view", "status", "replies", "power"]
FLOORS = (
    *("core", "stats", "contexts", "sandbox", "store", "reports", "environments", "policies", "judges", "gates", "config"),
    *("pipeline", "training", "publishing", "evaluation", "experiments", "viewer", "api", "cli", "verbs"),
)
"""Rooms from the ground up. A module imports from its own room and from rooms below it."""

LIMITS = {
    "upward imports": 0,
    "rooms in an import knot": 0,
    "repeated public class names": 0,
    "uses of Any": 885,  # on the way to 300
    "lines of source": 41_350,  # on the way to 37,000
    "lines of the longest module": 400,
    "lines of the longest function": 50,
    "lines of the longest verb": 60,
}


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room of a module, by its dotted name below the package."""
    first = module.partition(".")[0]
    if first in VERBS or first == "__main__":
        return "verbs"
    return first or "api"


def imports(known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Pairs (importing module, imported module), imports inside functions and for type checkers included."""
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] != PACKAGE.name:
                    continue
                target = name.partition(".")[2]
                while target and target not in known:
                    target = target.rpartition(".")[0]
                if target != module:
                    yield module, target


def upward(known: dict[str, Path]) -> list[str]:
    """Imports from a room that is above the importing one."""
    rank = {room: floor for floor, room in enumerate(FLOORS)}
    pairs = {(module, target) for module, target in imports(known) if rank[room_of(target)] > rank[room_of(module)]}
    return sorted(f"{module} imports {target or PACKAGE.name}" for module, target in pairs)


def knots(known: dict[str, Path]) -> list[str]:
    """Rooms that reach themselves through imports of other rooms."""
    below: dict[str, set[str]] = defaultdict(set)
    for module, target in imports(known):
        if room_of(module) != room_of(target):
            below[room_of(module)].add(room_of(target))
    return sorted(room for room in below if room in _reached(below, room))


def _reached(below: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(below[start])
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting += below.get(room, ())
    return found


def repeated_classes(known: dict[str, Path]) -> list[str]:
    """Class names, private ones included, that two modules define."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, path in known.items():
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    return sorted(f"{name}: {', '.join(where)}" for name, where in homes.items() if len(where) > 1)


def count_any(text: str) -> int:
    """Uses of `Any` in code and in quoted annotations; the imports of it are not counted."""
    count = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            count += node.id == "Any"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\[.*\bAny\b", node.value):
            count += len(re.findall(r"\bAny\b", node.value)) if len(node.value) < 200 else 0
    return count


def longest_function(path: Path) -> int:
    """Lines of the longest function of a file."""
    functions = (n for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return max(((n.end_lineno or n.lineno) - n.lineno + 1 for n in functions), default=0)


def measure() -> dict[str, int]:
    """Every figure of `LIMITS`, as it is now."""
    known = modules()
    texts = {module: path.read_text(encoding="utf-8") for module, path in known.items()}
    lines = {module: text.count("\n") for module, text in texts.items()}
    return {
        "upward imports": len(upward(known)),
        "rooms in an import knot": len(knots(known)),
        "repeated public class names": len(repeated_classes(known)),
        "uses of Any": sum(map(count_any, texts.values())),
        "lines of source": sum(lines.values()),
        "lines of the longest module": max(lines.values()),
        "lines of the longest function": max(map(longest_function, known.values())),
        "lines of the longest verb": max(lines[verb] for verb in VERBS),
    }


def main() -> int:
    """Prints the figures; 1 if one is over its limit."""
    found = measure()
    for name, limit in LIMITS.items():
        print(f"{'missed' if found[name] > limit else 'ok':7} {name}: {found[name]:,} (at most {limit:,})")
    known = modules()
    for place in [*upward(known), *repeated_classes(known)]:
        print(f"        {place}")
    return any(found[name] > limit for name, limit in LIMITS.items())


if __name__ == "__main__":
    sys.exit(main())
