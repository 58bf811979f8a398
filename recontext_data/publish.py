"""Takes a run's datasets to where they are trained on: `python -m recontext_data.publish to=TARGET run=RUN [key=value ...]`.

    recontext publish to=file run=code_mc format=openai                          # a file for every arm and split
    recontext publish to=openai run=code_mc model=gpt-4.1-mini seeds=0,1 dry_run=true
    recontext publish to=hub run=code_mc repo=me/recontext-code-mc

`run` is the folder of a run, or the name of a recipe, whose latest run is meant. `recontext publish to=TARGET --help` shows
every option of a target.
"""

import sys
from collections.abc import Sequence

from recontext_data.cli import HELP, guarded
from recontext_data.config.options import by_key, fields_of, help_lines, model_of, print_options
from recontext_data.config.verb_options import PublishOptions

OPTIONS = PublishOptions


def main(words: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit code."""
    return guarded(_main, words)


def _main(words: Sequence[str]) -> int:
    given = by_key([word for word in words if word not in HELP], OPTIONS)
    own = {key: text for key, text in given.items() if key in fields_of(OPTIONS)}
    asks = not words or any(word in HELP for word in words)
    options = model_of(OPTIONS, {"to": "file", **own} if asks else own, example="to=hub | to=openai | to=file")
    if asks:
        return _help(own.get("to"))
    from recontext_data.publishing.targets import publish_run

    rest = {key: text for key, text in given.items() if key not in own}
    return publish_run(options.to, options.run, rest, output=options.output, beside=list(fields_of(OPTIONS)))


def _help(target: str | None) -> int:
    from recontext_data.publishing.targets import TARGETS, target_of

    print(f"usage: recontext publish to={target or 'TARGET'} run=RUN [key=value ...]\n")
    print_options(OPTIONS)
    for key, (type_, meaning) in (help_lines(target_of(target).OPTIONS) if target else {}).items():
        print(f"{key}: {type_}\n    {meaning}")
    if target is None:
        print("\ntargets, each with more options (recontext publish to=TARGET --help):")
        print("\n".join(f"  {name:8} {meaning}" for name, (_, meaning) in TARGETS.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
