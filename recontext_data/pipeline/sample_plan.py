"""What a build wants: every completion under its content key, and the requests for those that are missing.

A million completions are tables on disk, not a million objects: keys are hashed in one tight loop into columns, and a request
is made when it is pulled. Pure but for Polars and the file that the tables wait in.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.contexts.context import render
from recontext_data.contexts.placement import PLAIN, RenderOptions
from recontext_data.core.records import Messages, Request, SamplingParams, Task
from recontext_data.store.key_index import KeyIndex, no_rows
from recontext_data.store.partitioned_file import PartitionedTempFile
from recontext_data.store.task_file import some_of

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.pipeline.sample import Pool

CHUNK = 512
"""Completions in a part at least; a list of Python objects takes several times the memory of a table."""

PARTS = 256
"""Parts at most, about; what is looked up is sorted by them, and each costs the machinery for a table."""

HELD = 16
"""Parts that stay in memory, so that a build of a few thousand, or one model's of an evaluation, needs no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPart:
    """Tasks of one pool that stand together, and the rows that what is wanted of them takes."""

    number: int
    pool: int
    first_task: int
    first_row: int
    num_rows: int


class SamplePlan:
    """Every completion wanted, by pool, task and k. In memory are the first few parts and, once asked for, `index`.

    A key is the hash of the rendered messages, of `drawn` (the policy's identity and the sampling parameters), the seed and
    k; nothing in it depends on names, order or place. Tasks with the same prompt share its replies, as the same content.

    Iterating gives its parts, tables with candidate_id, task_id, generation_context, role, k, seed and reply_key.

    Raises:
        StoreError: the folder for temporary files is full.
    """

    def __init__(
        self, tasks: Sequence[Task], pools: "Sequence[Pool]", *, drawn: str, seed: int, how: RenderOptions = PLAIN
    ) -> None:
        self.counts = {pool.name: pool.n * len(tasks) for pool in pools if tasks}
        """Completions by generation context."""
        self.parts: list[PlanPart] = []
        self._pools = pools
        self._held: dict[int, pl.DataFrame] = {}
        self._spill = PartitionedTempFile()
        size = max(CHUNK, -(-len(self) // PARTS))
        for number, pool in enumerate(pools):
            step, rest = max(1, size // pool.n), iter(tasks)
            for start in range(0, len(tasks), step):
                draws = _PlannedDraws(pool.n, drawn=drawn, seed=seed)
                for task in islice(rest, step):
                    draws.add(task.task_id, render(task, pool.context, name=pool.name, how=how))
                self._add(draws.table(), pool=number, first_task=start)

    def _add(self, draws: "pl.DataFrame", *, pool: int, first_task: int) -> None:
        last = self.parts[-1] if self.parts else None
        first_row = last.first_row + last.num_rows if last else 0
        part = PlanPart(number=len(self.parts), pool=pool, first_task=first_task, first_row=first_row, num_rows=len(draws))
        self.parts.append(part)
        if part.number < HELD:
            self._held[part.number] = draws
        else:
            self._spill.add(part.number, draws)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> "Iterator[pl.DataFrame]":
        return map(self.rows, self.parts)

    def rows(self, part: PlanPart) -> "pl.DataFrame":
        """A part of the table."""
        return _rows(self.draws(part), self._pools[part.pool])

    def draws(self, part: PlanPart) -> "pl.DataFrame":
        """What of its rows cannot be told from the rest: task_id, seed, reply_key. This is what waits on disk."""
        draws = self._held.get(part.number)
        draws = self._spill.read(part.number) if draws is None else draws
        assert draws is not None, "every part was put somewhere"
        return draws

    @cached_property
    def index(self) -> KeyIndex:
        """The keys."""
        return KeyIndex(self.draws(part)["reply_key"] for part in self.parts)

    @property
    def repeated(self) -> "pl.DataFrame":
        """The rows with the same key, see `KeyIndex.repeated`."""
        # Of few keys Python tells in less memory than Polars takes for the question.
        if len(self) <= HELD * CHUNK and self._num_keys() == len(self):
            return no_rows()
        return self.index.repeated

    def _num_keys(self) -> int:
        return len({key for part in self.parts for key in self.draws(part)["reply_key"]})

    def table(self) -> "pl.DataFrame":
        """All of it, in memory."""
        import polars as pl

        parts: list[pl.DataFrame] = [pl.DataFrame(schema=_schema()), *self]
        return pl.concat(parts)


class _PlannedDraws:
    """What one pool wants of some tasks."""

    def __init__(self, n: int, *, drawn: str, seed: int) -> None:
        self._n = n
        self._seed, self._drawn = b'[%d,"' % seed, b'","%s",' % drawn.encode()
        self._ranks = [(b'",%d]' % k, b",%d]" % k) for k in range(n)]
        self._task_ids: list[str] = []
        self._seeds: list[int] = []
        self._keys: list[str] = []

    def add(self, task_id: str, messages: Messages) -> None:
        """All completions of one task.

        The hashes are `content_hash` of the messages, and of [seed, prompt, k] (as `derive_seed` takes it) and [prompt, drawn,
        draw, k], their JSON written by hand: a million completions go through here.
        """
        sha256 = hashlib.sha256
        prompt = sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest().encode()
        seed_stem, key_stem = self._seed + prompt, b'["' + prompt + self._drawn
        for seed_tail, key_tail in self._ranks:
            draw = int.from_bytes(sha256(seed_stem + seed_tail).digest()[:8], "big") >> 1
            self._seeds.append(draw)
            self._keys.append(sha256(b"%b%d%b" % (key_stem, draw, key_tail)).hexdigest())
        self._task_ids += [task_id] * self._n

    def table(self) -> "pl.DataFrame":
        import polars as pl

        columns = {"task_id": self._task_ids, "seed": self._seeds, "reply_key": self._keys}
        return pl.DataFrame(columns, schema={name: _schema()[name] for name in columns})


def _rows(draws: "pl.DataFrame", pool: "Pool") -> "pl.DataFrame":
    """The draws of a pool with the columns derived from them; an id is `content_hash` of [task_id, pool, k, key]."""
    import polars as pl

    count, sha256 = len(draws), hashlib.sha256
    middles = [b",%b,%d," % (orjson.dumps(pool.name), k) for k in range(pool.n)] * (count // pool.n)
    named = zip(draws["task_id"], middles, draws["reply_key"], strict=True)
    ids = [sha256(b'[%b%b"%b"]' % (orjson.dumps(task_id), middle, key.encode())).hexdigest() for task_id, middle, key in named]
    columns: dict[str, Any] = {
        "candidate_id": [name[:24] for name in ids],
        "task_id": draws["task_id"],
        "generation_context": [pool.name] * count,
        "role": [pool.role] * count,
        "k": list(range(pool.n)) * (count // pool.n),
        "seed": draws["seed"],
        "reply_key": draws["reply_key"],
    }
    return pl.DataFrame(columns, schema=_schema())


def _schema() -> "dict[str, type[pl.DataType]]":
    import polars as pl

    texts = ("candidate_id", "task_id", "generation_context", "role")
    return {**dict.fromkeys(texts, pl.String), "k": pl.Int64, "seed": pl.Int64, "reply_key": pl.String}


class MissingRequests:
    """What must be bought, one request per prompt with the ranks that are missing; each is made anew when it is pulled.

    A prompt that several tasks or pools have is asked for once, where the most completions of it are wanted.
    """

    def __init__(
        self,
        wanted: SamplePlan,
        there: "pl.Series",
        *,
        tasks: Sequence[Task],
        pools: "Sequence[Pool]",
        sampling: SamplingParams,
        how: RenderOptions = PLAIN,
    ) -> None:
        """
        Args:
            wanted: every completion wanted.
            there: for each of its rows whether the store has the reply.
        """
        self._wanted, self._tasks, self._pools, self._sampling, self._how = wanted, tasks, pools, sampling, how
        self._missing = ~there
        repeated = _elsewhere(wanted.repeated, wanted.parts, [pool.n for pool in pools])
        if len(repeated):
            self._missing = self._missing.scatter(repeated, values=False)
        self.num_completions = int(self._missing.sum())
        """Completions that are missing: those of all requests."""
        self._len = sum(_num_prompts(self._of(part), pools[part.pool].n) for part in wanted.parts)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Request]:
        for part in self._wanted.parts:
            missing = self._of(part)
            if not missing.any():
                continue
            pool = self._pools[part.pool]
            rows = missing.arg_true()
            draws = self._wanted.draws(part).select("seed", "reply_key").filter(missing).iter_rows()
            placed = ((row // pool.n, row % pool.n, *draw) for row, draw in zip(rows, draws, strict=True))
            tasks = enumerate(some_of(self._tasks, part.first_task, part.first_task + part.num_rows // pool.n))
            for place, some in groupby(placed, key=itemgetter(0)):
                _, ks, seeds, keys = zip(*some, strict=True)
                task = next(task for number, task in tasks if number == place)
                messages = render(task, pool.context, name=pool.name, how=self._how)
                yield Request(messages=messages, sampling=self._sampling, ks=ks, seeds=seeds, keys=keys, tag=pool.name)

    def _of(self, part: PlanPart) -> "pl.Series":
        return self._missing.slice(part.first_row, part.num_rows)


def _num_prompts(missing: "pl.Series", n: int) -> int:
    """Prompts of which something is missing; of each there are `n` rows."""
    return (missing.arg_true() // n).n_unique() if n > 1 else int(missing.sum())


def _elsewhere(repeated: "pl.DataFrame", parts: Sequence[PlanPart], ns: Sequence[int]) -> "pl.Series":
    """Of rows with the same key all but one: that of the pool that wants most of the prompt, and there the first.

    So the ranks of a prompt stay together, in one request.
    """
    import polars as pl

    if repeated.is_empty():
        return repeated["row"]
    starts = pl.Series([part.first_row for part in parts], dtype=pl.UInt32)
    n_of_part = pl.Series([ns[part.pool] for part in parts], dtype=pl.Int64)
    part_of_row = starts.search_sorted(repeated["row"], side="right") - 1
    rows = repeated.with_columns(n=n_of_part.gather(part_of_row)).sort("group", "n", "row", descending=[False, True, False])
    return rows.filter(~pl.col("group").is_first_distinct())["row"]
