"""The pages that record what a reviewer says: labels, notes, undo; queues, blind or not; and how far reviewers agree."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from recontext_data.core.errors import InputError, did_you_mean
from recontext_data.core.records import content_hash
from recontext_data.store.labels import NOTE, QUESTIONS
from recontext_data.viewer import candidate as candidates
from recontext_data.viewer.agreement import agreements
from recontext_data.viewer.fields import View, parse_where
from recontext_data.viewer.listing import ListingQuery
from recontext_data.viewer.look import RunSnapshot
from recontext_data.viewer.queues import MEANINGS, ORDERS, Order, one_in, queue
from recontext_data.viewer.site import QUEUES_KEPT, Site, link

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(frozen=True)
class Queue:
    """A queue as its links describe it."""

    order: Order
    seed: int
    question: str
    """Which question its candidates are read for; those that are answered are passed over."""
    blind: bool
    where: list[str]
    search: str

    def parameters(self, **changes: Any) -> dict[str, Any]:
        """For a link."""
        blind = "1" if self.blind else "0"
        own = {"order": self.order, "seed": str(self.seed), "question": self.question, "blind": blind}
        return own | {"where": self.where, "q": self.search} | changes

    @property
    def text(self) -> str:
        """For a form, which hands it back."""
        pairs = [
            (key, one) for key, given in self.parameters().items() for one in (given if isinstance(given, list) else [given])
        ]
        return urlencode(pairs)


def routes() -> list[tuple[str, Callable[[Site, "Request", RunSnapshot], "Response"], list[str]]]:
    """Paths below a run, their answers and methods."""
    return [
        ("/label", _label, ["POST"]),
        ("/undo", _undo, ["POST"]),
        ("/queue", _queue_page, ["GET"]),
        ("/agreement", _agreement, ["GET"]),
    ]


def _form(request: "Request") -> dict[str, str]:
    try:
        given = parse_qs(request.state.body.decode(), keep_blank_values=True)
    except UnicodeDecodeError:
        raise InputError("the form is not UTF-8") from None
    return {key: values[-1] for key, values in given.items()}


def _label(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    """Records one label, one note, or both, of a candidate."""
    form, labels, who = _form(request), site.looks.labels(look.run), site.who(request)
    candidate_id, queue = form.get("candidate", ""), _parse(form["queue"]) if form.get("queue") else None
    if not _exists(site, look, candidate_id):
        raise InputError("candidate: this run has none of that id")
    question, _, value = form.get("label", "").partition("=")
    # A note is sent with every label, so that no key loses what was typed; before it, so that an undo takes the label back.
    said = [(NOTE, form["note"].strip() or None)] if "note" in form else []
    said += [(question, value or None)] if question else []
    for asked, word in said:
        if labels.value(who, candidate_id, asked) != word:
            # The form's own id and what was said: a double click sends the same event, a change of mind another one.
            event = f"{form.get('event', '')[:64]}:{asked}:{content_hash(word)[:16]}"
            labels.say(reviewer=who, candidate_id=candidate_id, question=asked, value=word, event=event)
    labels.compact_soon()
    if queue is not None and question == queue.question and value:
        to = _next(site, request, look, queue, candidate_id)
        return _move(request, link(look.run, "queue", **queue.parameters(at=to or "end")))
    return _stay(site, request, look, candidate_id, queue)


def _exists(site: Site, look: RunSnapshot, candidate_id: str) -> bool:
    if "candidates" not in look.sources:
        return False
    return bool(
        site.database.rows(f"SELECT 1 FROM {look.sources['candidates']} WHERE candidate_id = ? LIMIT 1", [candidate_id])
    )


def _undo(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    """Takes back the event that the form names, which was the reviewer's last one when the page was made."""
    form, labels, who = _form(request), site.looks.labels(look.run), site.who(request)
    here, queue = form.get("candidate", ""), _parse(form["queue"]) if form.get("queue") else None
    undone = labels.undo(reviewer=who, undoes=form.get("undoes", ""), event=f"{form.get('event', '')[:64]}:undo")
    labels.compact_soon()
    # What is undone may have been said in another run of this recipe, which has candidates that this one has not.
    if undone is None or undone.candidate_id == here or not _exists(site, look, undone.candidate_id):
        return _stay(site, request, look, here, queue)
    if queue is None:
        return _move(request, link(look.run, "candidate", undone.candidate_id))
    return _move(request, link(look.run, "queue", **queue.parameters(at=undone.candidate_id)))


def _move(request: "Request", to: str) -> "Response":
    """To another candidate."""
    from starlette.responses import RedirectResponse, Response

    if "hx-request" in request.headers:
        return Response(headers={"HX-Location": _location(to)})
    return RedirectResponse(to, status_code=303)


