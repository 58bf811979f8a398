"""Opens the data in a browser: `python -m recontext_data.view [run=NAME] [key=value ...]`.

    recontext view                       # every run below the working directory
    recontext view run=code_mc           # the newest run of a recipe; or recipe/fingerprint, or the path of a run's folder
    recontext view run=code_mc reviewer=alice port=0

Reading, comparing, searching, labelling; docs/viewing.md says how. The server listens on 127.0.0.1 alone, and the link that
is printed holds a token without which it shows nothing. Needs the extra `view`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recontext_data.cli import HELP, guarded
from recontext_data.core.browser import show
from recontext_data.core.errors import RecipeError, SetupError, did_you_mean
from recontext_data.reports import modes

if TYPE_CHECKING:
    import socket

    from recontext_data.viewer.runs import RunTables

OPTIONS = {
    "run": ("text", "a recipe (its newest run), recipe/fingerprint, or the path of a run's folder; all runs unless set"),
    "output": ("folder", "where runs/ and replies/ are; the working directory unless set"),
    "port": ("integer", "the port on 127.0.0.1; 0 takes a free one; 8321 unless set"),
    "reviewer": ("text", "who labels; the login name unless set, and every browser may say another"),
    "open": ("true | false", "opens a browser where there is a screen; true unless set"),
}

PORT = 8321
LARGE_BYTES = 200_000_000
"""Of candidates, above which opening a run takes seconds."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, sys.argv[1:] if words is None else words)


def _main(words: Sequence[str]) -> int:
    if any(word in HELP for word in words):
        print("usage: recontext view [run=NAME] [key=value ...]\n")
        for key, (type_, meaning) in {**OPTIONS, **modes.OPTION}.items():
            print(f"{key}: {type_}\n    {meaning}")
        return 0
    values = _values(words)
    is_opened = _flag(values.get("open", "true"))
    port = _port(values.get("port", str(PORT)))
    reviewer = _reviewer(values.get("reviewer"))
    _require_extra()
    return serve(Path(values.get("output", "")).expanduser(), values.get("run"), port=port, reviewer=reviewer, opens=is_opened)


def serve(output: Path, run: str | None, *, port: int, reviewer: str, opens: bool) -> int:
    """Serves until it is interrupted.

    Raises:
        InputError: there is no such run.
        SetupError: the port is taken.
    """
    import secrets
    import signal

    import uvicorn

    from recontext_data.viewer.app import application
    from recontext_data.viewer.runs import library
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
    return 0


def _is_large(run: "RunTables") -> bool:
    """Whether opening it takes more than a moment."""
    return sum(path.stat().st_size for path in run.files("candidates")) > LARGE_BYTES


def _values(words: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is no option; write key=value, such as run={word.lstrip('-') or 'code_mc'}, or --help")
        if key not in OPTIONS:
            raise RecipeError(f"{key!r} is no option of view; {did_you_mean(key, OPTIONS)}")
        values[key] = value
    return values


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise RecipeError(f"open: {text!r} will not do; write open=true or open=false")
    return text.lower() == "true"


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise RecipeError(f"port: {text!r} is no port; write port=8321, or port=0 for a free one")
    return int(text)


def _reviewer(name: str | None) -> str:
    """The name to label under.

    Raises:
        RecipeError: it was given and cannot be one.
    """
    import getpass
    import re

    from recontext_data.store.labels import NAME

    if name is None:
        try:
            login = getpass.getuser()
        except (OSError, KeyError):  # KeyError before Python 3.13
            login = ""
        return re.sub(r"[^A-Za-z0-9._-]", "-", login).strip("-._")[:40] or "reviewer"
    if not NAME.fullmatch(name):
        raise RecipeError(f"reviewer={name}: is no name; use up to 40 letters, digits, '.', '_' and '-'")
    return name


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise SetupError(f"view needs {missing[0]}, which is not installed: pip install 'recontext_data[view]'")


def _listening(port: int) -> "socket.socket":
    import socket

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


if __name__ == "__main__":
    sys.exit(main())
