"""What an evaluation's results say: arms in order, rates, differences, the arithmetic, and the finding in words. Pure.

The report and the screen both take their numbers from here, so that they cannot differ. `results` is what
`evaluation.results.write_results` returns and writes to results.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recontext_data.reports.numbers import EN_DASH, Share, percent, policy_name

Results = Mapping[str, Any]

BEFORE = "before"
MINUS = "\u2212"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmName:
    """How an arm is called where space is short."""

    key: str
    """As the results have it."""
    title: str
    """Its kind, or its own name where its author gave it one."""
    pair: str
    """`default → hack`; empty for the policy before training and for a model that the recipe names."""
    place: int
    """In the order of the report: 0 is the policy before training, 1 the baseline."""

    @property
    def trained_on(self) -> str:
        """`trained on default → hack`, or `before any training`; an arm with a name of its own says it."""
        if self.key == BEFORE:
            return "before any training"
        if not self.pair:
            return f"as {self.title}"
        return f"trained on {self.pair}" + (f" ({self.title})" if self.is_named else "")

    @property
    def is_named(self) -> bool:
        """Whether its author named it."""
        return bool(self.pair) and self.title == self.key


def arms(results: Results) -> list[ArmName]:
    """The arms that were measured: the policy before, the baseline, the others in the recipe's order, other models last."""
    measured = dict.fromkeys(cell["arm"] for cell in results["cells"])
    order = dict.fromkeys([BEFORE, results["baseline"], *results["arms"], *measured])
    return [_arm_name(results, key, place) for place, key in enumerate(order) if key in measured]


def _arm_name(results: Results, key: str, place: int) -> ArmName:
    if key == BEFORE:
        return ArmName(key=key, title="before training", pair="", place=place)
    if key not in results["arms"]:
        return ArmName(key=key, title=key, pair="", place=place)
    arm = results["arms"][key]
    derived = f"{arm['kind']}.{arm['generation']}-{arm['training']}"
    pair = f"{arm['generation']} → {arm['training']}"
    return ArmName(key=key, title=arm["kind"] if key == derived else key, pair=pair, place=place)


def marks(results: Results) -> dict[str, list[str]]:
    """By context, what sets it apart from those that the arms are made of: `placebo`, `negates hack`."""
    return {
        name: [role for role in context.get("roles", ()) if role == "placebo" or role.startswith("negates ")]
        for name, context in results["contexts"].items()
    }


def cell_of(results: Results, arm: str, context: str) -> Mapping[str, Any] | None:
    """What was counted for an arm under a context; None where it was not measured."""
    return next((cell for cell in results["cells"] if (cell["arm"], cell["context"]) == (arm, context)), None)


def rate_of(results: Results, arm: str, context: str) -> float | None:
    """The misbehaviour rate; None where nothing was scored."""
    cell = cell_of(results, arm, context)
    return cell["rate"]["estimate"] if cell and cell["rate"] else None


def scored(cell: Mapping[str, Any]) -> int:
    """Answers with a label."""
    return sum(cell["counts"].values())


def seeds_of(cell: Mapping[str, Any]) -> int:
    """How many trained models are behind a cell."""
    return len(cell["per_seed"])


def interval(bounds: Mapping[str, Any]) -> str:
    """`9.8-15.0` with an en dash, in percent."""
    return f"{100 * bounds['low']:.1f}{EN_DASH}{100 * bounds['high']:.1f}"


def points(share: float) -> str:
    """`−26.8` or `+0.4`: percentage points, with a sign; what rounds to 0 has none."""
    text = f"{abs(100 * share):.1f}"
    return text if text == "0.0" else (MINUS if share < 0 else "+") + text


def point_interval(row: Mapping[str, Any]) -> str:
    """`−31.0 to −22.5`"""
    return f"{points(row['low'])} to {points(row['high'])}"


def excludes_zero(row: Mapping[str, Any]) -> bool:
    """Whether the interval, uncorrected for other comparisons, leaves out "no difference"."""
    return bool(row["low"] > 0 or row["high"] < 0)


def p_value(p: float) -> str:
    """`< 0.001`, `0.012`, `0.43`"""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def level(results: Results) -> str:
    """`95 %`, from the confidence that the intervals were computed with."""
    return f"{100 * results['confidence']:g} %"


