#!/usr/bin/env bash
# Packages: datasets 5.2.0, polars 2.1.0, duckdb 2.0.0, pyarrow 26.0.1
# Expected: a chat file in which one message's content is a list of parts and the others are text reads the same everywhere, or is refused.
# Actual:   of the readers of the JSONL one refuses (pyarrow), duckdb puts the JSON text into every row, so plain `hi` gains quotation marks,
#           and polars turns the list alone into JSON text, so that a list and a text that looks like a list become equal. The Parquet that datasets
#           writes from the file reads as `hi` in datasets alone: polars, duckdb, pyarrow and datasets' own arrow format give `"hi"`.
# Why met:  multimodal and text rows in one file are ordinary; a table read for counting, deduplication, judging or training then holds
#           prompts with quotation marks that nobody wrote, and exact-match joins between two readers find nothing.
# Seen on 2026-12-01, content of the three rows (text hi, text [1], a list of one part):
#   JSONL by pyarrow:            ArrowInvalid
#   JSONL by duckdb:             ['"hi"', '"[1]"', '[{"type":"text","text":"yo"}]']
#   JSONL by polars:             ['hi', '[1]', '[{"type": "text", "text": "yo"}]']
#   Parquet by datasets:         ['hi', [1], [{'type': 'text', 'text': 'yo'}]]
#   Parquet by polars:           ['"hi"', '[1]', '[{"type":"text","text":"yo"}]']
#   Parquet by duckdb, pyarrow, datasets' arrow format: the same as polars
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q datasets==5.2.0 polars==2.1.0 duckdb==2.0.0 pyarrow==26.0.1
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
cat > program.py <<'PY'
import json

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from datasets import disable_progress_bars, load_dataset

disable_progress_bars()
PARTS = [{"type": "text", "text": "yo"}]
with open("chat.jsonl", "w") as file:
    for content in ("hi", "[1]", PARTS):
        file.write(json.dumps({"messages": [{"role": "user", "content": content}]}) + "\n")
loaded = load_dataset("json", data_files="chat.jsonl", split="train")
loaded.to_parquet("chat.parquet")


def contents(chats):
    return [messages[0]["content"] for messages in chats]


def by_duckdb(source):
    return contents(row[0] for row in duckdb.sql(f"select messages from {source}").fetchall())


def by_pyarrow():
    try:
        return contents(pa.json.read_json("chat.jsonl")["messages"].to_pylist())
    except pa.ArrowInvalid:
        return "ArrowInvalid"


quoted = ['"hi"', "[1]", '[{"type":"text","text":"yo"}]']
readings = {
    "JSONL by pyarrow": (by_pyarrow(), "ArrowInvalid"),
    "JSONL by duckdb": (by_duckdb("read_json('chat.jsonl')"), ['"hi"', '"[1]"', quoted[2]]),
    "JSONL by polars": (contents(pl.read_ndjson("chat.jsonl")["messages"].to_list()), ["hi", "[1]", json.dumps(PARTS)]),
    "Parquet by datasets": (contents(load_dataset("parquet", data_files="chat.parquet", split="train")["messages"]), ["hi", [1], PARTS]),
    "Parquet by polars": (contents(pl.read_parquet("chat.parquet")["messages"].to_list()), quoted),
    "Parquet by duckdb": (by_duckdb("'chat.parquet'"), quoted),
    "Parquet by pyarrow": (contents(pq.read_table("chat.parquet")["messages"].to_pylist()), quoted),
    "datasets' arrow format": (contents(loaded.with_format("arrow")[:]["messages"].to_pylist()), quoted),
}
for name, (seen, described) in readings.items():
    print(f"{name + ':':28} {seen}")
    assert seen == described, name
PY
"$work/venv/bin/python" program.py
echo "as described"
