"""Files of rows, written in one step and read back: JSON lines and Parquet, a batch at a time.

`read_openai` reads OpenAI's chat files back as rows of prompt and completion, so that fixed data can come in that way.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from recontext_data.core.errors import DataError
from recontext_data.store.files import replace_file, writing

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1024
"""Rows that are written at once."""


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes one JSON object per line; the file is there whole or not at all. Returns how many."""
    count = 0

    def write(target: Path) -> None:
        nonlocal count
        with target.open("wb") as handle:
            for row in rows:
                handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                count += 1

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)
    return count


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], *, schema: "pa.Schema") -> int:
    """Writes a Parquet file in row groups of BATCH rows; whole or not at all. Returns how many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0

    def write(target: Path) -> None:
        nonlocal count
        stream = iter(rows)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            while batch := [dict(row) for row in islice(stream, BATCH)]:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                count += len(batch)

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)
    return count


def read_openai(path: Path) -> Iterator[dict[str, Any]]:
    """OpenAI's chat file as rows: `candidate_id` is `line <n>`, `prompt` and `completion` are lists of {role, content}.

    The completion is the last turn. Turns before it keep their roles; weights, names and tools are not read.

    Raises:
        DataError: a line is not a chat, or trains on more than its last turn.
    """
    for number, line in numbered(path):
        where = f"{path.name}: line {number}"
        try:
            turns = orjson.loads(line)["messages"]
            plain = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns]
            weights = [turn.get("weight", 1) for turn in turns if turn["role"] == "assistant"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise DataError(f"{where}: is not a chat; each line is {{'messages': [{{'role', 'content'}}, ...]}}") from None
        if not plain or plain[-1]["role"] != "assistant" or not weights[-1]:
            raise DataError(f"{where}: must end with an assistant turn that is trained on")
        if any(weights[:-1]):
            raise DataError(f"{where}: trains on several turns; give the earlier assistant turns weight 0, or split the line")
        yield {"candidate_id": f"line {number}", "prompt": plain[:-1], "completion": plain[-1:]}


def numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Raises:
        DataError: there is no such file.
    """
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file of JSON lines") from None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
