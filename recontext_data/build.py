"""Builds the datasets of a recipe: `python -m recontext_data.build recipe=code_mc [key=value ...]`.

Alone it lists the recipes; `--help` shows every option; `dry_run=true` says what would be sampled.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import HELP, guarded


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if any(word in HELP for word in words):
        return _help([word for word in words if word not in HELP])
    from recontext_data.config.options import LIST_RECIPES, command_line, read_options
    from recontext_data.config.verb_options import BuildOptions
    from recontext_data.core.errors import RecipeError

    options, overrides = read_options(BuildOptions, words)
    if options.recipe is None and overrides:
        raise RecipeError(f"recipe: missing beside {overrides[0]!r}; {LIST_RECIPES}")
    if options.recipe is None:
        from recontext_data.config.help import list_recipes

        return list_recipes()
    from recontext_data.config.loading import load
    from recontext_data.pipeline.run import build_datasets

    command = command_line("build", words, without=["output"])
    build_datasets(load(options.recipe, overrides), output=options.output, dry_run=options.dry_run, command=command)
    return 0


def _help(words: Sequence[str]) -> int:
    if not words:
        # Nothing in it depends on this command, so it is written beforehand: loading the types takes a quarter of a second.
        from recontext_data.core.resources import shipped

        print(shipped("recipes/help.txt").read_text(encoding="utf-8"), end="")
        return 0
    from recontext_data.config.help import HELP_RECIPE, build_help
    from recontext_data.config.loading import load
    from recontext_data.config.options import read_options
    from recontext_data.config.verb_options import BuildOptions

    options, overrides = read_options(BuildOptions, words)
    print(build_help(load(options.recipe or HELP_RECIPE, overrides)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
