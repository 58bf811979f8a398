"""Serves the review page on this machine: the socket, the key in the link, and the end by Ctrl-C."""

import getpass
import re
import secrets
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from recontext_data.core.browser import show
from recontext_data.core.errors import RecipeError, SetupError
from recontext_data.store.labels import NAME
from recontext_data.viewer.runs import RunTables, library

LARGE_BYTES = 200_000_000
"""Of candidates, above which opening a run takes seconds."""


def serve(output: Path, run: str | None, *, port: int, reviewer: str | None = None, opens: bool = False) -> None:
    """Serves the review page of one run, or of all runs below a folder, until interrupted.

    Raises:
        InputError: there is no such run, or the reviewer's name is not allowed.
        SetupError: the extra `view` is not installed, or the port is taken.
    """
    reviewer = reviewer_name(reviewer)
    _require_extra()
    import uvicorn

    from recontext_data.viewer.app import application
    from recontext_data.viewer.site import Site

    runs = library(output, run)
    with _listening(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        site = Site(runs, reviewer)
        if runs.only is not None and _is_large(runs.only):
            print("opening the run: its tables are looked through once", file=sys.stderr, flush=True)
        site.warm()
        address = f"http://127.0.0.1:{port}/?token={token}"
        config = uvicorn.Config(
            application(site, token=token, cookie=f"recontext_view_{port}"),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        print(f"{address}\nThe link is for you alone: it holds the key. Ctrl-C ends.", flush=True)
        if opens:
            show(address)
        # uvicorn raises the signal that ended it once more: as an interrupt it lets what follows be done.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # the way to end it
        finally:
            site.close()


def _is_large(run: RunTables) -> bool:
    """Whether opening it takes more than a moment."""
    return sum(path.stat().st_size for path in run.files("candidates")) > LARGE_BYTES


def reviewer_name(name: str | None) -> str:
    """The name to label under.

    Raises:
        RecipeError: it was given and cannot be one.
    """
    if name is None:
        try:
            login = getpass.getuser()
        except (OSError, KeyError):  # KeyError before Python 3.13
            login = ""
        return re.sub(r"[^A-Za-z0-9._-]", "-", login).strip("-._")[:40] or "reviewer"
    if not NAME.fullmatch(name):
        raise RecipeError(f"reviewer={name}: not a reviewer; use up to 40 letters, digits, '.', '_' and '-'")
    return name


def _require_extra() -> None:
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise SetupError(f"view needs {missing[0]}, which is not installed: pip install 'recontext_data[view]'")


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # So that it can be started again at once; on Windows the same word would share the port with a stranger.
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"port={port}: cannot be listened on ({error.strerror}); is another view open? port=0 takes a free one"
        ) from None
    listener.listen(128)
    return listener
