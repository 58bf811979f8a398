"""Tasks that two sets share: the same text, or a run of 13 words. Vectorised: a hundred thousand tasks take seconds.

Texts are compared as their words in lower case; 13 words is the customary length at which a test counts as seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from recontext_data.core.records import Task

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

WORDS = 13
CHUNK = 1024
"""Tasks whose words are in memory at once: about 10 KB each."""
ROOM = 16
"""Places of the first look for each run of words that is looked for."""


@dataclass(frozen=True)
class Overlap:
    """Ids of the tasks of the second set that are in the first."""

    equal: list[str]
    near: list[str]
    """Those that share a run of words with one, the equal ones left out."""


def overlap(first: Iterable[Task], second: Iterable[Task]) -> Overlap:
    """The tasks of `second` whose text, or a run of 13 of whose words, is in `first`.

    Both are gone through in chunks, `second` twice; what is held is a hash per task and per run of words of `second`.
    """
    import numpy as np

    looked = [(texts, np.unique(runs)) for texts, runs, _, _ in _chunks(second)]
    if not looked:
        return Overlap([], [])
    whole, runs = (np.unique(np.concatenate(parts)) for parts in zip(*looked, strict=True))
    del looked
    bits = max(1, (ROOM * len(runs)).bit_length())
    table = np.zeros(1 << bits, dtype=bool)  # a first look that is cheap: most runs of `first` are not in `second`
    table[runs >> np.uint64(64 - bits)] = True
    is_seen, is_shared = np.zeros(len(whole), dtype=bool), np.zeros(len(runs), dtype=bool)
    for texts, found, _, _ in _chunks(first):
        _mark(is_seen, whole, texts)
        _mark(is_shared, runs, found[table[found >> np.uint64(64 - bits)]])
    whole, runs = whole[is_seen], runs[is_shared]
    equal, near = dict[str, None](), dict[str, None]()
    for texts, found, owners, ids in _chunks(second) if len(whole) or len(runs) else ():
        equal |= dict.fromkeys(ids[i] for i in np.flatnonzero(is_in(whole, texts)).tolist())
        near |= dict.fromkeys(ids[i] for i in np.unique(owners[is_in(runs, found)]).tolist())
    return Overlap(list(equal), [task_id for task_id in near if task_id not in equal])


def _mark(marks: "NDArray[np.bool_]", known: "NDArray[np.uint64]", values: "NDArray[np.uint64]") -> None:
    """Marks those of `known`, which is sorted, that are among the values."""
    places = known.searchsorted(values)
    places[places == len(known)] = 0
    marks[places[known[places] == values] if len(known) else ()] = True


def is_in(known: "NDArray[np.uint64]", values: "NDArray[np.uint64]") -> "NDArray[np.bool_]":
    """Which of the values are in `known`, which is sorted."""
    import numpy as np

    if not len(known):
        return np.zeros(len(values), dtype=bool)
    places = known.searchsorted(values)
    places[places == len(known)] = 0
    return np.asarray(known[places] == values)


def task_texts(tasks: Iterable[Task]) -> "pl.Series":
    """Each task's turns as one text of lower-case words."""
    import polars as pl

    texts = pl.Series(["\n".join(turn["content"] for turn in task.messages) for task in tasks], dtype=pl.String)
    return texts.str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars()


def _chunks(tasks: Iterable[Task]) -> "Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[Any], list[str]]]":
    """By `CHUNK` tasks what `_hashes` makes of them, and their ids."""
    rest = iter(tasks)
    while chunk := list(islice(rest, CHUNK)):
        yield *_hashes(chunk), [task.task_id for task in chunk]


def _hashes(tasks: Sequence[Task]) -> "tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[Any]]":
    """A hash per text, a hash per run of words, and the number of the task that each run is from."""
    import numpy as np

    texts = task_texts(tasks)
    lists = texts.str.split(" ")
    word_W = lists.explode().hash(seed=13).to_numpy()
    owner_W = np.repeat(np.arange(len(texts)), lists.list.len().to_numpy())
    count = max(0, len(word_W) - WORDS + 1)
    run_R = np.zeros(count, dtype=np.uint64)
    for place in range(WORDS):
        run_R = run_R * np.uint64(0x9E3779B97F4A7C15) + word_W[place : place + count]
    inside = owner_W[:count] == owner_W[WORDS - 1 :] if count else np.zeros(0, dtype=bool)
    return texts.hash(seed=13).to_numpy(), run_R[inside], owner_W[:count][inside]
