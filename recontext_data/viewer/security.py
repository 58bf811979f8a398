"""Who may ask, and what a page may do: loopback names, a token, one origin, and a content security policy without exceptions.

Other pages in the reader's browser are the danger, for they can send requests to 127.0.0.1: by name (DNS rebinding, so the
Host header must be a loopback name), with the reader's cookie (so it is SameSite=Strict and Origin must be ours), or by
guessing the address (so there is a token, which the cookie then stands for).
"""

import hmac
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

MOST_BYTES = 64 * 1024
"""Of a request's body: a note has at most 10,000 characters."""

_ENTER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>recontext view</title>
<meta http-equiv="refresh" content="0;url={url}"><p>Opening the data.</p></html>"""

_REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>recontext view: refused</title>
<h1>Not open</h1><p>{why}</p></html>"""


class Guard:
    """Wraps the application; what is not allowed does not reach it."""

    def __init__(self, app: "ASGIApp", *, token: str, cookie: str) -> None:
        self.app = app
        self._token = token
        self._cookie = cookie
        """Has the port in its name: a browser shares cookies between the ports of a host."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await _answer(send, refusal[0], _REFUSED.format(why=refusal[1]))
        elif (token := _token(scope)) is not None:
            await self._enter(scope, send, token)
        elif not self._is_known(headers.get("cookie", "")):
            await _answer(send, 403, _REFUSED.format(why="Open the link that <code>recontext view</code> printed."))
        else:
            await self.app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _hostname(host) not in LOOPBACK:
            return 421, "This server answers to 127.0.0.1 and localhost alone."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin != f"http://{host}":
            return 403, "Another origin asked."
        if method not in ("GET", "HEAD") and origin is None:
            return 403, "A request that changes something must say where it comes from."
        if site in ("cross-site", "same-site") and (method != "GET" or headers.get("sec-fetch-mode") != "navigate"):
            return 403, "Another site asked."
        if method not in ("GET", "HEAD", "POST"):
            return 405, "Only GET and POST."
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit() or int(length) > MOST_BYTES:
            return 413, "That is too much."
        return None

    async def _enter(self, scope: "Scope", send: "Send", token: str) -> None:
        """Takes the token out of the address and puts it into a cookie.

        By a page that leads on and not by a redirect: after a click on another site a redirect would not carry the cookie.
        """
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            await _answer(send, 403, _REFUSED.format(why="This link is of another start of <code>recontext view</code>."))
            return
        rest = [(key, value) for key, value in parse_qsl(scope["query_string"].decode("latin-1")) if key != "token"]
        path = scope.get("raw_path", b"/").decode("latin-1")
        path = "/" + path.lstrip("/")  # never another host, as //host would be
        url = path + (f"?{urlencode(rest)}" if rest else "")
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 200, _ENTER.format(url=escape(url, quote=True)), cookie=cookie)

    def _is_known(self, cookies: str) -> bool:
        given = [pair.strip().partition("=") for pair in cookies.split(";")]
        return any(
            name == self._cookie and hmac.compare_digest(value.encode(), self._token.encode()) for name, _, value in given
        )


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _token(scope: "Scope") -> str | None:
    pairs = parse_qsl(scope["query_string"].decode("latin-1"))
    return next((value for key, value in pairs if key == "token"), None) if scope["method"] == "GET" else None


async def _answer(send: "Send", status: int, page: str, *, cookie: str | None = None) -> None:
    body = page.encode()
    headers = {**HEADERS, "Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))}
    if cookie is not None:
        headers["Set-Cookie"] = cookie
    raw = [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: "Send") -> "Send":
    async def sending(message: "Message") -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            said = {key.lower() for key, _ in given}  # a page that says its own policy has a stricter one: see reports.py
            own = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items() if key.lower().encode() not in said]
            message = {**message, "headers": [*given, *own]}
        await send(message)

    return sending
