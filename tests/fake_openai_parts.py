"""The small parts of the fake OpenAI: pages, events, verdicts, errors, and saving what is sent."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

Json = dict[str, Any]

CATEGORIES = (
    "hate", "hate/threatening", "harassment", "harassment/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def verdict(text: str, flagged: Sequence[str]) -> Json:
    """What moderation says of a text: violence, where it has one of these words."""
    bad = any(word in text for word in flagged)
    return {
        "flagged": bad,
        "categories": {name: bad and name == "violence" for name in CATEGORIES},
        "category_scores": dict.fromkeys(CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }


def event(name: str, number: int, type_: str, message: str, data: Json, created: int) -> Json:
    facts = {"object": "fine_tuning.job.event", "id": f"ftevent-{name}-{number}", "created_at": created, "level": "info"}
    return {**facts, "message": message, "type": type_, "data": data}


def loss(step: int) -> float:
    return 2.0 / (1 + step)


def page(rows: list[Json], request: web.Request, *, size: int) -> tuple[list[Json], bool]:
    """One page, small whatever was asked for, so that pages are turned."""
    names = [row["id"] for row in rows]
    start = names.index(request.query["after"]) + 1 if request.query.get("after") in names else 0
    page = rows[start : start + min(int(request.query.get("limit", 20)), size)]
    return page, start + len(page) < len(rows)


async def _chunks(part: Any) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(1 << 20):
        yield chunk


async def save(part: Any, path: Path) -> None:
    with path.open("wb") as handle:
        async for chunk in _chunks(part):
            handle.write(chunk)


def error(status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)
