"""Builds the datasets of a recipe: `python -m recontext_data.build recipe=code_mc [key=value ...]`.

Alone it lists the recipes; `--help` shows every option; `dry_run=true` says what would be sampled.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recontext_data.cli import HELP_RECIPE, Arguments, guarded, parse

if TYPE_CHECKING:
    from recontext_data.config.loading import Loaded


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    if arguments.help:
        return _help(arguments)
    if arguments.recipe is None:
        if arguments.overrides:
            from recontext_data.core.errors import RecipeError

            raise RecipeError(
                f"recipe: missing beside {arguments.overrides[0]!r}; write recipe=NAME or recipe=path/to/mine.yaml"
            )
        return _list_recipes()
    from recontext_data.config.loading import load

    return build(load(arguments.recipe, arguments.overrides), arguments, command=_command(words))


def _command(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(["recontext", "build", *(word for word in words if not word.startswith("output="))])


def build(loaded: "Loaded", arguments: Arguments, *, command: str) -> int:
    """Builds what the recipe declares, or only what is missing of it.

    Raises:
        RecontextError: of any kind; nothing that was paid for is lost.
    """
    from recontext_data.pipeline.build import build as build_run
    from recontext_data.pipeline.preparation import forecast, prepared
    from recontext_data.reports.screen import Screen
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import require_writable

    screen = Screen()
    require_writable(arguments.output)
    job = prepared(loaded.name, loaded.recipe, output=arguments.output, screen=screen)
    if arguments.dry_run:
        screen.dry_run(forecast(job, ReplyStore(arguments.output / "replies")))
        return 0
    folder, manifest = build_run(job, output=arguments.output, screen=screen, command=command)
    screen.closing(manifest, folder=folder.path)
    return 0


def _list_recipes() -> int:
    import shutil
    import textwrap

    import yaml

    from recontext_data.config.loading import shipped_recipes

    width = max(60, min(shutil.get_terminal_size().columns, 120))
    print("recipes (recontext build recipe=NAME; or a path to your own YAML file):\n")
    for name, path in shipped_recipes().items():
        description = yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
        # Wrapped beside its name, so that at 80 columns the names can still be read down the edge.
        print(textwrap.fill(description, width, initial_indent=f"  {name:19} ", subsequent_indent=" " * 22))
    print("\n`recontext build recipe=NAME --help` shows every option with its value.")
    return 0


def _help(arguments: Arguments) -> int:
    if arguments.recipe is None and not arguments.overrides:
        # Nothing in it depends on this command, so it is written beforehand: loading the types takes a quarter of a second.
        from recontext_data.core.resources import shipped

        print(shipped("recipes/help.txt").read_text(encoding="utf-8"), end="")
        return 0
    from recontext_data.config.help import build_help
    from recontext_data.config.loading import load

    print(build_help(load(arguments.recipe or HELP_RECIPE, arguments.overrides)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
