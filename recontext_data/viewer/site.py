"""What all pages share: the runs, the database, the templates, who the reader is, and how links are made."""

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from recontext_data.core.errors import RecontextError
from recontext_data.reports import numbers
from recontext_data.reports.arm_parts import generated_under, trained_under, which
from recontext_data.reports.text import cut, one_line, pieces, visible
from recontext_data.store.labels import NAME
from recontext_data.viewer.database import Database
from recontext_data.viewer.fields import View, parse_where
from recontext_data.viewer.listing import ListingQuery
from recontext_data.viewer.look import RunSnapshot, SnapshotCache
from recontext_data.viewer.runs import Library, RunTables

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

REVIEWER_COOKIE = "recontext_reviewer"
THEME_COOKIE = "recontext_theme"

QUEUES_KEPT = 16


@dataclass
class Site:
    """The server's state; requests run in threads."""

    library: Library
    reviewer: str
    """Who labels, where a browser has not said otherwise."""
    database: Database = field(default_factory=Database)
    queues: "OrderedDict[tuple[Any, ...], list[str]]" = field(default_factory=OrderedDict)
    """Queues that were asked for: an order must not change under the reader's hands."""

    def __post_init__(self) -> None:
        self.looks = SnapshotCache(self.database)
        self.templates = _templates()

    def run(self, request: "Request") -> RunTables | None:
        """The run that a link names."""
        return self.library.get(request.path_params["recipe"], request.path_params["name"])

    def question(self, request: "Request", look: RunSnapshot, table: str = "candidates") -> ListingQuery:
        """The view that a link describes.

        Raises:
            InputError: a part of it is wrong.
        """
        query = request.query_params
        after = query.get("after", "")
        # The form that adds a filter has a field for each part of it.
        added = [f"{query['field']}~{query.get('op', 'is')}~{query.get('value', '')}"] if query.get("field") else []
        view = View(
            table=table,
            where=tuple(parse_where(one) for one in [*query.getlist("where"), *added] if one),
            search=query.get("q", "").strip(),
            sort=query.get("sort", ""),
            after=int(after) if re.fullmatch(r"\d{1,18}", after) else None,
        )
        return ListingQuery(look, view, look.fields(table, reviewers=self.looks.labels(look.run).reviewers()))

    def who(self, request: "Request") -> str:
        """The reviewer of this browser."""
        name = request.cookies.get(REVIEWER_COOKIE, "")
        return name if NAME.fullmatch(name) else self.reviewer

    def page(self, request: "Request", template: str, *, status: int = 200, **values: Any) -> "Response":
        """A rendered page."""
        from starlette.responses import HTMLResponse

        theme = request.cookies.get(THEME_COOKIE, "")
        shared = {
            "theme": theme if theme in ("dark", "light") else "",
            "who": self.who(request),
            "path": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "event": secrets.token_hex(8),
            "is_fragment": "hx-request" in request.headers,
        }
        return HTMLResponse(self.templates.get_template(template).render(**shared, **values), status)

    def warm(self) -> None:
        """Looks at the only run beforehand, so that the first page does not wait for it."""
        if self.library.only is not None:
            with suppress(RecontextError):  # the page will say it
                self.looks.of(self.library.only)

    def close(self) -> None:
        """Writes what is to be written and frees the rest."""
        self.looks.close()
        self.database.close()


def link(run: RunTables | None, *parts: str, **parameters: Any) -> str:
    """The address of a page; every part of it is quoted."""
    at = ["run", run.recipe, run.name] if run is not None else []
    path = "/" + "/".join(quote(str(part), safe="") for part in [*at, *parts])
    pairs = [(key, value) for key, given in parameters.items() for value in _each(given)]
    return path + (f"?{urlencode(pairs)}" if pairs else "")


def _each(given: Any) -> Iterable[Any]:
    if given is None or given == "":
        return ()
    return [str(one) for one in given] if isinstance(given, list | tuple) else (given,)


def of_view(view: View, **changes: Any) -> dict[str, Any]:
    """A view as the parameters of a link."""
    return {"where": list(view.where), "q": view.search, "sort": view.sort} | changes


def _templates() -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        # The reports' macros show hostile text and differences; here and there it is the same text.
        loader=ChoiceLoader([PackageLoader("recontext_data.viewer"), PackageLoader("recontext_data.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pieces": pieces,
        "visible": visible,
        "cut": cut,
        "one_line": one_line,
        "count": lambda value: f"{value:,}",
        "percent": numbers.percent,
        "money": numbers.money,
        "duration": numbers.duration,
        "when": lambda seconds: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)),
        "plain": _plain,
        "brief": _brief,
    }
    environment.globals |= {"link": link, "of_view": of_view, "which": which}
    environment.globals |= {"generated_under": generated_under, "trained_under": trained_under}
    return environment


def _plain(value: Any) -> str:
    """A value of a table for a reader."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _brief(text: str, limit: int = 160) -> str:
    """A text on one line, cut where a table has no room for it."""
    line = visible(" ".join(text[: 2 * limit].split()))
    return line if len(line) <= limit else line[:limit] + "…"
