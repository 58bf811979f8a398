"""Builds the datasets of a recipe: `python -m recontext_data.build recipe=code_mc [key=value ...]`.

Alone it lists the recipes; `--help` shows every option; `dry_run=true` says what would be sampled.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recontext_data.cli import RUN_OPTIONS, Arguments, guarded, parse
from recontext_data.loading import Loaded, find_recipe, load, shipped_recipes

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen
    from recontext_data.stages.pipeline import Prepared

HELP_RECIPE = "code_mc"
"""Whose values `--help` shows when no recipe is named."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    if arguments.help:
        return _help(arguments)
    if arguments.recipe is None:
        if arguments.overrides:
            from recontext_data.errors import RecipeError

            raise RecipeError(f"recipe: missing beside {arguments.overrides[0]!r}; write recipe=NAME or recipe=path/to/mine.yaml")
        return _list_recipes()
    return build(load(arguments.recipe, arguments.overrides), arguments, command=_command(words))


def _command(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(["recontext", "build", *(word for word in words if not word.startswith("output="))])


def prepared(loaded: Loaded, arguments: Arguments, *, screen: "Screen") -> "Prepared":
    """The build of a recipe, checked as far as that costs nothing: tasks, policy, every context on every task."""
    from recontext_data.arms import context_or_none, pools
    from recontext_data.contexts import render
    from recontext_data.policies.building import build_policy
    from recontext_data.stages.pipeline import prepare

    recipe = loaded.recipe
    tasks = recipe.environment.load(cache=arguments.output / "cache", screen=screen)
    sampled = dict.fromkeys([*pools(recipe.arms), *recipe.measure.contexts])
    trained = dict.fromkeys(arm.training for arm in recipe.arms)
    for name in [*sampled, *trained]:  # a placement that cannot apply must not be found out after paying
        for task in tasks.tasks:
            render(task.messages, context_or_none(recipe.contexts, name), name=name)
    contexts = {name: context_or_none(recipe.contexts, name) for name in sampled}
    policy = build_policy(recipe.policy, environment=recipe.environment, tasks=tasks.tasks, contexts=contexts)
    return prepare(loaded.name, recipe, tasks=tasks, policy=policy)


def build(loaded: Loaded, arguments: Arguments, *, command: str) -> int:
    """Builds what the recipe declares, or only what is missing of it.

    Raises:
        RecontextError: of any kind; nothing that was paid for is lost.
    """
    from recontext_data.reports.screen import Screen
    from recontext_data.stages import pipeline
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import RunFolder, require_writable, taken_back

    screen = Screen()
    require_writable(arguments.output)
    job = prepared(loaded, arguments, screen=screen)
    replies = arguments.output / "replies"
    if arguments.dry_run:
        screen.dry_run(pipeline.forecast(job, ReplyStore(replies)))
        return 0
    folder = RunFolder(arguments.output, recipe=loaded.name, fingerprint=job.fingerprint)
    with taken_back(arguments.output, folder.path), folder.locked() as waited:
        if waited:
            screen.note("another build of the same run was under way; it has ended")
        manifest = folder.manifest()
        # A run with failures is finished, and the same command asks again for those that failed.
        if manifest is not None and not manifest["requests"]["failed"]:
            folder.point_latest()
            screen.note("nothing to do: this run is built already")
            manifest = pipeline.as_found(manifest)
        else:
            screen.note(f"policy: {job.policy.description}")
            with ReplyStore(replies) as store:
                try:
                    manifest = pipeline.run(job, folder=folder, store=store, screen=screen, command=command)
                finally:
                    for text in store.warnings:
                        screen.warn(text)
    screen.closing(manifest, folder=folder.path)
    return 0


def _list_recipes() -> int:
    import yaml

    print("recipes (recontext build recipe=NAME; or a path to your own YAML file):\n")
    for name, path in shipped_recipes().items():
        description = yaml.safe_load(path.read_text(encoding="utf-8")).get("description", "")
        print(f"  {name:16} {description}")
    print("\n`recontext build recipe=NAME --help` shows every option with its value.")
    return 0


def _help(arguments: Arguments) -> int:
    from recontext_data.options import options

    name = arguments.recipe or HELP_RECIPE
    find_recipe(name)
    print(f"usage: recontext build recipe=NAME [key=value ...]      values below are those of recipe={name}\n")
    for option, (type_, meaning) in RUN_OPTIONS.items():
        print(f"{option}: {type_}\n    {meaning}")
    print()
    for row in options(load(name, arguments.overrides)):
        print(f"{row.key} = {_short(row.value)}   [{row.origin}]   {row.type}")
        if row.meaning:
            print(f"    {row.meaning}")
    print("\nLists and mappings are YAML: arms='[default -> hack]'. Dots go deeper: policy.kind=openai policy.model=gpt-4.1")
    return 0


def _short(value: object) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 72 else text[:69] + "..."


if __name__ == "__main__":
    sys.exit(main())
