"""A preview's prompts: on the terminal with rich, and as one page without script or network. Shows; computes nothing.

On a terminal what only generation has is red and what only training has is green; without colour they stand in [-...-]
and {+...+}.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.reports.difference import ComparedTurn, compare_turns
from recontext_data.reports.html import page_environment
from recontext_data.reports.text import LIMIT, cut, visible

if TYPE_CHECKING:
    from rich.text import Text

    from recontext_data.reports.screen import Screen

SCREEN_LIMIT = 2000
"""Characters of one turn on the terminal; the page has all of it."""


def page(found: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """preview.html. `found`: contexts and arms with their prompts; `plan`: what `Screen.dry_run` takes."""
    arms = [
        arm | {"tasks": [(task_id, compare_turns(before, after, limit=LIMIT)) for task_id, before, after in arm["prompts"]]}
        for arm in found["arms"]
    ]
    return page_environment(LIMIT).get_template("preview.html.j2").render(found=found, arms=arms, plan=plan)


def show(found: Mapping[str, Any], *, screen: "Screen") -> None:
    """Prints each context on its first task and each arm's difference on its own."""
    if screen.result("preview", found):
        return
    for context in found["contexts"]:
        screen.print(_title(f"context {context['name']}", f"{context['stance']}, {context['placement']}"))
        task_id, messages = context["prompts"][0]
        screen.print(_quiet(f"task {task_id}"))
        for message in messages:
            screen.print(_message(message))
    for arm in found["arms"]:
        screen.print(_title(f"arm {arm['name']}", f"{arm['kind']}, {arm['pair']}"))
        task_id, before, after = arm["prompts"][0]
        screen.print(_quiet(f"task {task_id}"))
        for turn in compare_turns(before, after, limit=SCREEN_LIMIT):
            screen.print(_turn(turn, coloured=screen.is_coloured))


def _title(name: str, about: str) -> "Text":
    from rich.text import Text

    return Text.assemble("\n", (visible(name), "bold"), f"  {visible(about)}")


def _quiet(text: str) -> "Text":
    from rich.text import Text

    return Text(visible(text), style="dim")


def _message(message: Mapping[str, str]) -> "Text":
    from rich.text import Text

    return Text.assemble((f"{message['role']}: ", "bold cyan"), visible(cut(message["content"], limit=SCREEN_LIMIT)))


_MARKS: Mapping[str, tuple[str, str]] = {"removed": ("[-", "-]"), "added": ("{+", "+}"), "same": ("", "")}
_STYLES: Mapping[str, str] = {"removed": "red strike", "added": "green", "same": ""}


def _turn(turn: ComparedTurn, *, coloured: bool) -> "Text":
    from rich.text import Text

    if turn.kind == "same":
        return Text.assemble((f"{turn.role}: ", "bold cyan"), (f"unchanged, {turn.characters:,} characters", "dim"))
    parts: list[tuple[str, str]] = [(f"{turn.role} ({turn.kind}): ", "bold cyan")]
    parts += _pieces(turn.segments, coloured=coloured)
    return Text.assemble(*parts, (f" {turn.note}" if turn.note else "", "dim"))


def _pieces(segments: Sequence[Any], *, coloured: bool) -> list[tuple[str, str]]:
    found = []
    for segment in segments:
        before, after = ("", "") if coloured else _MARKS[segment.kind]
        found.append((f"{before}{visible(segment.text)}{after}", _STYLES[segment.kind]))
    return found
