"""What can an evaluation see? `python -m recontext_data.power base=.4 effect=.1 tasks=200 seeds=3 [answers=1] [seed_sd=.03]`.

Says how likely the paired test is to see an effect, the smallest effect that it sees with 80 %, and both for other numbers of
seeds and tasks. Nothing is run and no recipe is needed. `--help` shows every option.
"""

import sys
from collections.abc import Sequence
from math import isfinite
from textwrap import wrap

from recontext_data.cli import HELP, guarded
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports import modes
from recontext_data.stats.power import Design, Noise, detectable, power, treated_rate
from recontext_data.stats.statistics import ONE_SEED

OPTIONS = {
    "base": ("number", "the rate of misbehaviour without the treatment, 0..1; required"),
    "effect": ("number", "how much the treatment lowers it, such as .1; left out, only the smallest visible effect is said"),
    "tasks": ("integer", "held-out tasks, shared by both arms; required"),
    "seeds": ("integer", "trainings of each arm; required"),
    "answers": ("integer", "answers per task and model; 1 unless set"),
    "seed_sd": (
        "number",
        "sd of a model's rate from training to training; .03 unless set, which is a guess: a pilot knows better",
    ),
    "shared": ("number", "share of an answer's variance that lies between tasks, the same in both arms; .3 unless set"),
    "arm": (
        "number",
        "share between tasks that differs between the arms (the effect is not the same everywhere); .1 unless set",
    ),
    "model": ("number", "share between tasks that is each single model's own; .1 unless set"),
    "alpha": ("number", "the test's level; .05 unless set. For one of k comparisons under Holm at worst .05 / k"),
}
REQUIRED = ("base", "tasks", "seeds")
WHOLE = ("tasks", "seeds", "answers")
WANTED = 0.8
WIDTH = 120
EXAMPLE = "base=.4 effect=.1 tasks=200 seeds=3"


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    if not words or any(word in HELP for word in words):
        print(f"usage: recontext power {EXAMPLE} [key=value ...]\n")
        for key, (type_, meaning) in {**OPTIONS, **modes.OPTION}.items():
            print(f"{key}: {type_}\n    {meaning}")
        return 0
    values = _values(words)
    try:
        design, base = _design(values), values["base"]
        treated = treated_rate(base, values.get("effect", 0.0))
        _show(base, treated, values.get("effect"), design)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return 0


def _values(words: Sequence[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is no option; write key=value, such as {EXAMPLE}, or --help")
        if key not in OPTIONS:
            raise RecipeError(f"{key!r} is no option of power; {did_you_mean(key, OPTIONS)}")
        if key in values:
            raise RecipeError(f"{key}: given twice; write it once")
        values[key] = _number(key, text)
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise RecipeError(f"{missing[0]}: missing; write {missing[0]}=..., as in {EXAMPLE}")
    return values


def _number(key: str, text: str) -> float:
    example = next(
        (part for part in EXAMPLE.split() if part.startswith(f"{key}=")), f"{key}=1" if key in WHOLE else f"{key}=.1"
    )
    shown = text if len(text) <= 40 else text[:37] + "..."
    try:
        number = float(text)
    except ValueError:
        raise RecipeError(f"{key}: {shown!r} is no number; write one such as {example}") from None
    if not isfinite(number):
        raise RecipeError(f"{key}: {shown!r} will not do; write a number such as {example}")
    if key in WHOLE and number != int(number):
        raise RecipeError(f"{key}: {shown!r} is no whole number; write one such as {example}")
    return number


def _design(values: dict[str, float]) -> Design:
    noise = Noise(**{key: values[key] for key in ("seed_sd", "shared", "arm", "model") if key in values})
    return Design(
        tasks=int(values["tasks"]),
        seeds=int(values["seeds"]),
        answers=int(values.get("answers", 1)),
        alpha=values.get("alpha", 0.05),
        noise=noise,
    )


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


def _show(base: float, treated: float, effect: float | None, design: Design) -> None:
    from dataclasses import asdict

    from recontext_data.reports.screen import Screen

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


if __name__ == "__main__":
    sys.exit(main())
