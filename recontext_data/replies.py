"""Looks into the store of replies: `python -m recontext_data.replies [count | check | find | prune] [key=value ...]`.

    replies                                    what is there, by model
    replies check                              reads every file and sets aside what is damaged; exit code 1 if any was
    replies find recipe=code_mc                the replies that a recipe needs, which are stored, and why the others are not
    replies find recipe=code_mc task=ID k=0    one reply: its key, what goes into it, and whether it is there
    replies prune before=2026-01-31 model=NAME what would be removed; dry_run=false removes it

`output=` says where replies/ is, as for a build. Times are UTC.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import HELP, guarded
from recontext_data.config.options import VerbOptions, print_options, read_options
from recontext_data.config.verb_options import CheckOptions, CountOptions, FindOptions, PruneOptions
from recontext_data.core.errors import RecipeError, did_you_mean

OPTIONS: tuple[type[VerbOptions], ...] = (CountOptions, CheckOptions, FindOptions, PruneOptions)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    words, asks = [word for word in words if word not in HELP], any(word in HELP for word in words)
    action, rest = (words[0], words[1:]) if words and words[0].isalpha() else ("count", words)
    known = {kind.verb.partition(" ")[2] or "count": kind for kind in OPTIONS}
    if action not in known:
        raise RecipeError(f"{action!r} is not an action of replies; {did_you_mean(action, known)}")
    if asks:
        print(__doc__)
        print_options(known[action])
        return 0
    if action != "find" and (recipe := next((word for word in rest if word.startswith("recipe=")), None)):
        raise RecipeError(f"{recipe}: {action} takes no recipe; write replies find {recipe}")
    if action == "find":
        found, overrides = read_options(FindOptions, rest)
        from recontext_data.config.loading import load
        from recontext_data.pipeline.find_replies import find_replies

        find_replies(load(found.recipe, overrides), output=found.output, task=found.task, context=found.context, k=found.k)
        return 0
    options, _ = read_options(PruneOptions if action == "prune" else CountOptions, rest)
    from recontext_data.reports.replies import check_replies, prune_replies, show_counts

    if action == "check":
        return 1 if check_replies(options.output) else 0
    if isinstance(options, PruneOptions):
        prune_replies(options.output, before=options.before, model=options.model, dry_run=options.dry_run)
    else:
        show_counts(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
