"""The output mode of a command, `screen=`: for a person, for a log, or for a program.

    auto    colours and live lines on a terminal, plain lines elsewhere (the default)
    rich    colours and live lines even where no terminal is seen; NO_COLOR still takes the colours
    plain   plain lines, even on a terminal
    quiet   results, warnings and errors; no progress and no notes
    json    one JSON object per line: results on stdout (key `result`), everything else on stderr (key `event`)

Light: nothing here imports rich.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO, get_args

from recontext_data.core.errors import RecipeError, did_you_mean

Mode = Literal["auto", "rich", "plain", "quiet", "json"]
MODES: tuple[Mode, ...] = get_args(Mode)
OPTION = {"screen": (" | ".join(MODES), "The output mode: for a person, a log, or a program; auto unless set.")}

_mode: ContextVar[Mode] = ContextVar("screen", default="auto")


def mode() -> Mode:
    """The mode of the command that is running."""
    return _mode.get()


def take_out(words: Sequence[str]) -> tuple[list[str], Mode]:
    """A command line without `screen=`, and the mode that it says.

    Raises:
        RecipeError: there is no such mode, or `screen` is given twice.
    """
    found: Mode | None = None
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key != "screen":
            rest.append(word)
        elif found is not None:
            raise RecipeError("screen: given twice; write it once")
        elif (known := next((one for one in MODES if one == value), None)) is not None:
            found = known
        else:
            raise RecipeError(f"screen={value}: must be {' | '.join(MODES)}; {did_you_mean(value, MODES)}")
    return rest, found or "auto"


@contextmanager
def speaking(new: Mode) -> Iterator[None]:
    """Holds the mode for the calls within. In json what others print becomes objects too, a line each."""
    token = _mode.set(new)
    streams = sys.stdout, sys.stderr
    try:
        if new == "json":
            sys.stdout, sys.stderr = _Lines(streams[0], "result"), _Lines(streams[1], "event")
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Lines):
                stream.finish()
        sys.stdout, sys.stderr = streams
        _mode.reset(token)


def is_live(stream: TextIO) -> bool:
    """Whether lines may be drawn over on a stream."""
    if mode() == "auto":
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    return mode() == "rich"


def has_colour(stream: TextIO) -> bool:
    """Whether a stream takes colours."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


def emit(stream: TextIO, facts: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own. All of it is ASCII, so that no terminal and no encoding stumbles over a text."""
    raw: TextIO = stream.raw if isinstance(stream, _Lines) else stream
    raw.write(json.dumps(_plain(facts), default=str) + "\n")
    raw.flush()


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity; what is missing is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


class _Lines:
    """A stream that turns every line printed to it into an object; the rest is the stream's own."""

    def __init__(self, raw: TextIO, key: str) -> None:
        self.raw = raw
        self._key = key
        self._begun = ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._line(line)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """What no newline ended."""
        self._line(self._begun)
        self._begun = ""

    def isatty(self) -> bool:
        return False

    def _line(self, text: str) -> None:
        said = text.rpartition("\r")[2].strip()  # of a line that was drawn over, what is left to see
        if said:
            emit(self.raw, {self._key: "text", "text": said})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)
