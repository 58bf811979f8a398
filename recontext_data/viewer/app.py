"""The pages: what is asked, in which thread it is answered, and what an error looks like. Reading alone; see labelling.py."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import InputError, RecontextError
from recontext_data.core.tables import LABELS
from recontext_data.reports import numbers
from recontext_data.viewer import candidate as candidates
from recontext_data.viewer import reports
from recontext_data.viewer.database import TooSlow
from recontext_data.viewer.facets import facets
from recontext_data.viewer.fields import OPERATORS, View
from recontext_data.viewer.labelling import panel
from recontext_data.viewer.labelling import routes as labelling_routes
from recontext_data.viewer.listing import ListingQuery, neighbour, page
from recontext_data.viewer.live import newest
from recontext_data.viewer.look import RunSnapshot
from recontext_data.viewer.runs import TABLES, RunTables
from recontext_data.viewer.security import Guard
from recontext_data.viewer.site import Site, link, of_view
from recontext_data.viewer.sql_box import ask

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

Answer = Callable[[Site, "Request", RunSnapshot], "Response"]

STATIC = {"app.js": "text/javascript", "htmx.min.js": "text/javascript", "view.css": "text/css", "icon.svg": "image/svg+xml"}

OF_RUN = "/run/{recipe}/{name}"

EXAMPLE_SQL = "SELECT judge, label, count(*) AS n\nFROM judgements\nGROUP BY ALL\nORDER BY judge, n DESC"


def application(site: Site, *, token: str, cookie: str) -> "ASGIApp":
    """The guarded application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def runs(request: "Request") -> "Response":
        return await _threaded(site, request, _runs)

    async def reviewer(request: "Request") -> "Response":
        return await _reviewer(site, request)

    async def report(request: "Request") -> "Response":
        return await _threaded(site, request, reports.of_recipe_request)

    routes = [
        Route("/", runs),
        Route("/report/{recipe}/{which}", report),
        Route("/favicon.ico", _icon),
        Route("/static/{file}", _static),
        Route("/reviewer", reviewer, methods=["POST"]),
    ]
    pages: dict[str, Answer] = {
        "": _overview,
        "/state": _state,
        "/rows/{table}": _rows,
        "/facets/{table}": _facets,
        "/candidate/{id}": _candidate,
        "/candidate/{id}/text": _text,
        "/candidate/{id}/history": _history,
        "/go": _go,
        "/task": _task,
        "/sql": _sql,
        "/report/{which}": _report,
    }
    routes += [Route(OF_RUN + path, _of_run(site, answer)) for path, answer in pages.items()]
    routes += [Route(OF_RUN + path, _of_run(site, answer), methods=methods) for path, answer, methods in labelling_routes()]

    async def missing(request: "Request", error: Exception) -> "Response":
        return site.page(request, "error.html.j2", status=404, message="There is no such page.", run=None)

    async def broken(request: "Request", error: Exception) -> "Response":
        message = "That is a fault of this page; the terminal has the details. What you labelled is kept."
        return site.page(request, "error.html.j2", status=500, message=message, run=None)

    starlette = Starlette(routes=routes, exception_handlers={404: missing, 500: broken})
    starlette.router.redirect_slashes = False  # an address that is nearly right is wrong
    return Guard(starlette, token=token, cookie=cookie)


def _of_run(site: Site, answer: Answer) -> Callable[["Request"], Any]:
    """A page of one run, with the run looked up and errors turned into pages."""

    def answering(site: Site, request: "Request") -> "Response":
        run = site.run(request)
        if run is None:
            return site.page(request, "error.html.j2", status=404, message="There is no such run.", run=None)
        try:
            return answer(site, request, site.looks.of(run))
        except RecontextError as error:
            status = 400 if isinstance(error, InputError) else 503
            return site.page(request, "error.html.j2", status=status, message=str(error), run=run)

    async def page_of_run(request: "Request") -> "Response":
        # Read here and not in the thread: a body comes over the loop. What it may hold is bounded by the guard.
        request.state.body = await request.body() if request.method == "POST" else b""
        return await _threaded(site, request, answering)

    return page_of_run


async def _threaded(site: Site, request: "Request", answer: Callable[[Site, "Request"], "Response"]) -> "Response":
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(answer, site, request)


async def _static(request: "Request") -> "Response":
    from starlette.responses import Response

    name = request.path_params["file"]
    if name not in STATIC:  # looked up, never opened by what was asked
        return Response("no such file", 404)
    return Response((Path(__file__).parent / "static" / name).read_bytes(), media_type=STATIC[name])


async def _icon(request: "Request") -> "Response":
    from starlette.responses import RedirectResponse

    return RedirectResponse("/static/icon.svg", status_code=301)


async def _reviewer(site: Site, request: "Request") -> "Response":
    from urllib.parse import parse_qs

    from starlette.responses import RedirectResponse

    from recontext_data.store.labels import NAME
    from recontext_data.viewer.site import REVIEWER_COOKIE

    form = parse_qs((await request.body()).decode())
    name, back = form.get("reviewer", [""])[0].strip(), form.get("back", ["/"])[0]
    if not NAME.fullmatch(name):
        message = f"reviewer={name[:60]!r}: is not a valid name; use up to 40 letters, digits, '.', '_' and '-'"
        return site.page(request, "error.html.j2", status=400, message=message, run=None)
    # Only a path of ours: "//host" and "/\host" are other places to a browser.
    is_ours = back.startswith("/") and back[1:2] not in ("/", "\\")
    response = RedirectResponse(back if is_ours else "/", status_code=303)
    response.set_cookie(REVIEWER_COOKIE, name, httponly=True, samesite="strict", max_age=365 * 86400)
    return response


