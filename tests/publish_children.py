"""Processes that run `recontext publish` and are killed: forked from one that has imported everything, for a fast start."""

import contextlib
import importlib
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess

HEAVY = ("openai", "pyarrow", "filelock", "rich.console", "rich.table", "recontext_data.publishing.openai_train")

for _name in HEAVY:
    importlib.import_module(_name)


def run(words: list[str], said: str, environment: dict[str, str]) -> None:
    """The verb, as a process of its own; what it prints goes to a file.

    The server that forks is shared by every test of a worker and has the environment of the first that used it, so the
    environment of now (a key that a fixture set) is handed over.
    """
    from recontext_data.publish import main

    os.environ.clear()
    os.environ.update(environment)
    with open(said, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = main(words)
        file.flush()
        os._exit(code)


def start(words: list[str], said: str) -> ForkServerProcess:
    """Starts one; `kill()` is SIGKILL."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.publish_children"])
    process = context.Process(target=run, args=(words, said, dict(os.environ)), daemon=True)
    process.start()
    assert "recontext_data" in sys.modules
    return process
