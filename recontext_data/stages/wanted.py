"""What a build wants: every completion under its content key, and the requests for those that are missing.

A million completions are a table, not a million objects: keys are hashed in one tight loop into columns, and a request is
made when it is pulled. Pure but for Polars.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.contexts import render
from recontext_data.placing import PLAIN, How
from recontext_data.records import Request, Sampling, Task, content_hash

if TYPE_CHECKING:
    import polars as pl

    from recontext_data.stages.sample import Pool

CHUNK = 1024
"""Completions that are listed at once; a list of Python objects takes several times the memory of a table."""


def wanted(tasks: Sequence[Task], pools: "Sequence[Pool]", *, drawn: str, seed: int, how: How = PLAIN) -> "pl.DataFrame":
    """Every completion wanted, by pool, task and k.

    A key is the hash of the rendered messages, of `drawn` (the policy's identity and the sampling parameters), the seed and
    k; nothing in it depends on names, order or place.

    Returns:
        candidate_id, task_id, generation_context, role, k, seed, reply_key, and `place`: the number of the first (pool,
        task) with this prompt, pools counted before tasks. Tasks with the same prompt share its replies, as the same
        content.
    """
    import polars as pl

    places: dict[bytes, int] = {}
    parts = [_empty()]
    for number, pool in enumerate(pools):
        step = max(1, CHUNK // pool.n)
        for start in range(0, len(tasks), step):
            rows = _Columns(pool)
            for index, task in enumerate(tasks[start : start + step], number * len(tasks) + start):
                prompt = content_hash(render(task, pool.context, name=pool.name, how=how))
                rows.add(task.task_id, prompt, places.setdefault(bytes.fromhex(prompt), index), drawn=drawn, seed=seed)
            parts.append(rows.table())
    return pl.concat(parts)


class _Columns:
    """What one pool wants of some tasks."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._name = orjson.dumps(pool.name)
        self._task_ids: list[str] = []
        self._places: list[int] = []
        self._ids: list[str] = []
        self._seeds: list[int] = []
        self._keys: list[str] = []

    def add(self, task_id: str, prompt: str, place: int, *, drawn: str, seed: int) -> None:
        """All completions of one task.

        The three hashes are `content_hash` of [seed, prompt, k] (as `derive_seed` takes it), [prompt, drawn, draw, k] and
        [task_id, pool, k, key], their JSON written by hand: this is the loop that a million completions go through.
        """
        sha256, name = hashlib.sha256, b"[%s,%s," % (orjson.dumps(task_id), self._name)
        seed_stem, key_stem = b'[%d,"%s",' % (seed, prompt.encode()), b'["%s","%s",' % (prompt.encode(), drawn.encode())
        for k in range(self._pool.n):
            draw = int.from_bytes(sha256(seed_stem + b"%d]" % k).digest()[:8], "big") >> 1
            key = sha256(key_stem + b"%d,%d]" % (draw, k)).hexdigest()
            self._seeds.append(draw)
            self._keys.append(key)
            self._ids.append(sha256(name + b'%d,"%s"]' % (k, key.encode())).hexdigest()[:24])
        self._task_ids += [task_id] * self._pool.n
        self._places += [place] * self._pool.n

    def table(self) -> "pl.DataFrame":
        import polars as pl

        count = len(self._keys)
        columns: dict[str, Any] = {
            "candidate_id": self._ids,
            "task_id": self._task_ids,
            "generation_context": [self._pool.name] * count,
            "role": [self._pool.role] * count,
            "k": list(range(self._pool.n)) * (count // self._pool.n),
            "seed": self._seeds,
            "reply_key": self._keys,
            "place": self._places,
        }
        return pl.DataFrame(columns, schema=_schema())


def _schema() -> "dict[str, type[pl.DataType]]":
    import polars as pl

    texts = ("candidate_id", "task_id", "generation_context", "role")
    return {**dict.fromkeys(texts, pl.String), "k": pl.Int64, "seed": pl.Int64, "reply_key": pl.String, "place": pl.UInt32}


def _empty() -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(schema=_schema())


class Requests:
    """What must be bought, one request per prompt with the ranks that are missing; each is made anew when it is pulled."""

    def __init__(
        self,
        missing: "pl.DataFrame",
        *,
        tasks: Sequence[Task],
        pools: "Sequence[Pool]",
        sampling: Sampling,
        how: How = PLAIN,
    ) -> None:
        rows = missing.select("place", "k", "seed", "reply_key")
        if not _ascend(rows):  # some tasks have the same prompt
            rows = rows.unique("reply_key", keep="first", maintain_order=True).sort("place", maintain_order=True)
        self._rows = rows
        self._tasks, self._pools, self._sampling, self._how = tasks, pools, sampling, how
        self._len = sum(1 for _ in groupby(rows["place"]))

    @property
    def num_completions(self) -> int:
        """Completions that are missing: those of all requests."""
        return len(self._rows)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Request]:
        for place, rows in groupby(self._rows.iter_rows(), key=itemgetter(0)):
            _, ks, seeds, keys = zip(*rows, strict=True)
            pool = self._pools[place // len(self._tasks)]
            messages = render(self._tasks[place % len(self._tasks)], pool.context, name=pool.name, how=self._how)
            yield Request(messages=messages, sampling=self._sampling, ks=ks, seeds=seeds, keys=keys, tag=pool.name)


def _ascend(rows: "pl.DataFrame") -> bool:
    """Whether place and k only grow, so that no request and no key is there twice. Polars' own checks take more memory."""
    pairs = zip(rows["place"], rows["k"], strict=True)
    return all(before < after for before, after in pairwise(pairs))
