"""What a sandbox takes and gives: jobs in, outcomes out, in the same order. Plain data, no process is started here."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from recontext_data.core import values
from recontext_data.core.values import Json

Status = Literal["ok", "source_error", "timeout", "crash", "output_limit", "garbled"]
"""`ok`: every call has a result. Otherwise the results end before the call at which this happened.

`source_error`: the source itself raised. `timeout`: the wall clock ran out. `crash`: the process ended by itself (os._exit,
a signal) or at a limit (memory, processes). `output_limit`: it returned too much. `garbled`: what came back is not what the
protocol allows, so the code wrote into it; nothing of it is believed.
"""


MAX_STDIN = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One thing to evaluate after the source has run: a function with arguments, or an expression over its names."""

    function: str = ""
    arguments: Sequence[Json] = ()
    """Positional, in the JSON form of `values`; decoded anew for each call."""
    expression: str | None = None
    """In place of function and arguments."""

    @classmethod
    def of(cls, function: str, *arguments: object) -> "Call":
        """A call with plain Python values."""
        return cls(function=function, arguments=[values.encode(argument) for argument in arguments])


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxJob:
    """A source and what to call in it. Jobs share nothing: neither files nor processes nor memory.

    With `stdin` it is a program instead: run as a script is, under the name `__main__`; its one result is what it printed.
    """

    source: str
    calls: Sequence[Call] = ()
    stdin: str | None = None
    """What a program reads, at most 16 MiB; None for a source with calls."""
    timeout_seconds: float = 10.0
    """Wall clock for the whole job; its CPU time is limited to a little more."""
    memory_bytes: int = 512 * 2**20
    """Address space of each of its processes, and memory of all of them together."""
    output_bytes: int = 8 * 2**20
    """All results together, or all that a program prints."""

    def __post_init__(self) -> None:
        if self.stdin is not None and self.calls:
            raise ValueError("job: stdin and calls; a program (stdin) has no calls")
        if self.stdin is not None and len(self.stdin) > MAX_STDIN:
            raise ValueError(f"job: stdin of {len(self.stdin):,} characters; at most {MAX_STDIN:,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one call gave: a value, or an error in its place."""

    value: Json = None
    """JSON form. None both for a returned None and beside an error; `error` tells them apart."""
    error: str | None = None
    """The exception's class name; `EncodingError` when the value has no JSON form. The code chose it: do not trust it."""
    detail: str = ""
    """The exception's message, shortened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOutcome:
    """What became of one job."""

    status: Status
    results: Sequence[Result]
    """One per call, fewer where the status is not `ok`. Of a program: one, the text it printed, if it ended with status 0."""
    detail: str = ""
    """More about a status that is not `ok`."""

    def value(self, index: int) -> Json:
        """The JSON form that call `index` returned.

        Raises:
            LookupError: that call returned no value.
        """
        if index >= len(self.results):
            raise LookupError(f"call {index} has no result: {self.status} {self.detail}".rstrip())
        result = self.results[index]
        if result.error is not None:
            raise LookupError(f"call {index} raised {result.error}: {result.detail}")
        return result.value

    def returned(self, index: int, expected: Json, *, tolerance: float = 0.0) -> bool:
        """Whether call `index` returned the expected value; no result and an error are a no."""
        if index >= len(self.results) or self.results[index].error is not None:
            return False
        return values.same(self.results[index].value, expected, tolerance=tolerance)

    def printed(self, expected: str) -> bool:
        """Whether a program ended well and printed the expected text, but for whitespace.

        Compared line by line: runs of whitespace within a line count as one blank, those at its ends not at all, and empty
        lines at the end of the text are left out. Upper and lower case and the digits of numbers must agree.
        """
        if self.status != "ok" or len(self.results) != 1 or not isinstance(self.results[0].value, str):
            return False
        return normalised(self.results[0].value) == normalised(expected)


def normalised(text: str) -> list[str]:
    """The lines of a text as `SandboxOutcome.printed` compares them."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


class Sandbox(Protocol):
    """Somewhere safe to run code."""

    def run(self, jobs: Sequence[SandboxJob]) -> list[SandboxOutcome]:
        """The outcome of each job, in order. Never raises for what the code does."""
        ...

    def close(self) -> None:
        """Ends every process of the sandbox."""
        ...

    def __enter__(self) -> "Sandbox": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
