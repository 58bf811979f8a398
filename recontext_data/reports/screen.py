"""The terminal: progress, notes, errors, the closing table and the dry run. Fits 80 columns; plain in a pipe.

    screen = Screen()
    with screen.stage("sample default", 1024, unit="answers") as tracker:
        tracker.advance(usd=0.001)
    screen.closing(manifest, folder=folder)

Progress, notes and errors go to stderr and results to stdout, so that a result can be piped on. What a model or a user
wrote is shown as text: never as rich's markup, and never as the terminal's own commands. How it speaks is the command's
mode (`reports.modes`); every verb that shows something shows it through here.
"""

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from recontext_data.reports import modes
from recontext_data.reports.numbers import Manifest
from recontext_data.reports.progress import StageTracker
from recontext_data.reports.text import one_line, visible

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

_PIPE_COLUMNS = 80
_OF_A_BUILD = (
    *("recipe_name", "fingerprint", "tasks", "rates", "arms", "gates", "ledger"),
    *("requests", "tokens", "cost_usd", "judging", "timings_seconds", "caveats"),
)
"""What of a manifest json mode says of a build; the rest is in manifest.json."""
_REDRAWS_PER_SECOND = 8


class Screen:
    """What the verbs show. Give it streams to send it somewhere else."""

    def __init__(self, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._consoles: dict[int, Console] = {}
        self._active: list[StageTracker] = []
        self._live: Live | None = None
        self._lock = threading.RLock()

    @contextmanager
    def stage(self, name: str, total: int | None, *, unit: str) -> Iterator[StageTracker]:
        """A tracker for one piece of work; stages may overlap. `total` None: not known beforehand."""
        terminal = modes.is_live(self._err)
        tick = None if terminal or modes.mode() == "quiet" else self._plain_tick
        tracker = StageTracker(one_line(name, limit=40), total, unit=unit, on_tick=tick)
        self._start(tracker, terminal=terminal)
        finished = False
        try:
            yield tracker
            finished = True
        finally:
            self._stop(tracker)
            style = "" if finished else "yellow"
            self._say("stage", tracker.final(finished=finished), style=style, finished=finished, **tracker.facts())

    def note(self, text: str) -> None:
        """Something to know."""
        self._say("note", text)

    def warn(self, text: str) -> None:
        """Something to look at."""
        self._say("warning", text, head="warning: ", style="yellow")

    def error(self, exception: BaseException) -> None:
        """`error: <one line>`. An exception that is not ours also says its type, for the words alone may be no sentence."""
        from recontext_data.core.errors import RecontextError

        words = one_line(str(exception), limit=2000)
        if not isinstance(exception, RecontextError):
            words = f"{type(exception).__name__}: {words}" if words else type(exception).__name__
        self._say("error", words, head="error: ", style="red", error=type(exception).__name__)

    def result(self, name: str, facts: Mapping[str, Any]) -> bool:
        """In json: writes a result as one object and says True. Elsewhere False: the caller shows it to people."""
        if modes.mode() != "json":
            return False
        modes.emit(self._out, {"result": name, **facts})
        return True

    def closing(self, manifest: Manifest, *, folder: Path) -> None:
        """What was built, where it is, and what to type next."""
        from recontext_data.reports import numbers, tables

        facts = {key: manifest[key] for key in _OF_A_BUILD if key in manifest}
        if self.result("build", {"folder": folder, **facts, "problems": numbers.problems(manifest)}):
            return
        console = self._console(self._out)
        shown = [tables.rates_table(manifest, safe=self._safe), tables.arms_table(manifest, safe=self._safe)]
        for table in [*shown, *tables.other_tables(manifest, safe=self._safe)]:
            console.print()
            console.print(table)
        console.print()
        for line in tables.closing_lines(manifest, folder=folder):
            console.print(self._safe(line), soft_wrap=True)

    def results(self, results: Mapping[str, Any], *, folder: Path) -> None:
        """What an evaluation found: rates of every arm under every context, differences, and where the report is."""
        from recontext_data.reports import results_table

        if self.result("evaluation", {"folder": folder, **results}):
            return
        console = self._console(self._out)
        for table in results_table.tables(results, safe=self._safe):
            console.print()
            console.print(table)
        console.print()
        for line in results_table.lines(results, folder=folder):
            console.print(self._safe(line), soft_wrap=True)

    def calibration(self, facts: Mapping[str, Any], *, path: Path) -> None:
        """What a calibration found of a judge, and the file that it is in."""
        from recontext_data.reports import calibration

        if self.result("calibration", {"path": path, **facts}):
            return
        console = self._console(self._out)
        for table in calibration.tables(facts, safe=self._safe):
            console.print()
            console.print(table)
        console.print()
        for line in calibration.lines(facts, path=path):
            console.print(self._safe(line), soft_wrap=True)

    def dry_run(self, plan: Mapping[str, Any]) -> None:
        """What a build would do, before it does it.

        `plan["pools"]` is a list of {context, tasks, n, requests, found, to_sample, prompt_tokens, cost_usd}, the last two
        None where not known; `plan["budget_usd"]` may be there.
        """
        from recontext_data.reports import tables

        if self.result("plan", plan):
            return
        console = self._console(self._out)
        console.print(tables.plan_table(plan, safe=self._safe))
        console.print()
        for line in tables.plan_lines(plan):
            console.print(self._safe(line), soft_wrap=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of results; the first column is a name and gives way."""
        from recontext_data.reports import tables

        named = [dict(zip(headers, row, strict=True)) for row in rows]
        if not self.result("table", {"rows": named}):
            self._console(self._out).print(tables.table(headers, rows, safe=self._safe, name_cells=44))

    def line(self, text: str) -> None:
        """One line of results."""
        if not self.result("text", {"text": text}):
            self._console(self._out).print(self._safe(text), soft_wrap=True)

    @property
    def is_coloured(self) -> bool:
        """Whether results can be told apart by colour."""
        return self._console(self._out).color_system is not None

    def print(self, text: "Text") -> None:
        """A result in rich's own text, whose characters the caller has made visible."""
        if not self.result("text", {"text": text.plain}):
            self._console(self._out).print(text, soft_wrap=True)

    def show(self, text: "Text") -> None:
        """A note in rich's own text, whose characters the caller has made visible."""
        if modes.mode() == "json":
            self._say("note", text.plain)
        elif modes.mode() != "quiet":
            self._console(self._err).print(text, soft_wrap=True)

    def _start(self, tracker: StageTracker, *, terminal: bool) -> None:
        with self._lock:
            self._active.append(tracker)
            if terminal and self._live is None:
                from rich.live import Live

                self._live = Live(
                    console=self._console(self._err),
                    get_renderable=self._lines,
                    refresh_per_second=_REDRAWS_PER_SECOND,
                    transient=True,
                )
                self._live.start()

    def _stop(self, tracker: StageTracker) -> None:
        with self._lock:
            self._active.remove(tracker)
            if self._live is not None and not self._active:
                self._live.stop()
                self._live = None

    def _lines(self) -> "Group":
        from rich.console import Group

        width = self._console(self._err).width
        return Group(*[tracker.live(width) for tracker in list(self._active)])

    def _plain_tick(self, tracker: StageTracker) -> None:
        self._say("progress", tracker.plain(), **tracker.facts())

    def _say(self, event: str, text: str, *, head: str = "", style: str = "", **facts: Any) -> None:
        if modes.mode() == "json":
            modes.emit(self._err, {"event": event, "text": text, **facts})
        elif modes.mode() != "quiet" or head:  # a head is that of a warning or an error
            console = self._console(self._err)
            console.print(self._safe(f"{head}{text}"), style=style or None, soft_wrap=True)
            self._err.flush()

    def _safe(self, text: str) -> str:
        """Text that both streams can take and the terminal will not obey. The consoles read no markup in it."""
        text = visible(text)
        for stream in (self._out, self._err):
            encoding = getattr(stream, "encoding", None) or "utf-8"  # None for io.StringIO
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        return text

    def _console(self, stream: TextIO) -> "Console":
        console = self._consoles.get(id(stream))
        if console is None:
            from rich.console import Console  # 0.07 s

            live = modes.is_live(stream)
            console = Console(
                file=stream,
                force_terminal=live,
                width=None if live or stream.isatty() else _PIPE_COLUMNS,
                color_system=_colours() if modes.has_colour(stream) else None,
                markup=False,
                emoji=False,
                highlight=False,
                legacy_windows=False,
                force_jupyter=False,  # else rich ignores the stream and makes an HTML block of every line
            )
            self._consoles[id(stream)] = console
        return console


def _colours() -> 'Literal["auto", "standard"]':
    """What the terminal can; where `screen=rich` speaks to none, the eight that all can."""
    return "auto" if os.environ.get("TERM", "dumb") != "dumb" else "standard"
