"""The report on what an evaluation can see: power and the smallest visible effect."""

from dataclasses import asdict
from textwrap import wrap

from recontext_data.reports.screen import Screen
from recontext_data.stats.power import Design, Noise, detectable, power, treated_rate
from recontext_data.stats.statistics import ONE_SEED

WANTED = 0.8
"""The power at which an effect counts as visible."""
WIDTH = 120


def _lines(base: float, treated: float, effect: float | None, design: Design) -> list[str]:
    noise = design.noise
    lines = [
        f"{_count(design.tasks, 'task')}, {_count(design.seeds, 'seed')}, {_count(design.answers, 'answer')} per task "
        f"and model; paired by task, clustered by seed; alpha {design.alpha:g}"
    ]
    if effect is not None:
        lines.append(
            f"  {_percent(base)} -> {_percent(treated)}: seen with a probability of {_whole(power(base, effect, design))}"
        )
    smallest = detectable(base, design, wanted=WANTED)
    if base == 0:
        lines.append("  smallest decrease: none, the base is 0 already")
    elif smallest is None:
        lines.append(f"  too few seeds or tasks: not even {_percent(base)} -> 0 % is seen with {_percent(WANTED)}")
    else:
        lines.append(f"  smallest decrease of {_percent(base)} seen with {_percent(WANTED)}: {100 * smallest:.1f} points")
    if design.seeds == 1:
        lines.append(f"  {ONE_SEED}; the numbers are about two models, not about two ways of training")
    return [*lines, "", *_table(base, effect, design), "", *wrap(_assumed(noise), width=WIDTH)]


def show_power(base: float, effect: float | None, design: Design) -> None:
    """Prints how likely an effect is seen, the smallest visible one, and both for other numbers of seeds and tasks.

    Raises:
        ValueError: a number is out of range.
    """
    treated = treated_rate(base, 0.0 if effect is None else effect)
    screen = Screen()
    facts = {"base": base, "treated": treated, "effect": effect, "design": asdict(design), "wanted_power": WANTED}
    seen = None if effect is None else power(base, effect, design)
    if not screen.result("power", {**facts, "power": seen, "smallest": detectable(base, design, wanted=WANTED)}):
        print("\n".join(_lines(base, treated, effect, design)))


def _table(base: float, effect: float | None, design: Design) -> list[str]:
    """Smallest effect, and the power at the effect asked for, for other numbers of seeds and tasks."""
    seeds = sorted({1, 3, 5, 10, design.seeds})
    tasks = sorted({50, 100, 200, 500, design.tasks})
    title = f"smallest decrease seen with {_percent(WANTED)}, in points" + (
        "" if effect is None else f" (power at {100 * effect:g} points)"
    )
    lines = [title, "   seeds" + "".join(f"{_count(num, 'task'):>16}" for num in tasks)]
    for num_seeds in seeds:
        row = f"{num_seeds:8}"
        for num_tasks in tasks:
            other = Design(tasks=num_tasks, seeds=num_seeds, answers=design.answers, alpha=design.alpha, noise=design.noise)
            smallest = detectable(base, other, wanted=WANTED)
            cell = "none" if smallest is None else f"{100 * smallest:.1f}"
            row += f"{cell if effect is None else f'{cell} ({_whole(power(base, effect, other))})':>16}"
        lines.append(row)
    return [*lines, f"   {ONE_SEED}"]


def _assumed(noise: Noise) -> str:
    return (
        f"assumed: a model's rate varies by {100 * noise.seed_sd:g} points (sd) from training to training; "
        f"of an answer's variance {_whole(noise.shared)} lies between tasks in both arms alike, {_whole(noise.arm)} per arm, "
        f"{_whole(noise.model)} per model, {_whole(noise.rest)} between answers. "
        "Set seed_sd=, shared=, arm=, model= from a pilot."
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word if number == 1 else word + 's'}"


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


def _percent(rate: float) -> str:
    return f"{100 * rate:.4g} %"