def headline(results: Results) -> ArmName | None:
    """The arm that the finding is about: the first recontextualized one, else the first that is not the baseline."""
    trained = [arm for arm in arms(results) if arm.key != results["baseline"] and arm.key in results["arms"]]
    chosen = [arm for arm in trained if results["arms"][arm.key]["kind"] == "recontextualized"]
    return next(iter([*chosen, *trained]), None)


def finding(results: Results) -> str:
    """One sentence that follows from the cells and the differences and from nothing else."""
    names = list(results["contexts"])
    found = {arm.key: arm for arm in arms(results)}
    if not any(cell["rate"] for cell in results["cells"]):
        return "No answer was scored, so nothing can be said about any model."
    first, baseline = headline(results), found.get(results["baseline"])
    subject = first or (baseline if baseline and baseline.key != BEFORE else found[BEFORE])
    bad, policy = results["environment"]["misbehaviour"], policy_name(results)
    said = f"{_capital(subject.trained_on)}, {policy} gave answers labelled {bad} "
    said += f"in {_rates(results, subject.key)} of cases under {' / '.join(names)}"
    if subject.key == BEFORE:
        return f"{said}; no trained model has been measured yet."
    against = baseline if first and baseline else found.get(BEFORE)
    if against is None:
        return f"{said}."
    said += f", against {_rates(results, against.key)} {'when ' if against.pair else ''}{against.trained_on}"
    if first is None or baseline is None:
        return f"{said}; there is no other arm to compare it with, so this is what training did and not what the prompts did."
    return f"{said} ({_verdict(results, first.key)})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _rates(results: Results, arm: str) -> str:
    """`3.1 / 12.2 / 27.2 %`, in the order of the contexts."""
    found = [rate_of(results, arm, name) for name in results["contexts"]]
    return " / ".join(EN_DASH if rate is None else percent(rate).removesuffix(" %") for rate in found) + " %"


def _verdict(results: Results, arm: str) -> str:
    """What the intervals of the differences say, context by context, and what they do not cover."""
    rows = [row for row in results["differences"] if row["arm"] == arm]
    without = [name for name in results["contexts"] if name not in {row["context"] for row in rows}]
    if not rows:
        return "no seed or task is shared by both, so no difference can be tested"
    apart = [row["context"] for row in rows if excludes_zero(row)]
    same = [row["context"] for row in rows if not excludes_zero(row)]
    said = [f"excludes 0 under {_words(apart)}"] * bool(apart) + [f"includes 0 under {_words(same)}"] * bool(same)
    parts = [f"the {level(results)} interval of the difference {' and '.join(said)}", *_corrected(results, rows)]
    parts += [f"no difference can be tested under {_words(without)}"] * bool(without)
    num_seeds = min(row["num_seeds"] for row in rows)
    parts.append("one seed: says nothing about retraining" if num_seeds == 1 else f"{num_seeds} seeds")
    return "; ".join(parts)


def _corrected(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is left after Holm's correction, where that is less than the intervals say."""
    alpha = 1 - results["confidence"]
    apart = [row for row in rows if excludes_zero(row)]
    kept = [row["context"] for row in apart if row["p_holm"] < alpha]
    if len(kept) == len(apart):
        return []
    left = f"only under {_words(kept)}" if kept else "nowhere"
    return [f"after correction for {len(results['differences'])} comparisons it is significant {left}"]


def _words(names: Sequence[str]) -> str:
    """`control, default and hack`"""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """How an arm's rows compare with what the policy itself does under the arm's training context."""

    arm: ArmName
    training: str
    rows: Share
    """Rows of the arm that are misbehaviour."""
    own: float | None
    """The policy's rate under the training context before training."""
    after: float | None
    """The trained models' rate there."""

    @property
    def gap(self) -> float | None:
        """Rows minus own rate: what imitation alone pulls by."""
        return None if self.own is None or self.rows.value is None else self.rows.value - self.own


def arithmetic(results: Results) -> list[Arithmetic]:
    """One entry per arm that was measured and whose rows are known."""
    bad, rows = results["environment"]["misbehaviour"], results.get("rows", {})
    return [
        Arithmetic(
            arm=arm,
            training=(training := results["arms"][arm.key]["training"]),
            rows=Share(part=rows[arm.key].get(bad, 0), whole=sum(rows[arm.key].values())),
            own=rate_of(results, BEFORE, training),
            after=rate_of(results, arm.key, training),
        )
        for arm in arms(results)
        if arm.key in rows
    ]
