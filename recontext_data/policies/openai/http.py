"""The wire to a server that speaks OpenAI's protocol: one connection pool, bytes out, an `Answer` back.

`Wire.post` never raises for what a server or the network does: it says what happened, and whoever asked decides whether to
ask again. The key goes into one header and nowhere else; where a server echoes it, it is blotted out.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from recontext_data.core.errors import PolicyError, SetupError
from recontext_data.core.version import __version__
from recontext_data.policies.openai.reply import words

Kind = Literal["answered", "timeout", "unreachable", "broken"]
LONGEST_ERROR = 500
"""Characters kept of a server's own words: some send whole pages of HTML."""
SECRET_IN_ERROR, SECRET_IN_REPLY = 4, 12
"""Shortest key that is blotted out: local servers are given words such as `none`, which a completion may well contain."""
BLOT = "[key]"
ESCAPES = (b"\\u00", b"\\/")
"""How JSON may write a key's characters in another way than as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one request."""

    kind: Kind
    """`answered`: with a status and JSON, or an error's words. `broken`: no answer, half of one, or one that is not JSON."""
    status: int = 0
    body: Any = None
    text: str = ""
    """One line about what went wrong; empty when nothing did."""
    retry_after: float | None = None
    """Seconds that the server wishes to be left alone."""


class Wire:
    """A connection pool for one server and one key, in the event loop in which it is made."""

    def __init__(self, base_url: str, *, key: str, timeout_seconds: float) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise SetupError("policy.kind=openai needs aiohttp: pip install aiohttp") from error
        self._base_url = base_url
        self._url = f"{base_url}/chat/completions"
        self._key = key
        self._key_bytes = key.encode() if len(key) >= SECRET_IN_REPLY else b""
        self._timeout_seconds = timeout_seconds
        headers = {"Content-Type": "application/json", "User-Agent": f"recontext_data/{__version__}"}
        self._session = aiohttp.ClientSession(
            # No limit of its own: a request that waits here for a connection would run into its timeout.
            connector=aiohttp.TCPConnector(limit=0),
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy(base_url),
        )

    async def post(self, body: bytes) -> Answer:
        """Sends one body and reads all of the answer. The clock of `timeout_seconds` runs from here."""
        import aiohttp

        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError:  # first: aiohttp's are client errors too
            return Answer(kind="timeout", text=f"no answer within policy.timeout_seconds={self._timeout_seconds:g}")
        except aiohttp.ClientConnectorError as error:
            cause = type(error.__cause__ or error).__name__
            told = f"cannot reach {self._base_url} ({cause}): check policy.base_url and that the server runs"
            return Answer(kind="unreachable", text=told)
        except (aiohttp.ClientError, OSError) as error:
            return Answer(kind="broken", text=f"the connection broke before the answer was whole ({type(error).__name__})")
        return self._read(response.status, response.headers, content)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    def _read(self, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        body = _parse(content)
        if self._key_bytes and (self._key_bytes in content or any(escape in content for escape in ESCAPES)):
            body, content = self._blot(body), content.replace(self._key_bytes, BLOT.encode())
        status = _meant(status, body)
        if status == 200 and body is not None and not (isinstance(body, dict) and body.get("error")):
            return Answer(kind="answered", status=200, body=body)
        if body is None and status == 200:
            return Answer(kind="broken", text=self.line(f"the server's reply is not JSON: {words(_text(content))}"))
        told = words(_text(content) if body is None else body)
        if 300 <= status < 400:
            told = f"it points to {headers.get('Location', 'another address')}: set policy.base_url to where it really is"
        return Answer(
            kind="answered",
            status=status,
            body=body,
            text=self.line(f"status {status}: {told}" if status != 200 else told),
            retry_after=retry_after(headers, now=time.time()),
        )

    def _blot(self, body: Any) -> Any:
        """The body without the key, in whichever way JSON may have written it."""
        text = json.dumps(body, ensure_ascii=False)
        return json.loads(text.replace(self._key, BLOT)) if self._key in text else body

    def line(self, text: str) -> str:
        """Words for an error: without the key, and not endless. In this order, since half a key is a key too."""
        text = text.replace(self._key, BLOT) if len(self._key) >= SECRET_IN_ERROR else text
        return text if len(text) <= LONGEST_ERROR else text[:LONGEST_ERROR] + " ..."


def read_key(variable: str) -> str:
    """The key in an environment variable; "" when none is needed.

    Raises:
        PolicyError: there is none, or it is none.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise PolicyError(f"no API key: set {variable} in the environment; for a local server set policy.api_key_env=''")
    if not (key.isascii() and key.isprintable()):
        # Left to the client, this would be an error that quotes the key.
        raise PolicyError(f"the API key in {variable} has characters that no key has: copy it again")
    return key


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or either form of `Retry-After`; None where there is no such wish."""
    for name, unit in (("retry-after-ms", 1000.0), ("Retry-After", 1.0)):
        text = headers.get(name, "").strip()
        try:
            return min(max(0.0, float(text) / unit), 1e9)  # also what makes infinity a number
        except ValueError:
            pass
    try:
        wished = parsedate_to_datetime(headers["Retry-After"]).timestamp()
        # By the server's own clock, where it shows it.
        return max(0.0, wished - (parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else now))
    except (KeyError, ValueError, TypeError):
        return None


def _parse(content: bytes) -> Any:
    """JSON; None when it is none."""
    try:
        return orjson.loads(content)
    except ValueError:
        pass
    try:
        # Servers in Python send NaN for a log-probability, and half a surrogate pair, which strict readers refuse and
        # nobody can store: the one is read, the other becomes U+FFFD.
        whole = json.dumps(json.loads(content.decode()), ensure_ascii=False)
        return json.loads(whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return None


def _meant(status: int, body: Any) -> int:
    """Some servers pass on another server's error with status 200 and the true status in the body."""
    status = 200 if 200 <= status < 300 else status
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if status == 200 and isinstance(code, int) and 400 <= code < 600 else status


def _text(content: bytes) -> str:
    return content[: 4 * LONGEST_ERROR].decode("utf-8", "replace")


def _proxy(base_url: str) -> str | None:
    """The environment's proxy for this address. Looked up once; left to aiohttp it also reads passwords from ~/.netrc."""
    from urllib.request import getproxies, proxy_bypass

    url = urlsplit(base_url)
    host = url.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
