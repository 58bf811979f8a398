"""Where each of many keys stands in a list that lies elsewhere: 20 bytes a key, however long its row is."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

DIGITS = 16
"""Hex digits in 64 bits."""

AT_ONCE = 4096
"""Keys of which the bits are taken at once."""


class KeyIndex:
    """The keys of a list that comes in parts, by their first 128 bits. Keys are SHA-256 in hex; other texts are not found.

    Keys that agree in 128 bits count as one: among a million there are two such with a probability of 1e-27.
    """

    def __init__(self, parts: "Iterable[pl.Series]") -> None:
        import polars as pl

        lengths = list[int]()
        frames = [_marks(keys) for keys in _gathered(parts, lengths)]
        self._ends = pl.Series("end", list(accumulate(lengths)), dtype=pl.UInt32)
        self._rows = pl.concat(frames).with_row_index("row").sort("head", "tail", maintain_order=True)

    def __len__(self) -> int:
        """Keys in the list."""
        return len(self._rows)

    @property
    def num_parts(self) -> int:
        """Parts in which the list came."""
        return len(self._ends)

    @property
    def repeated(self) -> "pl.DataFrame":
        """The rows whose key stands in the list more than once: `row`, and `group`, the same for the same key."""
        same = (self._rows["head"] == self._rows["head"].shift(1)) & (self._rows["tail"] == self._rows["tail"].shift(1))
        same = same.fill_null(value=False)  # the first
        if not same.any():
            return no_rows()
        is_one = same | same.shift(-1, fill_value=False)
        return self._rows.select("row", group=(~same).cum_sum()).filter(is_one)

    def places(self, keys: "pl.Series") -> "pl.DataFrame":
        """Where keys stand in the list: for each pair that is the same `at`, a number in `keys`, and `row`, one in the list."""
        import polars as pl

        asked = _marks(keys).with_row_index("at")
        pairs = asked.join(self._rows, on="head").filter(pl.col("tail") == pl.col("tail_right"))
        return pairs.select("at", "row")

    def parts(self, rows: "pl.Series") -> "pl.Series":
        """The numbers of the parts that rows are in."""
        return self._ends.search_sorted(rows, side="right")


def no_rows() -> "pl.DataFrame":
    """What `KeyIndex.repeated` is where every key stands once."""
    import polars as pl

    return pl.DataFrame(schema={"row": pl.UInt32, "group": pl.UInt32})


def _gathered(parts: "Iterable[pl.Series]", lengths: list[int]) -> "Iterator[pl.Series]":
    """The parts, several in one: a question to Polars costs more than its answer about a few. Notes the length of each."""
    import polars as pl

    waiting, count = [pl.Series("key", [], dtype=pl.String)], 0
    for keys in parts:
        lengths.append(len(keys))
        waiting.append(keys.cast(pl.String))
        count += len(keys)
        if count >= AT_ONCE:
            yield pl.concat(waiting)
            waiting, count = waiting[:1], 0
    yield pl.concat(waiting)


def _marks(keys: "pl.Series") -> "pl.DataFrame":
    import polars as pl

    digits = pl.col("key").str
    marks = {
        name: digits.slice(start, DIGITS).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
        for name, start in (("head", 0), ("tail", DIGITS))
    }
    return keys.cast(pl.String).to_frame("key").select(**marks)
