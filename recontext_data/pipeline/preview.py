"""Renders every prompt of a recipe before anything is sampled: each context on a few tasks, each arm as a difference."""

from pathlib import Path
from typing import Any

from recontext_data.config.loading import Loaded
from recontext_data.contexts.arms import context_or_none
from recontext_data.contexts.context import NONE, render
from recontext_data.environments.base import chosen
from recontext_data.pipeline.preparation import Prepared, forecast, prepared
from recontext_data.reports.preview import page, show
from recontext_data.reports.screen import Screen
from recontext_data.store.files import replace_file, writing
from recontext_data.store.replies import ReplyStore
from recontext_data.store.run_folder import require_writable


def preview_prompts(loaded: Loaded, *, output: Path = Path(), examples: int = 2, dry_run: bool = False) -> None:
    """Prints every context's and arm's prompts on a few tasks and what a build would cost; writes runs/<recipe>/preview.html.

    A dry run writes nothing.

    Raises:
        RecontextError: what is wrong with the recipe, as a build would say it.
    """
    screen = Screen()
    if not dry_run:
        require_writable(output)
    job = prepared(loaded.name, loaded.recipe, output=output, screen=screen)
    found: dict[str, Any] = shown_prompts(job, examples=examples)
    plan = forecast(job, ReplyStore(output / "replies"))
    show(found, screen=screen)
    screen.dry_run(plan | {"title": "Nothing was sampled."})
    if not dry_run:
        path = output / "runs" / loaded.name / "preview.html"
        text = page(found, plan)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda target: target.write_text(text, encoding="utf-8"))
        screen.line(f"preview   {path}")


def shown_prompts(job: Prepared, *, examples: int) -> dict[str, Any]:
    """The prompts that are shown: every context on the chosen tasks, and every arm's two prompts on the first of its own."""
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
