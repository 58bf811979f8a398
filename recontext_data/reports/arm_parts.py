"""What the rows of an arm are made from, in words, for every page and record that names its contexts.

Most arms are one pair of contexts. Those with `where` or `mix` have `parts` in the manifest: rows with another training
context, and rows of given data, each with how many there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from recontext_data.contexts.arms import Arm


def facts(arm: Arm, rows: Sequence[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """The parts of an arm for the manifest. `rows`: generation context, training context and count of each, in their order."""
    own: list[dict[str, Any]] = [{"where": arm.where}, {"otherwise": arm.where}] if arm.where else [{}]
    kinds = [*own, *({"weight": mix.weight} for mix in arm.mix)]
    return [
        {"generation_context": generation, "training_context": training, "rows": count, **kind}
        for (generation, training, count), kind in zip(rows, kinds, strict=True)
    ]


def generated_under(arm: Mapping[str, Any]) -> list[str]:
    """Where an arm's answers come from, its own first: contexts, and `data.NAME` for what is mixed in."""
    return _names(arm, "generation_context")


def trained_under(arm: Mapping[str, Any]) -> list[str]:
    """Every context that rows of an arm are trained on under, its own first."""
    return _names(arm, "training_context")


def _names(arm: Mapping[str, Any], side: str) -> list[str]:
    return list(dict.fromkeys([arm[side], *(part[side] for part in arm.get("parts", ()))]))


def pair(arm: Mapping[str, Any]) -> str:
    """`default -> hack`; of an arm in parts all pairs, such as `default -> hack, default -> default, data.helpful -> none`."""
    sides = [(part["generation_context"], part["training_context"]) for part in arm.get("parts", ())]
    sides = sides or [(arm["generation_context"], arm["training_context"])]
    return ", ".join(f"{generation} -> {training}" for generation, training in sides)


def which(part: Mapping[str, Any]) -> str:
    """Which rows a part is: `detector says hack`, `the other rows`, `mixed in, 0.7 for each row of the arm's own`."""
    if "weight" in part:
        return f"mixed in, {part['weight']:g} for each row of the arm's own"
    said = " and ".join(f"{judge} says {' or '.join(labels)}" for judge, labels in part.get("where", {}).items())
    return said or ("the other rows" if "otherwise" in part else "the arm's own rows")
