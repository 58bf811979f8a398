"""A fingerprint of rows: the same for the same values in the same order, however they are stored.

It is fed batch by batch and hashes each column apart, so it needs no more memory than a batch. How rows are cut into
batches, files or row groups, whether text has 32- or 64-bit offsets, and the order of the columns do not change it; a
value, a null in place of an empty text, or two rows that change places do.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import DataError
from recontext_data.core.records import content_hash

if TYPE_CHECKING:
    import pyarrow as pa


class Fingerprint:
    """What was fed so far."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._hashes: dict[str, Any] = {}

    def update(self, rows: "pa.RecordBatch | pa.Table") -> None:
        """Adds rows.

        Raises:
            DataError: a column of a type that no table of ours has.
        """
        import pyarrow as pa

        for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                self._feed(name, column)
            self.num_rows += batch.num_rows

    def hexdigest(self) -> str:
        """Hex SHA-256 over the number of rows and every column's name and hash."""
        columns = {name: value.hexdigest() for name, value in self._hashes.items()}
        return content_hash({"rows": self.num_rows, "columns": columns})

    def _feed(self, name: str, values: "pa.Array") -> None:
        """Nulls apart from values, lengths apart from what they are the lengths of: each a stream that batches do not cut."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._add(f"{name}?", pc.is_valid(values).cast(pa.uint8()))
        kind = values.type
        if pa.types.is_struct(kind):
            for field, child in zip(kind, values.flatten(), strict=True):
                self._feed(f"{name}.{field.name}", child)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._add(f"{name}#", pc.fill_null(pc.list_value_length(values).cast(pa.int64()), 0))
            self._feed(f"{name}[]", values.flatten())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = pc.fill_null(values, "")
            self._add(f"{name}#", pc.binary_length(texts).cast(pa.int64()))
            self._stream(f"{name}=text").update(_bytes_of(texts))
        else:
            self._add(f"{name}={_family(kind, name)}", _numbers(values, kind))

    def _add(self, name: str, numbers: "pa.Array") -> None:
        self._stream(name).update(numbers.to_numpy(zero_copy_only=False).tobytes())

    def _stream(self, name: str) -> Any:
        return self._hashes.setdefault(name, hashlib.sha256())


def _family(kind: "pa.DataType", name: str) -> str:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind):
        return "float"
    raise DataError(f"column {name}: is of type {kind}, which has no fingerprint; the columns of a run are in tables.py")


def _numbers(values: "pa.Array", kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = {"bool": pa.uint8(), "int": pa.int64(), "float": pa.float64()}[_family(kind, "")]
    return pc.fill_null(values.cast(wide), 0)


def _bytes_of(texts: "pa.Array") -> memoryview:
    """The UTF-8 of a text column without nulls, joined; a slice of its buffer."""
    import numpy as np
    import pyarrow as pa

    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return memoryview(b"")
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(offsets, dtype=width)
    return memoryview(data)[int(ends[texts.offset]) : int(ends[texts.offset + len(texts)])]
