"""Why a reply was not found: what was wanted beside what is stored for the same prompt. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Asked = Mapping[str, Any]
"""The parts of a reply's key, as the store keeps them: see `pipeline.purchase.asked_for`."""

NO_PROMPT = "no reply to this prompt is stored: its text is new, or was changed"
OTHER_RANKS = "the same prompt, asked for in the same way, is stored for other ranks (k) only"
OTHER_KEY = "the same was asked for by a version that made its keys in another way"


def why(wanted: Asked, stored: Sequence[Asked]) -> str:
    """One line on how the nearest of the stored replies to the same prompt differs from the wanted one."""
    if not stored:
        return NO_PROMPT
    nearest = min(stored, key=lambda one: _distance(wanted, one))
    differing = _differing(wanted, nearest)
    if differing:
        return "the same prompt is stored with " + ", ".join(_text(*difference) for difference in differing)
    return OTHER_KEY if nearest.get("k") == wanted.get("k") else OTHER_RANKS


def _distance(wanted: Asked, stored: Asked) -> tuple[int, bool]:
    other_rank = stored.get("k") != wanted.get("k")
    return len(_differing(wanted, stored)) + other_rank, other_rank


def _differing(wanted: Asked, stored: Asked) -> list[tuple[str, Any, Any]]:
    """(name, stored, wanted) of what differs, ranks apart; another rank has another seed by itself."""
    ours, theirs = dict(flat(wanted)), dict(flat(stored))
    left_out = {"k", "prompt"} | ({"seed"} if ours.get("k") != theirs.get("k") else set())
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        (name, theirs.get(name), ours.get(name))
        for name in names
        if name not in left_out and theirs.get(name) != ours.get(name)
    ]


def flat(asked: Asked, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values with dots for depth: `policy.model`."""
    for name, value in asked.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(name: str, stored: Any, wanted: Any) -> str:
    # A seed is a hash: its digits say nothing, and would make every row a reason of its own.
    return "another seed" if name == "seed" else f"{name} {_short(stored)} (wanted {_short(wanted)})"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else text[:45] + "..."
