"""The command line: `recontext VERB key=value ...`, its errors and exit codes.

Exit codes: 0 done, 1 the job failed or a limit ended it, 2 the input or the set-up is wrong, 130 interrupted.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from recontext_data.core.errors import RecipeError, RecontextError, did_you_mean
from recontext_data.core.version import __version__
from recontext_data.reports import modes

# Pydantic looks for plugins by reading every installed package's metadata, a tenth of a second where there are many; one
# that watches validation has nothing to see in a command line. Set before pydantic is imported, and only by the verbs.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# Memory that Polars has freed goes back at once and not within ten seconds: a tenth of a large build's peak, and no slower
# (docs/LOG.md). Read when Polars is first imported; what it is called there is jemalloc's own name for it.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")

VERBS = {
    "build": "sample, judge, select, recontextualize, export: from a recipe to datasets",
    "preview": "show every prompt, every arm's rewriting, and what a build would cost; samples nothing",
    "train": "fine-tune the policy on each arm, for each seed, with TRL",
    "evaluate": "measure every trained model under every context",
    "iterate": "expert iteration: build, train and measure in rounds, each sampled from the models of the last",
    "sweep": "several values of some options: a run per combination, one after another, in one report",
    "calibrate": "measure a judge against labels that people gave",
    "publish": "take the datasets to a hub, a fine-tuning API, or files that trainers read",
    "replies": "what was sampled and is stored: count, check, find, prune",
    "view": "read, compare and label what was built, in a browser on this machine",
    "status": "what is here: runs with their rows, spend and failures, builds under way, stores",
    "power": "what an evaluation can see: from rates, tasks and seeds to the smallest visible effect",
}
HELP = ("-h", "--help", "help")
VERSION = ("-V", "--version", "version")


def guarded(job: Callable[[Sequence[str]], int], words: Sequence[str] | None) -> int:
    """Runs a verb in the mode that `screen=` says; a known error becomes one line on stderr and its exit code.

    Words of None are those of the process.
    """
    try:
        rest, mode = modes.take_out(sys.argv[1:] if words is None else words)
    except RecipeError as error:
        return fail(error)
    try:
        with modes.speaking(mode):
            code = _run(job, rest)
            sys.stdout.flush()  # here, where a reader that left can be told from an error
        return code
    except BrokenPipeError:
        # The reader (`| head`) left. Python would try to write the rest once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(job: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    try:
        return job(words)
    except RecontextError as error:
        return fail(error)
    except KeyboardInterrupt:
        _say("interrupted", "every reply that was counted is kept; the same command continues", exit_code=130)
        return 130


def fail(error: RecontextError) -> int:
    """One line on stderr, whatever the message holds."""
    _say("error", str(error), error=type(error).__name__, exit_code=error.exit_code)
    return error.exit_code


def _say(event: str, text: str, **facts: Any) -> None:
    from recontext_data.reports.text import visible

    line = visible(" ".join(text.split()))
    if modes.mode() == "json":
        modes.emit(sys.stderr, {"event": event, "text": line, **facts})
        return
    head = f"\x1b[31m{event}:\x1b[0m" if modes.has_colour(sys.stderr) else f"{event}:"
    print(head, line, file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """The console script: `recontext VERB ...`."""
    given = list(sys.argv[1:] if words is None else words)
    if not given or given[0] in HELP:
        print("usage: recontext VERB [key=value ...]\n")
        print("\n".join(f"  {verb:9} {meaning}" for verb, meaning in VERBS.items()))
        print("\n`recontext VERB --help` shows every option; `recontext build` alone lists the recipes;")
        print("`recontext --version` prints the version.")
        return 0
    verb, *rest = given
    if verb in VERSION:
        print(f"recontext_data {__version__}")
        return 0
    if verb not in VERBS:
        return guarded(lambda words: fail(RecipeError(f"{verb!r} is not a verb; {did_you_mean(verb, VERBS)}")), rest)
    module: Any = __import__(f"recontext_data.{verb}", fromlist=["main"])
    return int(module.main(rest))
