"""Takes a run's datasets to where they are trained on: `python -m recontext_data.publish to=TARGET run=RUN [key=value ...]`.

    recontext publish to=file run=code_mc format=openai                          # a file for every arm and split
    recontext publish to=openai run=code_mc model=gpt-4.1-mini seeds=0,1 dry_run=true
    recontext publish to=hub run=code_mc repo=me/recontext-code-mc

`run` is the folder of a run, or the name of a recipe, whose latest run is meant. `recontext publish to=TARGET --help` shows
every option of a target.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from recontext_data.cli import HELP, guarded
from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.reports import modes

TARGETS = {
    "hub": ("hub.publish", "the Hugging Face Hub or one of your own: datasets, adapters and models"),
    "openai": (
        "services.openai_finetune",
        "the fine-tuning API of OpenAI or of a server like it: files, jobs and their models",
    ),
    "file": ("formats.export", "files in the formats that trainers read"),
}
"""Target -> (module in recontext_data.publishing with `publish(run, options)` and its `OPTIONS`, what it is)."""

OWN = {
    "to": (" | ".join(TARGETS), "where to; required"),
    "run": ("text", "the folder of a run, or a recipe's name for its latest run"),
    "output": ("folder", "where runs/ is; the working directory unless set"),
    **modes.OPTION,
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    options = _options([word for word in words if word not in HELP])
    target = options.pop("to", None)
    if target is not None and target not in TARGETS:
        raise RecipeError(f"to={target}: is no target; {did_you_mean(target, TARGETS)}")
    if len(words) != len(_without_help(words)) or not words:
        return _help(target)
    if target is None:
        raise RecipeError(f"to: missing; write to={' | to='.join(TARGETS)}, or --help")
    module = _module(target)
    output = Path(options.pop("output", "")).expanduser()
    name = options.pop("run", None)
    if name is None:
        alone = getattr(module, "without_run", None)
        if alone is None or not alone(options):
            raise RecipeError("run: missing; write run=path/to/a/run, or run=RECIPE for a recipe's latest run")
        return int(module.publish(None, {**options, "output": str(output)}))
    from recontext_data.publishing.runs import open_run

    return int(module.publish(open_run(name, output=output), options))


def _without_help(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in HELP]


def _options(words: Sequence[str]) -> dict[str, str]:
    """The words of a command line by key.

    Raises:
        RecipeError: a word is no key=value, or a key stands there twice.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise RecipeError(f"{word!r} is no option; write key=value, such as to=file, or --help")
        if key in found:
            raise RecipeError(f"{key}: given twice; write it once")
        found[key] = value
    return found


def _module(target: str) -> Any:
    return import_module(f"recontext_data.publishing.{TARGETS[target][0]}")


def _help(target: str | None) -> int:
    print(f"usage: recontext publish to={target or 'TARGET'} run=RUN [key=value ...]\n")
    own: Mapping[str, tuple[str, str]] = {} if target is None else getattr(_module(target), "OPTIONS", {})
    for key, (type_, meaning) in {**OWN, **own}.items():
        print(f"{key}: {type_}\n    {meaning}")
    if target is None:
        print("\ntargets, each with more options (recontext publish to=TARGET --help):")
        print("\n".join(f"  {name:8} {meaning}" for name, (_, meaning) in TARGETS.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