def _runs(site: Site, request: "Request") -> "Response":
    from starlette.responses import RedirectResponse

    if site.library.only is not None:
        return RedirectResponse(link(site.library.only), status_code=303)
    rows = [(run, run.manifest()) for run in site.library.runs()]
    return site.page(request, "runs.html.j2", rows=rows, others=reports.of_recipes(site.library), run=None)


def _overview(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    manifest = look.manifest
    return site.page(
        request,
        "run.html.j2",
        run=look.run,
        look=look,
        tables=[table for table in TABLES if table in look.sources],
        rates=numbers.rates(manifest) if manifest else [],
        ledger=numbers.ledger(manifest) if manifest else [],
        finding=numbers.finding(manifest) if manifest else "",
        problems=numbers.problems(manifest) if manifest else [],
        replies=newest(look.run) if "candidates" not in look.sources else [],
        reports=reports.of_run(look.run),
    )


def _report(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    return reports.of_request(site, request, look.run)


def _state(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    """What an open page of an unfinished run asks every two seconds."""
    given = request.query_params.get("state", "")
    return site.page(
        request, "state.html.j2", run=look.run, look=look, given=given, replies=newest(look.run) if not look.counts else []
    )


def _table(request: "Request", look: RunSnapshot) -> str:
    table = str(request.path_params["table"])
    if table not in TABLES:
        raise InputError(f"{table[:40]!r} is not a table; known: {', '.join(TABLES)}")
    if table not in look.sources:
        raise InputError(f"{table}: is not written yet; the run is being built")
    return table


def _rows(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    question = site.question(request, look, _table(request, look))
    return site.page(
        request,
        "rows_more.html.j2" if "more" in request.query_params and "hx-request" in request.headers else "rows.html.j2",
        run=look.run,
        look=look,
        view=question.view,
        fields=question.fields,
        operators=OPERATORS,
        page=page(site.database, question),
        labels=_own_labels(site, request, look.run),
    )


def _own_labels(site: Site, request: "Request", run: RunTables) -> Callable[[str], list[str]]:
    labels, who = site.looks.labels(run), site.who(request)
    return lambda candidate_id: [
        value for question in ("behaviour", "use") if (value := labels.value(who, candidate_id, question)) is not None
    ]


def _facets(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    question = site.question(request, look, _table(request, look))
    found = None
    with suppress(TooSlow):  # the list beside it is there all the same
        found = facets(site.database, question)
    return site.page(request, "facets.html.j2", run=look.run, view=question.view, found=found)


def _candidate(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    shown = candidates.find(site.database, look, request.path_params["id"])
    if shown is None:
        raise InputError("candidate: this run has none of that id" if look.counts else "candidate: none is written yet")
    question = site.question(request, look)
    return site.page(
        request,
        "candidate.html.j2",
        run=look.run,
        look=look,
        shown=shown,
        view=question.view,
        queue=None,
        **panel(site, request, look, shown.row["candidate_id"]),
    )


def _text(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    start = request.query_params.get("start", "0")
    found = candidates.text(
        site.database,
        look,
        request.path_params["id"],
        request.query_params.get("column", ""),
        int(start) if start.isdigit() else 0,
    )
    if found is None:
        raise InputError("text: there is none here")
    return site.page(request, "text_more.html.j2", run=look.run, text=found, candidate_id=request.path_params["id"])


def _history(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    shown = candidates.find(site.database, look, request.path_params["id"])
    known = candidates.history(site.database, look.run, shown.row["reply_key"]) if shown else None
    return site.page(request, "history.html.j2", run=look.run, known=known)


def _go(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    """To the candidate after or before a row of a view."""
    from starlette.responses import RedirectResponse

    question = site.question(request, look)
    row = question.view.after
    here = View("candidates", question.view.where, question.view.search, question.view.sort)
    question = ListingQuery(look, here, question.fields)
    to = neighbour(site.database, question, row, back="back" in request.query_params) if row is not None else None
    if to is None:
        return RedirectResponse(link(look.run, "rows", "candidates", **of_view(here)), status_code=303)
    found = site.database.rows(f"SELECT candidate_id FROM {question.source} c WHERE c.row = {int(to)}")
    return RedirectResponse(link(look.run, "candidate", found[0]["candidate_id"], **of_view(here)), status_code=303)


def _task(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    if "candidates" not in look.sources:
        raise InputError("task: no candidates are written yet")
    task, rows = candidates.of_task(site.database, look, request.query_params.get("id", ""))
    if not rows:
        raise InputError("task: this run has no candidate of it")
    return site.page(
        request, "task.html.j2", run=look.run, look=look, task=task, rows=rows, labels=_own_labels(site, request, look.run)
    )


def _sql(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    sql = request.query_params.get("sql", "")
    answer, wrong = None, ""
    labels = site.looks.labels(look.run)
    if sql.strip():
        tables = {table: look.run.files(table) for table in TABLES if table in look.sources}
        try:
            answer = ask(sql, tables | ({"labels": [labels.compact()]} if labels.reviewers() else {}))
        except InputError as error:
            wrong = str(error)
    return site.page(
        request,
        "sql.html.j2",
        status=400 if wrong else 200,
        run=look.run,
        look=look,
        sql=sql or EXAMPLE_SQL,
        answer=answer,
        wrong=wrong,
        columns={table: [column for column in look.columns[table] if column != "row"] for table in look.counts}
        | ({"labels": [column.name for column in LABELS]} if labels.reviewers() else {}),
    )
