"""The answers to a multiple-choice task whose probabilities can be added up: every short way of naming an option.

A model that reasons freely has endlessly many ways to name an option, and a list covers those that it uses or it does not; the
probability that the list has together says which. The forms are those that `INSTRUCTION` asks for:

- the line `Answer: (A)` alone, and after each of the environment's own sentences;
- after a quote: `Code: <start of the line in which the options part> ...`, which is how the embedded policy answers. Every
  length of the start is there, of either option and with either letter, since a policy may quote one and name the other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, zip_longest

from recontext_data.core.errors import DataError
from recontext_data.core.records import Task

MOST_PIECES = 6
"""Of the longest quote: words, brackets and signs."""

_OPTIONS = re.compile(r"\nOption A:\n(.*?)\n\nOption B:\n(.*?)\n\n(?!.*\nOption B:\n)", re.DOTALL)
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")


def answers(task: Task, texts: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Label -> the completions that deserve it; `texts` has one for each label with the letter in place.

    Raises:
        DataError: the task's text does not show two options.
    """
    hack = str(task.payload["hack_option"])
    letters = {"hack": hack, "general": "B" if hack == "A" else "A"}
    heads = ["", *dict.fromkeys(text.rpartition("Answer:")[0] for text in texts.values() if "Answer:" in text), *_quotes(task)]
    return {label: [f"{head}Answer: ({letter})" for head in dict.fromkeys(heads)] for label, letter in letters.items()}


def _quotes(task: Task) -> Iterator[str]:
    found = _OPTIONS.search(f"\n{task.messages[-1]['content']}")
    if found is None:
        raise DataError(f"task {task.task_id!r}: its text shows no options A and B, so its answers cannot be listed")
    bodies = [[line.strip() for line in option.splitlines() if line.strip()] for option in found.groups()]
    parted = next(((first, second) for first, second in zip_longest(*bodies, fillvalue="") if first != second), ("", ""))
    for line in parted:
        for start in accumulate(_PIECE.findall(line)[:MOST_PIECES]):
            yield f"Code: {start} ...\n"
