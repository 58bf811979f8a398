"""Writes a `datasets.DatasetDict` folder batch by batch, without holding it in memory and without importing datasets.

`Dataset.save_to_disk` wants the whole table first and stamps a random fingerprint. The format is an Arrow stream plus two
small JSON files per split; tests read it back with `datasets.load_from_disk`, which is what decides whether this is right.
"""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

_DATA = "data-00000-of-00001.arrow"


class SplitWriter:
    """One split of a dataset: an Arrow stream that grows by batches."""

    def __init__(self, folder: Path, *, schema: "pa.Schema") -> None:
        import pyarrow as pa

        folder.mkdir(parents=True)
        self.folder = folder
        self.num_rows = 0
        self._schema = schema
        self._sink = pa.OSFile(str(folder / _DATA), "wb")
        self._stream = pa.ipc.new_stream(self._sink, schema.with_metadata(_features_metadata(schema)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()
        self._sink.close()
        if error is None:
            self._describe()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows; their keys must be the schema's names."""
        import pyarrow as pa

        self.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def write_table(self, table: "pa.Table") -> None:
        """Appends a table of the schema."""
        if table.num_rows:
            self._stream.write_table(table)
            self.num_rows += table.num_rows

    def _describe(self) -> None:
        data = self.folder / _DATA
        with data.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        info = {"description": "", "citation": "", "homepage": "", "license": "", "features": features(self._schema)}
        state: dict[str, Any] = {
            "_data_files": [{"filename": _DATA}],
            "_fingerprint": digest[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self.folder.name,
        }
        (self.folder / "dataset_info.json").write_bytes(orjson.dumps(info, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        (self.folder / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def write_dataset_dict(folder: Path, splits: list[str]) -> None:
    """The file that makes a folder of splits a DatasetDict."""
    (folder / "dataset_dict.json").write_bytes(orjson.dumps({"splits": splits}))


def features(schema: "pa.Schema") -> dict[str, Any]:
    """An Arrow schema in the JSON form of `datasets.Features`."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(type_: "pa.DataType") -> Any:
    import pyarrow as pa

    if pa.types.is_list(type_):
        return {"feature": _feature(type_.value_type), "_type": "List"}
    if pa.types.is_struct(type_):
        return {field.name: _feature(field.type) for field in type_}
    names = {pa.float64(): "float64", pa.bool_(): "bool"}
    return {"dtype": names.get(type_, str(type_)), "_type": "Value"}


def _features_metadata(schema: "pa.Schema") -> dict[str, str]:
    return {"huggingface": orjson.dumps({"info": {"features": features(schema)}}).decode()}
