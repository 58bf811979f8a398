"""What a manifest's numbers say: rates with intervals, the ledger's balance, the one-sentence finding. Pure.

The report, the screen and the card all take their numbers from here, so that they cannot differ. A rate is a share of
the *judged* answers: an invalid answer is judged and is no misbehaviour, an unscored one is missing and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recontext_data.stats.statistics import wilson

Manifest = Mapping[str, Any]

EN_DASH = "\u2013"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`part` of `whole`, with its 95 % Wilson interval."""

    part: int
    whole: int
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        low, high = wilson(self.part, self.whole)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.part / self.whole if self.whole else None

    @property
    def percent(self) -> str:
        """`39.2 %`, or a dash of nothing."""
        return EN_DASH if self.value is None else percent(self.value)

    @property
    def interval(self) -> str:
        """`36.3-42.2` with an en dash, in percent."""
        return EN_DASH if self.value is None else f"{100 * self.low:.1f}{EN_DASH}{100 * self.high:.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One judge's labels under one context."""

    context: str
    stance: str
    role: str
    judge: str
    tasks: int
    total: int
    """Answers asked for a judgement."""
    counts: Mapping[str, int]
    """Answers per label, every label of the environment first."""
    unscored: Mapping[str, int]
    """Answers without a label, by reason."""
    misbehaviour: Share
    """Of the judged answers."""

    @property
    def num_unscored(self) -> int:
        """Answers without a label."""
        return sum(self.unscored.values())

    @property
    def adds_up(self) -> bool:
        """Labels and unscored together are all answers."""
        return self.misbehaviour.whole + self.num_unscored == self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRow:
    """What a judge that is not about misbehaviour said of the answers under one context, or of one arm's rows."""

    name: str
    num_unscored: int
    shares: Mapping[str, Share]
    """Of the labelled answers, by label."""
    mean_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Such a judge, with its contexts and the arms."""

    judge: str
    labels: Sequence[str]
    contexts: Sequence[OtherRow]
    arms: Sequence[OtherRow]

    @property
    def is_scored(self) -> bool:
        """Whether it gave any score."""
        return any(row.mean_score is not None for row in self.contexts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One line of the row ledger."""

    stage: str
    scope: str
    rows_in: int
    kept: int
    dropped: Mapping[str, int]

    @property
    def num_dropped(self) -> int:
        """Rows dropped, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def balances(self) -> bool:
        """In = kept + dropped."""
        return self.rows_in == self.kept + self.num_dropped


def labels(manifest: Manifest) -> list[str]:
    """Every label: the environment's in its order, then any other that was given."""
    given = [label for rate in _about_misbehaviour(manifest) for label in rate["counts"]]
    given += [label for arm in manifest.get("arms", ()) for label in arm["labels"]]
    return list(dict.fromkeys([*manifest["environment"]["labels"], *given]))


def never_given(manifest: Manifest) -> list[str]:
    """Labels but misbehaviour that no answer got: a sentence, and no column of zeros."""
    counted = [rate["counts"] for rate in _about_misbehaviour(manifest)]
    bad = manifest["environment"]["misbehaviour"]
    return [label for label in labels(manifest) if label != bad and not any(counts.get(label) for counts in counted)]


def rates(manifest: Manifest) -> list[Rate]:
    """The rates in the manifest's order, of the judges that can say that an answer misbehaved."""
    names, bad = labels(manifest), manifest["environment"]["misbehaviour"]
    return [_rate(raw, names=names, bad=bad, contexts=manifest["contexts"]) for raw in _about_misbehaviour(manifest)]


def _about_misbehaviour(manifest: Manifest) -> list[Mapping[str, Any]]:
    bad = manifest["environment"]["misbehaviour"]
    return [raw for raw in manifest.get("rates", ()) if bad in raw.get("labels", (bad,))]


def others(manifest: Manifest) -> list[Other]:
    """What the other judges said, in the recipe's order."""
    bad = manifest["environment"]["misbehaviour"]
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for raw in manifest.get("rates", ()):
        if bad not in raw.get("labels", (bad,)):
            rows.setdefault(raw["judge"], []).append(raw)
    return [
        Other(
            judge=judge,
            labels=list(dict.fromkeys(label for raw in found for label in raw["counts"])),
            contexts=[_other(raw["context"], raw["counts"], raw["mean_score"], sum(raw["unscored"].values())) for raw in found],
            arms=[
                _other(arm["name"], counts := arm["judges"][judge], None, arm_rows(arm) - sum(counts.values()))
                for arm in manifest["arms"]
            ],
        )
        for judge, found in rows.items()
    ]


def _other(name: str, counts: Mapping[str, int], mean_score: float | None, num_unscored: int) -> OtherRow:
    whole = sum(counts.values())
    shares = {label: Share(part=part, whole=whole) for label, part in counts.items()}
    return OtherRow(name=name, num_unscored=num_unscored, shares=shares, mean_score=mean_score)


def proofs(manifest: Manifest) -> list[str]:
    """What each judge proved before anything was sampled, a sentence each."""
    said = []
    for proof in manifest.get("proof", ()):
        answers = ", ".join(f"{count:,} {label}" for label, count in proof["answers"].items())
        said.append(
            f"{proof['judge']} was right about all {sum(proof['answers'].values()):,} answers whose labels are known, "
            f"of {proof['tasks']:,} tasks: {answers}."
        )
    return said


