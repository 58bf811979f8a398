"""What the records of a training say: how far losses fell, what was trained on, what the settings were. Pure.

`records` are what `training.json` holds, one per model. Nothing here compares losses between arms: each arm's rows, and the
rows held out of them, are its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recontext_data.reports.training_figure import curve

Records = Sequence[Mapping[str, Any]]

NOT_SETTINGS = ("base", "seeds", "checkpoint_steps")
"""What of a config decides no weights, or is said elsewhere on the page."""
LAST = 10
"""The last tenth of what was logged, whose mean is steadier than one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The numbers under a curve; None where none was logged or no row was held out."""

    first: float | None
    last: float | None
    tail: float | None
    """Mean of the last tenth of the logged values."""
    before: float | None
    """On validation rows."""
    after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One dataset and the seeds that were trained on it."""

    arm: str
    seeds: Sequence[int]
    fingerprint: str
    on_disk: int | None
    """Rows of both splits as the build wrote them; None where the build's manifest does not say."""
    train: int
    validation: int
    dropped: Mapping[str, int]
    cut: int
    tokens: int
    trained_share: float

    @property
    def num_dropped(self) -> int:
        """Rows left out, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def balances(self) -> bool | None:
        """On disk = used + left out; None where one side is not known."""
        return None if self.on_disk is None else self.on_disk == self.train + self.validation + self.num_dropped


def losses(record: Mapping[str, Any]) -> Loss:
    """A record's losses."""
    values = [value for _, value in curve(record)]
    tail = values[-max(1, len(values) // LAST) :]
    validation = record["validation_loss"] or {}
    return Loss(
        first=values[0] if values else None,
        last=values[-1] if values else None,
        tail=sum(tail) / len(tail) if tail else None,
        before=validation.get("before"),
        after=validation.get("after"),
    )


def finding(records: Records) -> str:
    """One sentence that follows from the losses and from nothing else."""
    found = [losses(record) for record in records]
    measured = [loss for loss in found if loss.before is not None and loss.after is not None]
    arms, models = len({record["arm"] for record in records}), _many(len(records), "model")
    said = f"{models} of {_many(arms, 'arm')} trained from {_words(sorted({record['base']['name'] for record in records}))}"
    if not measured:
        fell = sum(loss.first is not None and loss.tail is not None and loss.tail < loss.first for loss in found)
        return f"{said}: no row was held out, and the loss on what was trained on fell in {_of(fell, len(found))}."
    fell = sum(loss.after < loss.before for loss in measured if loss.after is not None and loss.before is not None)
    return f"{said}: the loss on rows held out of each arm fell in {_of(fell, len(measured))}."


def _of(part: int, whole: int) -> str:
    return f"all {whole}" if part == whole > 1 else "it" if part == whole else f"{part} of {whole}"


def attention(records: Records, *, missing: Sequence[str]) -> list[str]:
    """What a reader should look at before using the models; empty where there is nothing."""
    found = [f"No model of {name} is here." for name in missing]
    for record in records:
        name, loss = model_name(record), losses(record)
        if loss.before is not None and loss.after is not None and loss.after >= loss.before:
            ends = f"{loss.before:.3f} before, {loss.after:.3f} after"
            found.append(f"{name}: the loss on held-out rows did not fall ({ends}).{_own(record)}")
    for arm in dict.fromkeys(record["arm"] for record in records):
        of_arm = [record["dataset"] for record in records if record["arm"] == arm]
        dropped = max(sum(dataset["dropped"].values()) for dataset in of_arm)
        cut = max(dataset["cut_at_max_tokens"] for dataset in of_arm)
        if dropped:
            found.append(f"{arm}: {_many(dropped, 'row')} left out of training, for the reasons below.")
        if cut:
            found.append(
                f"{arm}: {_many(cut, 'completion')} cut at max_tokens when sampled, and trained to end there; "
                "select.drop_truncated=true leaves them out."
            )
    return found


def _own(record: Mapping[str, Any]) -> str:
    """Why that may be no fault: imitating oneself teaches nothing."""
    same = record["generation_context"] == record["training_context"]
    return " Rows that the base itself wrote under the prompt of training leave it little to learn." if same else ""


def model_name(record: Mapping[str, Any]) -> str:
    """`standard.default-default seed 0`"""
    return f"{record['arm']} seed {record['seed']}"


def absent(records: Records, arms: Sequence[str]) -> list[str]:
    """What is not there and could be: arms of the build without a model, and seeds that another arm has."""
    seeds = sorted({record["seed"] for record in records})
    there = {(record["arm"], record["seed"]) for record in records}
    trained = {arm for arm, _ in there}
    found = [arm for arm in arms if arm not in trained]
    found += [f"{arm} seed {seed}" for arm in arms if arm in trained for seed in seeds if (arm, seed) not in there]
    return found


def rows(records: Records, on_disk: Mapping[str, int]) -> list[Rows]:
    """Every dataset once, with its seeds. `on_disk`: rows by the dataset's hash."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["arm"], record["dataset"]["fingerprint"]), []).append(record)
    return [
        Rows(
            arm=arm,
            seeds=[record["seed"] for record in group],
            fingerprint=fingerprint,
            on_disk=on_disk.get(fingerprint),
            train=(dataset := group[0]["dataset"])["rows"]["train"],
            validation=dataset["rows"]["validation"],
            dropped=dataset["dropped"],
            cut=dataset["cut_at_max_tokens"],
            tokens=dataset["tokens"],
            trained_share=dataset["trained_share"],
        )
        for (arm, fingerprint), group in groups.items()
    ]


def settings(records: Records) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Each setting with its values; each value with the models that have it, or with none where all have it."""
    flat = [(model_name(record), dict(_flat(record["config"]))) for record in records]
    found = []
    for key in dict.fromkeys(key for _, values in flat for key in values):
        by_value: dict[str, list[str]] = {}
        for name, values in flat:
            by_value.setdefault(values.get(key, "not set"), []).append(name)
        found.append((key, [(value, names if len(by_value) > 1 else []) for value, names in by_value.items()]))
    return found


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if not prefix and (key in NOT_SETTINGS or (key == "lora" and config["method"] == "full")):
            continue
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", "not set" if value is None or value == {} else _plain(value)))
    return pairs


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Three digits behind the point; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def small(value: float | None) -> str:
    """`0`, `4.3`, `2.1e-06`; a dash where there is none."""
    return "–" if value is None else f"{value:.2g}"


def _many(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def _words(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
