"""The finished pages that a run has on disk, shown as they are: build, training, evaluation; and those of rounds and sweeps.

They are our own files and hold what models wrote, so they are trusted less than a page that is made here: no script, nothing
loaded, only the style sheet that the file itself begins with (by its hash), and an origin of their own.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.core.errors import InputError
from recontext_data.viewer.runs import Library, RunTables
from recontext_data.viewer.site import Site

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = "report.html"
KINDS = {"rounds": "rounds", "sweeps": "sweep"}
"""Folders of a recipe that have a page, and what one of them is called."""

POLICY = "default-src 'none'; style-src {style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"

_STYLE = re.compile(rb"\A[^\0]{0,4000}?<style>(.*?)</style>", re.DOTALL)
"""In the head, before anything that somebody else wrote but an escaped title."""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A page."""

    key: str
    """What a link calls it."""
    title: str
    path: Path


def of_run(run: RunTables) -> list[ReportPage]:
    """The pages of a run that are there now: the build's, each training's, the evaluation's."""
    found = [ReportPage("build", "Build", run.path / PAGE)]
    for path in sorted(run.path.glob(f"*/{PAGE}")):
        folder = path.parent.name
        title = "Evaluation" if folder == "evaluation" else "Training" if folder == "models" else f"Training ({folder})"
        found.append(ReportPage(folder, title, path))
    order = {"Build": 0, "Evaluation": 2}
    inside = [one for one in found if _is_inside(one.path, run.path)]
    return sorted(inside, key=lambda one: (order.get(one.title, 1), one.title))


def of_recipes(library: Library) -> list[tuple[str, ReportPage]]:
    """Recipes with the pages of their rounds and sweeps; none where one run alone is shown."""
    root = library.output / "runs"
    if library.only is not None or not root.is_dir():
        return []
    return [
        (path.parents[2].name, ReportPage(f"{kind}-{path.parent.name}", f"{name} {path.parent.name[:8]}", path))
        for kind, name in KINDS.items()
        for path in sorted(root.glob(f"*/{kind}/*/{PAGE}"))
        if _is_inside(path, root)
    ]


def of_request(site: Site, request: "Request", run: RunTables) -> "Response":
    """A run's page by the key in the link."""
    return _answer({one.key: one.path for one in of_run(run)}, request.path_params["which"])


def of_recipe_request(site: Site, request: "Request") -> "Response":
    """A page of rounds or of a sweep."""
    recipe = request.path_params["recipe"]
    known = {one.key: one.path for name, one in of_recipes(site.library) if name == recipe}
    try:
        return _answer(known, request.path_params["which"])
    except InputError as error:
        return site.page(request, "error.html.j2", status=404, message=str(error), run=None)


def _answer(known: Mapping[str, Path], key: str) -> "Response":
    from starlette.responses import HTMLResponse

    if key not in known:  # looked up, never opened by what was asked
        raise InputError("report: there is none of that name here; it appears when the build, the training or the rest is done")
    content = known[key].read_bytes()
    headers = {
        "Content-Security-Policy": POLICY.format(style=_style(content)),
        # A sandboxed page with another value is refused by browsers altogether.
        "Cross-Origin-Opener-Policy": "unsafe-none",
    }
    return HTMLResponse(content, headers=headers)


def _style(content: bytes) -> str:
    """The one style sheet that may apply, by its hash."""
    found = _STYLE.match(content)
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}'" if found else "'none'"


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether it is a file below the folder, links followed."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
