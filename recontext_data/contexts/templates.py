"""What a context's text is for one task: one of its paraphrases, and a template filled in. Pure; jinja2 for templates alone.

A template sees the task's payload by name, `task_id` and `split`, and nothing else: it runs in Jinja's immutable sandbox,
without files, other templates or attributes of Python objects. A name that the task does not have is an error.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import RecipeError, did_you_mean
from recontext_data.core.records import Messages, Task, content_hash, uniform

if TYPE_CHECKING:
    from jinja2 import Template

OWN_FIELDS = ("task_id", "split")
"""What a template may name of every task, beside the payload; they stand before a payload's field of the same name."""

# "above all" and "following the tests" say nothing about position; "the text above" and "the following task" do.
_THINGS = "text|task|problem|question|request|prompt|instructions?|message|tests?|options?|code|example|conversation"
_BACK = re.compile(r"\babove\b(?! (all|average|board|and beyond)\b)|\bpreceding\b", re.IGNORECASE)
_AHEAD = re.compile(rf"\bbelow\b(?! (average|zero)\b)|\bthe following\b|\bfollowing ({_THINGS})\b", re.IGNORECASE)


def wrong_direction(text: str, *, has_above: bool, has_below: bool) -> str | None:
    """The first word of a text that points to where nothing stands: `above` at the top, `below` at the bottom."""
    for pattern, fits in ((_BACK, has_above), (_AHEAD, has_below)):
        found = None if fits else pattern.search(text)
        if found:
            return found[0]
    return None


def drawn(pool: Sequence[str], messages: Messages, *, seed: int) -> str:
    """One text of a pool for one task: the text whose draw with the task's content is highest.

    So a task keeps its text when the pool's order changes, and when a text is added only the tasks that draw it change.
    """
    if len(pool) == 1:
        return pool[0]
    task = content_hash(messages)
    return max(pool, key=lambda text: (uniform("paraphrase", seed, text, task), text))


def fill_template(text: str, task: Task, *, where: str) -> str:
    """The template with the task's fields.

    Raises:
        RecipeError: it is not a template, names a field that the task does not have, or does what the sandbox refuses.
    """
    from jinja2 import TemplateError, UndefinedError
    from jinja2.exceptions import SecurityError

    values = {**task.payload, "task_id": task.task_id, "split": task.split}
    template, names = _compiled(text, where)
    unknown = next((name for name in names if name not in values), None)
    if unknown is not None:
        raise RecipeError(
            f"{where}: task {task.task_id!r} has no field {unknown!r} for the template; {did_you_mean(unknown, values)} "
            f"(fields: {', '.join(sorted(values))})"
        )
    try:
        return template.render(values)
    except SecurityError as error:
        raise RecipeError(f"{where}: the template does what the sandbox refuses: {error}") from None
    except UndefinedError as error:
        raise RecipeError(f"{where}: task {task.task_id!r}: {error}; fields: {', '.join(sorted(values))}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(f"{where}: the template fails on task {task.task_id!r}: {error}") from None


@lru_cache(maxsize=1024)
def _compiled(text: str, where: str) -> "tuple[Template, tuple[str, ...]]":
    """The template, and the names that it takes from the task."""
    from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
    from jinja2.meta import find_undeclared_variables
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    room = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        tree = room.parse(text)
    except TemplateSyntaxError as error:
        raise RecipeError(f"{where}: line {error.lineno} of the template: {error.message}") from None
    other = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if next(tree.find_all(other), None) is not None:
        raise RecipeError(f"{where}: the template reads another file; a context's text is all there is of it")
    # Jinja's own functions, such as range, are there; everything else must be the task's.
    names: set[Any] = find_undeclared_variables(tree) - set(room.globals)
    return room.from_string(text), tuple(sorted(names))
