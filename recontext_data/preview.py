"""Shows every prompt before anything is paid for: `python -m recontext_data.preview recipe=code_mc [key=value ...]`.

    recontext preview recipe=code_mc                    # on the terminal, and runs/code_mc/preview.html
    recontext preview recipe=mine.yaml examples=5       # five tasks in place of two
    recontext preview recipe=mine.yaml dry_run=true     # the terminal alone: nothing is written

Each context is rendered on a few tasks, each arm is shown as the difference between its generation and its training prompt,
and then what a build would ask for and cost. Nothing is sampled and no key is needed.
"""

import sys
from collections.abc import Sequence
from typing import Any

from recontext_data.cli import Arguments, guarded, parse
from recontext_data.config.loading import Loaded, load
from recontext_data.core.errors import RecipeError

EXAMPLES = ("integer", "tasks to show, drawn by seeded hash; 2 unless set")
MOST = 50


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    arguments = parse(words)
    examples, rest = 2, []
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key == "examples":
            examples = _count(value)
        else:
            rest.append(word)
    arguments.overrides = rest
    if arguments.help:
        from recontext_data.config.help import verb_help

        return verb_help("preview", arguments, section="rendering", own={"examples": EXAMPLES})
    if arguments.recipe is None:
        raise RecipeError("recipe: missing; write recipe=NAME or recipe=path/to/mine.yaml")
    return preview(load(arguments.recipe, arguments.overrides), arguments, examples=examples)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise RecipeError(f"examples={text}: will not do; write a number from 1 to {MOST}")
    return int(text)


def preview(loaded: Loaded, arguments: Arguments, *, examples: int) -> int:
    """Prints the prompts and writes the page.

    Raises:
        RecontextError: what is wrong with the recipe, as a build would say it.
    """
    from recontext_data.pipeline.preparation import forecast, prepared
    from recontext_data.reports.preview import page, show
    from recontext_data.reports.screen import Screen
    from recontext_data.store.files import replace_file, writing
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import require_writable

    screen = Screen()
    if not arguments.dry_run:
        require_writable(arguments.output)
    job = prepared(loaded.name, loaded.recipe, output=arguments.output, screen=screen)
    found: dict[str, Any] = prompts(job, examples=examples)
    plan = forecast(job, ReplyStore(arguments.output / "replies"))
    show(found, screen=screen)
    screen.dry_run(plan | {"title": "Nothing was sampled."})
    if not arguments.dry_run:
        path = arguments.output / "runs" / loaded.name / "preview.html"
        text = page(found, plan)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda target: target.write_text(text, encoding="utf-8"))
        screen.line(f"preview   {path}")
    return 0


def prompts(job: Any, *, examples: int) -> dict[str, Any]:
    """What is shown: every context on the chosen tasks, and every arm's two prompts on the first of its own."""
    from recontext_data.contexts.arms import context_or_none
    from recontext_data.contexts.context import NONE, render
    from recontext_data.environments.base import chosen

    recipe = job.recipe
    tasks = chosen(job.tasks.tasks, limit=examples, seed=0)
    used = {side for arm in recipe.arms for side in (arm.generation, *arm.trained_under)}
    contexts = []
    for name in [*recipe.contexts, *([NONE] if NONE in used else [])]:
        context = context_or_none(recipe.contexts, name)
        shown = [(task.task_id, render(task, context, name=name, how=recipe.how)) for task in tasks]
        where = (context.stance, context.placement) if context else ("neutral", "the bare task")
        contexts.append({"name": name, "stance": where[0], "placement": where[1], "prompts": shown})
    arms = []
    for arm in (part for whole in job.arms for part in (whole, *whole.others)):
        own = job.given[arm.generation].tasks[:examples] if arm.generation in job.given else tasks
        pairs = [
            (
                task.task_id,
                render(task, arm.generation_context, name=arm.generation, how=recipe.how),
                render(task, arm.training_context, name=arm.training, how=recipe.how),
            )
            for task in own
        ]
        arms.append({"name": arm.name, "kind": arm.kind, "pair": f"{arm.generation} -> {arm.training}", "prompts": pairs})
    return {"name": job.name, "policy": job.policy.description, "contexts": contexts, "arms": arms}


if __name__ == "__main__":
    sys.exit(main())