def _rate(raw: Mapping[str, Any], *, names: Sequence[str], bad: str, contexts: Mapping[str, Any]) -> Rate:
    counts = {name: raw["counts"].get(name, 0) for name in names}
    return Rate(
        context=raw["context"],
        stance=contexts.get(raw["context"], {}).get("stance", "nothing added"),
        role=raw["role"],
        judge=raw["judge"],
        tasks=raw["tasks"],
        total=raw["total"],
        counts=counts,
        unscored=raw["unscored"],
        misbehaviour=Share(part=counts.get(bad, 0), whole=sum(counts.values())),
    )


def ledger(manifest: Manifest) -> list[LedgerRow]:
    """The row ledger in the order of the stages."""
    return [
        LedgerRow(stage=e["stage"], scope=e["scope"], rows_in=e["in"], kept=e["kept"], dropped=e["dropped"])
        for e in manifest["ledger"]
    ]


def arm_share(arm: Mapping[str, Any], label: str) -> Share:
    """A label's share of an arm's labelled rows, train and validation together."""
    return Share(part=arm["labels"].get(label, 0), whole=sum(arm["labels"].values()))


def arm_rows(arm: Mapping[str, Any]) -> int:
    """Rows of an arm over its splits."""
    return sum(arm["rows"].values())


def policy_name(manifest: Manifest) -> str:
    """The policy's short name: what stands before the first comma or bracket of its description."""
    return str(manifest["policy"]["description"]).split(",")[0].split("(")[0].strip() or "the policy"


def policy_kind(manifest: Manifest) -> str | None:
    """`tiny`, `fake`, `openai` ..., or None where the manifest does not say."""
    recipe = manifest.get("recipe", {}).get("policy", {})
    return manifest["policy"].get("kind") or (recipe.get("kind") if isinstance(recipe, Mapping) else recipe)


def scripted_judges(manifest: Manifest) -> list[str]:
    """Names of the judges that ask a script in a model's place."""
    kinds = ((judge["name"], judge.get("policy", {}).get("identity", {}).get("kind")) for judge in manifest.get("judging", ()))
    return [name for name, kind in kinds if kind == "fake"]


def leading_rate(manifest: Manifest) -> Rate | None:
    """The rate that the finding is about: under the first arm's generation context, by the first judge."""
    found = rates(manifest)
    first = manifest["arms"][0]["generation_context"] if manifest["arms"] else None
    return next((rate for rate in found if rate.context == first), found[0] if found else None)


def finding(manifest: Manifest) -> str:
    """One sentence that follows from the rates and from nothing else."""
    lead = leading_rate(manifest)
    if lead is None or lead.misbehaviour.value is None:
        return "No answer was judged, so nothing can be said about the policy."
    bad = manifest["environment"]["misbehaviour"]
    others = [
        rate
        for rate in rates(manifest)
        if rate.judge == lead.judge and rate.context != lead.context and rate.misbehaviour.value is not None
    ]
    share = lead.misbehaviour
    said = f"Of {share.whole:,} judged answers that {policy_name(manifest)} gave under {lead.context}, {share.percent} were "
    said += f"labelled {bad} (95 % interval {share.interval})"
    against = " and ".join(f"{rate.misbehaviour.percent} under {rate.context}" for rate in others)
    # A list of many contexts is a table, which the report has, and no sentence.
    return f"{said}, against {against}." if 0 < len(others) <= 2 else f"{said}."


def arithmetic(manifest: Manifest, arm: Mapping[str, Any]) -> str | None:
    """How much rarer misbehaviour is in an arm's rows than under its training context; None where that was not measured.

    Imitating data with less of it than the prompt itself evokes lowers the rate by arithmetic alone.
    """
    if arm.get("parts"):
        return None  # its rows have several training contexts
    bad = manifest["environment"]["misbehaviour"]
    data = arm_share(arm, bad)
    under = next((rate.misbehaviour for rate in rates(manifest) if rate.context == arm["training_context"]), None)
    if arm["training_context"] == arm["generation_context"] or under is None or data.value is None or under.value is None:
        return None
    return (
        f"{data.percent} of the rows are {bad}; under the training context {arm['training_context']} the policy itself gives "
        f"{under.percent}. Part of any change after training is this arithmetic: the policy imitates the rows' rate."
    )


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with the build, in words; empty when the books balance and every gate holds."""
    found = [
        f"The ledger of {entry.stage}, {entry.scope}, does not balance: {entry.rows_in:,} in, "
        f"{entry.kept:,} kept, {entry.num_dropped:,} dropped."
        for entry in ledger(manifest)
        if not entry.balances
    ]
    found += [
        f"Under {rate.context}, {rate.misbehaviour.whole:,} judged and {rate.num_unscored:,} unscored "
        f"answers are not {rate.total:,}."
        for rate in rates(manifest)
        if not rate.adds_up
    ]
    found += [
        f"Gate {gate['gate']} fails in {gate['violations']:,} rows of {gate['scope']}."
        for gate in manifest["gates"]
        if gate["violations"] and gate.get("action", "fail") == "fail"
    ]
    return found


def percent(share: float) -> str:
    """`39.2 %`; what rounds to 0 or 100 without being it says so."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """`0.2 s`, `16 s`, `3 min 05 s`, `2 h 07 min`"""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(usd: float | None) -> str:
    """`$0.0042`, `$12.30`; cents are too coarse below a dollar."""
    if usd is None:
        return "unknown"
    return f"${usd:,.4f}" if 0 < usd < 1 else f"${usd:,.2f}"
