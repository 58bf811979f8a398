"""Shows every prompt before anything is paid for: `python -m recontext_data.preview recipe=code_mc [key=value ...]`.

    recontext preview recipe=code_mc                    # on the terminal, and runs/code_mc/preview.html
    recontext preview recipe=mine.yaml examples=5       # five tasks in place of two
    recontext preview recipe=mine.yaml dry_run=true     # the terminal alone: nothing is written

Each context is rendered on a few tasks, each arm is shown as the difference between its generation and its training prompt,
and then what a build would ask for and cost. Nothing is sampled and no key is needed.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import guarded
from recontext_data.config.options import read_options, wants_help
from recontext_data.config.verb_options import PreviewOptions

OPTIONS = PreviewOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    if wants_help(words):
        from recontext_data.config.help import verb_help

        return verb_help(OPTIONS, words, section="rendering")
    options, overrides = read_options(OPTIONS, words)
    from recontext_data.config.loading import load
    from recontext_data.pipeline.preview import preview_prompts

    loaded = load(options.recipe, overrides)
    preview_prompts(loaded, output=options.output, examples=options.examples, dry_run=options.dry_run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
