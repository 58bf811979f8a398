"""Processes that a test starts to kill them: forked from one that has imported everything heavy, for a fast start.

`multiprocessing` has one such process per worker of pytest, whoever asks first. So there is one list of what it imports, it is
started from the checkout's root whatever folder a test is in, and a child is given the environment and the folder of its test.
"""

import contextlib
import importlib
import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from typing import Any

from tests.conftest import ROOT

HEAVY = (
    "pytest",
    "openai",
    "pyarrow",
    "polars",
    "filelock",
    "rich.console",
    "rich.table",
    "recontext_data.publishing.services.openai_train",
)
TRAINING = (
    "trl.trainer.sft_trainer",
    "recontext_data.training.sft",
    "recontext_data.experiments.rounds",
    "tests.training_world",
)


def import_all() -> None:
    """What is slow to import; that of training where it is installed."""
    for name in (*HEAVY, *(TRAINING if importlib.util.find_spec("trl") else ())):
        importlib.import_module(name)


def start(function: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """Runs a function of a module in a process of its own; `kill()` is SIGKILL."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.children_preload"])
    with contextlib.chdir(ROOT):
        multiprocessing.forkserver.ensure_running()
    process = context.Process(target=_run, args=(function, arguments, dict(os.environ), os.getcwd()), daemon=True)
    process.start()
    return process


def _run(function: Callable[..., object], arguments: tuple[Any, ...], environment: Mapping[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    function(*arguments)
