"""Prints what is here: `python -m recontext_data.status [output=FOLDER] [screen=json]`.

Runs with their tasks, rows, models, spend and failures, the newest first; builds that are under way or were left unfinished;
and the stores of replies. Reads only; nothing is written, sampled or waited for.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import print_help, read_options, wants_help
from recontext_data.config.verb_options import StatusOptions

OPTIONS = StatusOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        return print_help(OPTIONS, usage="[output=FOLDER]")
    options, _ = read_options(OPTIONS, words)
    from recontext_data.reports.status import show_status

    show_status(options.output, recipe=options.recipe)
    return 0


if __name__ == "__main__":
    sys.exit(main())
