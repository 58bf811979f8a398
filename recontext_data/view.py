"""Opens the data in a browser: `python -m recontext_data.view [run=NAME] [key=value ...]`.

    recontext view                       # every run below the working directory
    recontext view run=code_mc           # the newest run of a recipe; or recipe/fingerprint, or the path of a run's folder
    recontext view run=code_mc reviewer=alice port=0

Reading, comparing, searching, labelling; docs/viewing.md says how. The server listens on 127.0.0.1 alone, and the link that
is printed holds a token without which it shows nothing. Needs the extra `view`.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import print_help, read_options, wants_help
from recontext_data.config.verb_options import ViewOptions

OPTIONS = ViewOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        return print_help(OPTIONS, usage="[run=NAME]")
    options, _ = read_options(OPTIONS, words)
    from recontext_data.viewer.serve import serve

    serve(options.output, options.run, port=options.port, reviewer=options.reviewer, opens=options.open)
    return 0


if __name__ == "__main__":
    sys.exit(main())
