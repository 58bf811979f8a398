"""`recontext publish` in a process that is killed; what it prints goes to a file."""

import contextlib
import os
from multiprocessing.context import ForkServerProcess

from tests import children


def run(words: list[str], said: str) -> None:
    """The verb, as a process of its own."""
    from recontext_data.publish import main

    with open(said, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = main(words)
        file.flush()
        os._exit(code)


def start(words: list[str], said: str) -> ForkServerProcess:
    """Starts one; `kill()` is SIGKILL."""
    return children.start(run, words, said)
