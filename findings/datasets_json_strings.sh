#!/usr/bin/env bash
# Packages: datasets 5.2.0, pyarrow 26.0.1
# Expected: in a JSONL column that mixes types, load_dataset either stops or keeps what the file says: the string "42" stays a string.
# Actual:   one value of another type turns the column into Json, and every *string* in it that happens to be JSON is decoded: "42" is the
#           int 42, "null" is None, "true" is True, "3.10" is 3.1, "007" is 7, "[1, 2]" is a list, '"quoted"' loses its quotes. Strings that
#           are not JSON stay. The number of a row decides nothing: a single odd row at the end changes the rows before it. The same holds
#           for from_generator, map, from_list(on_mixed_types="use_json") and an explicit Json() feature; to_json writes the changed values.
# Why met:  answers and labels are short strings of digits; a chat file where one message has content parts (a list) makes every content
#           "42" a number; tool-call arguments come as JSON text in some rows and as objects in others. No warning.
# Seen on 2026-12-01:
#   strings alone:    ['42', '3.10', '007', 'true', 'null', '[1, 2]', '"quoted"', 'Paris']
#   one list added:   [42, 3.1, 7, True, None, [1, 2], 'quoted', 'Paris']
#   chat, one row with parts: contents [42, None, [{'type': 'text', 'text': 'hi'}]]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
cat > program.py <<'PY'
import json

from datasets import Dataset, disable_progress_bars, load_dataset

disable_progress_bars()
TEXTS = ["42", "3.10", "007", "true", "null", "[1, 2]", '"quoted"', "Paris"]
DECODED = [42, 3.1, 7, True, None, [1, 2], "quoted", "Paris"]


def load(name, rows):
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return load_dataset("json", data_files=name, split="train")


plain = [{"answer": text} for text in TEXTS]
mixed = [*plain, {"answer": ["Paris", "London"]}]
alone = load("plain.jsonl", plain)["answer"][:]
print("strings alone:   ", alone)
assert alone == TEXTS

loaded = load("mixed.jsonl", mixed)
print("one list added:  ", loaded["answer"][:-1])
assert loaded["answer"][:-1] == DECODED and [type(v) for v in loaded["answer"][:-1]] == [type(v) for v in DECODED]
assert Dataset.from_generator(lambda: iter(mixed))["answer"][:-1] == DECODED
assert Dataset.from_list(mixed, on_mixed_types="use_json")["answer"][:-1] == DECODED
mapped = Dataset.from_dict({"row": list(range(len(mixed)))}).map(lambda r: {"answer": mixed[r["row"]]["answer"]})
assert mapped["answer"][:-1] == DECODED
loaded.to_json("again.jsonl")
assert [json.loads(line)["answer"] for line in open("again.jsonl")][:-1] == DECODED

contents = ["42", "null", [{"type": "text", "text": "hi"}]]
chat = load("chat.jsonl", [{"messages": [{"role": "user", "content": content}]} for content in contents])
seen = [messages[0]["content"] for messages in chat["messages"]]
print("chat, one row with parts: contents", seen)
assert seen == [42, None, contents[2]]
PY
"$work/venv/bin/python" program.py
echo "as described"
