"""Processes that write to a reply store, and what their replies say: for the tests that kill and race them."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from recontext_data.core.records import Reply
from recontext_data.store.replies import ReplyStore
from tests.conftest import ROOT

GROUP = 20

START = """
import sys
from pathlib import Path
from recontext_data.core.errors import StoreError
from recontext_data.core.records import Reply
from recontext_data.store.replies import ReplyStore
folder, name = Path(sys.argv[1]), sys.argv[2]
def group(number):
    return [f"{name}-{number}-{place}" for place in range(20)]
def replies(keys):
    return [Reply(key=key, completion=(key + " ") * 20, model="m") for key in keys]
"""


def child(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A Python process of our own."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill(process: "subprocess.Popen[str]") -> str:
    """kill -9; returns what it had printed that was not read yet."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    with process.stdout:  # not communicate(), which does not see what readline() has read ahead
        rest = process.stdout.read()
    process.wait(timeout=30)
    return rest


def text(key: str) -> str:
    """What a reply with this key says."""
    return (key + " ") * 20


def replies(keys: Sequence[str]) -> list[Reply]:
    """A reply for each key."""
    return [Reply(key=key, completion=text(key), model="m") for key in keys]


def stored(folder: Path, keys: Sequence[str]) -> dict[str, str]:
    """What the store gives for these keys; each must be there once."""
    found = ReplyStore(folder).find(pl.Series("key", keys, dtype=pl.String))
    pairs = dict(zip(found["key"], found["completion"], strict=True))
    assert len(pairs) == len(found)
    return pairs


def leave(folder: Path, keys: Sequence[str]) -> Path:
    """A journal as a build leaves it that ended badly."""
    with suppress(RuntimeError), ReplyStore(folder) as store:
        store.append(replies(keys))
        raise RuntimeError("the build ends badly")
    return next(folder.glob("journal-*.jsonl"))
