"""Tasks that two sets share: the same text, or a run of 13 words. Vectorised: a hundred thousand tasks take seconds.

Texts are compared as their words in lower case; 13 words is the customary length at which a test counts as seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from recontext_data.records import Task

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


def overlap(first: Sequence[Task], second: Sequence[Task]) -> Overlap:
    """The tasks of `second` whose text, or a run of 13 of whose words, is in `first`."""
    import numpy as np

    if not first or not second:
        return Overlap([], [])
    ids = [task.task_id for task in second]
    parts = [_hashes(chunk) for chunk in _chunks(second)]
    whole = np.concatenate([part[0] for part in parts])
    runs = np.unique(np.concatenate([part[1] for part in parts]))
    bits = max(1, (ROOM * len(runs)).bit_length())
    table = np.zeros(1 << bits, dtype=bool)  # a first look that is cheap: most runs of `first` are not in `second`
    table[runs >> np.uint64(64 - bits)] = True
    seen_texts, seen_runs = set[int](), [np.empty(0, dtype=np.uint64)]
    for chunk in _chunks(first):
        texts, found, _ = _hashes(chunk)
        seen_texts.update(np.intersect1d(texts, whole).tolist())
        likely = found[table[found >> np.uint64(64 - bits)]]
        seen_runs.append(np.intersect1d(likely, runs))
    shared = np.unique(np.concatenate(seen_runs))
    owners = np.concatenate([part[2] + CHUNK * i for i, part in enumerate(parts)])
    all_runs = np.concatenate([part[1] for part in parts])
    near = set(np.unique(owners[np.isin(all_runs, shared)]).tolist())
    equal = [i for i, text in enumerate(whole.tolist()) if text in seen_texts]
    return Overlap([ids[i] for i in equal], [ids[i] for i in sorted(near - set(equal))])


def task_texts(tasks: Iterable[Task]) -> "pl.Series":
    """Each task's turns as one text of lower-case words."""
    import polars as pl

    texts = pl.Series(["\n".join(turn["content"] for turn in task.messages) for task in tasks], dtype=pl.String)
    return texts.str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars()


def _chunks(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    rest = iter(tasks)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


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