def _stay(site: Site, request: "Request", look: RunSnapshot, candidate_id: str, queue: Queue | None) -> "Response":
    """The panel of the same candidate, as it is now."""
    from starlette.responses import RedirectResponse

    if "hx-request" not in request.headers:
        if queue is None:
            return RedirectResponse(link(look.run, "candidate", candidate_id), status_code=303)
        return RedirectResponse(link(look.run, "queue", **queue.parameters(at=candidate_id)), status_code=303)
    values = panel(site, request, look, candidate_id)
    return site.page(request, "panel_only.html.j2", run=look.run, candidate_id=candidate_id, queue=queue, **values)


def panel(site: Site, request: "Request", look: RunSnapshot, candidate_id: str | None) -> dict[str, Any]:
    """What the panel of a candidate shows."""
    labels = site.looks.labels(look.run)
    rows = labels.about(candidate_id) if candidate_id is not None else []
    return {"labels": labels, "label_rows": rows, "last": labels.last(site.who(request))}


def _location(path: str) -> str:
    """htmx's word for: fetch this page, and put its main part in the place of this one's."""
    import orjson

    return orjson.dumps({"path": path, "target": "#main", "select": "#main", "swap": "outerHTML"}).decode()


def _parse(text: str) -> Queue:
    given = parse_qs(text)
    order = given.get("order", ["random"])[0]
    question = given.get("question", ["behaviour"])[0]
    seed = given.get("seed", ["0"])[0]
    if order not in ORDERS:
        raise InputError(f"order={order!r}: is none; {did_you_mean(order, ORDERS)}")
    if question not in QUESTIONS:
        raise InputError(f"question={question!r}: is none; {did_you_mean(question, QUESTIONS)}")
    if not seed.isdigit() or len(seed) > 18:
        raise InputError(f"seed={seed[:40]!r}: is not a whole number from 0")
    return Queue(
        order=order,
        seed=int(seed),
        question=question,
        blind=given.get("blind", ["1"])[0] != "0",
        where=[one for one in given.get("where", []) if one],
        search=given.get("q", [""])[0],
    )


def _ids(site: Site, look: RunSnapshot, wanted: Queue) -> list[str]:
    """The queue's candidates; made once, since labels that are given meanwhile would shuffle it."""
    key = (look.run.key, look.state, wanted.order, wanted.seed, tuple(wanted.where), wanted.search)
    if key not in site.queues:
        if "candidates" not in look.sources:
            raise InputError("queue: no candidates are written yet")
        view = View("candidates", tuple(parse_where(one) for one in wanted.where), wanted.search)
        fields = look.fields("candidates", reviewers=site.looks.labels(look.run).reviewers())
        site.queues[key] = queue(site.database, ListingQuery(look, view, fields), order=wanted.order, seed=wanted.seed)
        while len(site.queues) > QUEUES_KEPT:
            site.queues.popitem(last=False)
    return site.queues[key]


def _next(site: Site, request: "Request", look: RunSnapshot, wanted: Queue, after: str | None) -> str | None:
    """The first candidate behind `after`, else from the start, that this reviewer has not answered."""
    ids = _ids(site, look, wanted)
    done = site.looks.labels(look.run).answered(site.who(request), wanted.question)
    place = ids.index(after) + 1 if after in ids else 0
    return next((one for one in [*ids[place:], *ids[:place]] if one not in done), None)


def _queue_page(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    wanted = _parse(request.url.query)
    ids = _ids(site, look, wanted)
    labels, who = site.looks.labels(look.run), site.who(request)
    at = request.query_params.get("at") or _next(site, request, look, wanted, None)
    shown = candidates.find(site.database, look, at) if at and at in ids else None
    place = ids.index(at) if at in ids else None
    done = labels.answered(who, wanted.question)
    return site.page(
        request,
        "queue.html.j2",
        run=look.run,
        look=look,
        queue=wanted,
        orders=MEANINGS,
        one_in=one_in(look.counts.get("candidates", 0)),
        questions=list(QUESTIONS),
        ids=ids,
        place=place,
        done=sum(one in done for one in ids),
        shown=shown,
        **panel(site, request, look, shown.row["candidate_id"] if shown is not None else None),
    )


def _agreement(site: Site, request: "Request", look: RunSnapshot) -> "Response":
    labels = site.looks.labels(look.run)
    rows = labels.rows()
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        one = counts.setdefault((row["question"], row["reviewer"]), {})
        one[row["label"]] = one.get(row["label"], 0) + 1
    return site.page(
        request,
        "agreement.html.j2",
        run=look.run,
        pairs=agreements(rows),
        counts=counts,
        questions=QUESTIONS,
        path_of_labels=labels.compact() if rows else None,
        damaged=labels.damaged(),
    )
