"""Expert iteration: `python -m recontext_data.iterate recipe=code_mc_effect rounds=3 [key=value ...]`.

    recontext iterate recipe=code_mc_effect rounds=3                       # every round is trained from the base model
    recontext iterate recipe=code_mc_effect rounds=3 rounds.start=continue # from the model of the round before

A round is a build, a training of every arm and seed, and a measurement. From the second on, each arm and seed samples from
its own model of the round before: a chain. Judges, selection, gates and training are the recipe's in every round. `rounds=k`
is short for `rounds.count=k`; a recipe can say both, as `rounds: {count: 3, start: base}`. The same command continues what
was stopped, and with a larger k it adds rounds to those that are there.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.cli import Arguments, guarded, parse
from recontext_data.config.loading import load
from recontext_data.core.errors import RecipeError

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

OPTIONS = {
    "rounds": ("number", "how many rounds; short for rounds.count"),
    "workers": ("number", "processes that share the models of a round among them; 1"),
    "models": ("text", "the folder in each run that its models go to; `models`"),
}
MAX_WORKERS = 64


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse([f"rounds.count={word[7:]}" if word.startswith("rounds=") else word for word in words])
    workers, models = _own(arguments)
    if arguments.help:
        from recontext_data.config.help import verb_help

        return verb_help("iterate", arguments, section="rounds", own=OPTIONS)
    if arguments.recipe is None:
        raise RecipeError(
            "recipe: missing; write recipe=NAME or recipe=path/to/mine.yaml (`recontext build` alone lists the recipes)"
        )
    return iterate(arguments, workers=workers, models=models, words=words)


def _own(arguments: Arguments) -> tuple[int, str]:
    """The verb's own options, taken out of the overrides."""
    found = {"workers": "1", "models": "models"}
    rest = []
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key in found:
            found[key] = value
        else:
            rest.append(word)
    arguments.overrides = rest
    workers, models = found["workers"], found["models"]
    if not workers.isdigit() or not 1 <= int(workers) <= MAX_WORKERS:
        raise RecipeError(f"workers={workers}: will not do; write a number from 1 to {MAX_WORKERS}")
    if models != Path(models).name or not models or models.startswith("."):
        raise RecipeError(f"models={models}: becomes a folder; use letters, digits, '.', '_' and '-'")
    return int(workers), models


def iterate(arguments: Arguments, *, workers: int, models: str, words: Sequence[str]) -> int:
    """Makes the rounds that are asked for and are not there yet. `words`: the command line, for other workers and the report.

    Raises:
        RecontextError: of any kind; what is finished stays, and the same command continues.
    """
    from recontext_data.experiments import rounds
    from recontext_data.reports.screen import Screen
    from recontext_data.store.run_folder import require_writable
    from recontext_data.training.arguments import check_extra, micro_batch, num_processes
    from recontext_data.training.device import has_cuda, say_device
    from recontext_data.training.kl import require_one_process
    from recontext_data.training.libraries import require_libraries
    from recontext_data.training.sharing import helped

    assert arguments.recipe is not None
    loaded, screen = load(arguments.recipe, arguments.overrides), Screen()
    config = loaded.recipe.training
    rounds.check(loaded.recipe)
    require_libraries(config.method)
    if num_processes() > 1:
        raise RecipeError("iterate: is not run by `accelerate launch`; use workers=, or several machines with the same command")
    micro_batch(config)
    require_one_process(config)
    if arguments.dry_run:
        return _dry_run(arguments.recipe, loaded.recipe)
    require_writable(arguments.output)
    check_extra(config.extra, cuda=has_cuda())
    say_device(config, screen)
    told = [word for word in words if not word.startswith(("output=", "workers="))]
    chains = rounds.chains_of(loaded)
    with helped(words, workers=min(workers, len(chains)), verb="iterate"):
        folder, facts = rounds.iterate(loaded, output=arguments.output, screen=screen, words=told, models=models)
    _closing(facts, folder, screen)
    return 0


def _dry_run(name: str, recipe: Any) -> int:
    print(f"would make (nothing is written): {recipe.rounds.count} rounds, each from the {recipe.rounds.start} model")
    for number in range(1, recipe.rounds.count + 1):
        source = "the recipe's policy" if number == 1 else f"its own model of round {number - 1}"
        print(f"  round {number}  {len(recipe.arms)} arms x {len(recipe.training.seeds)} seeds, each sampled from {source}")
    print(f"what round 1 would sample: recontext build recipe={name} dry_run=true; the others sample as much for every seed")
    return 0


def _closing(facts: Mapping[str, Any], folder: Path, screen: "Screen") -> None:
    from recontext_data.experiments.rounds_page import table

    screen.table(*table(facts, intervals=False))
    print(f"\nrounds    {folder / 'rounds.json'}\nreport    {folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
