#!/usr/bin/env bash
# Packages: xllamacpp 2026.10.11549 (llama.cpp's own server), gguf 0.19.0
# Expected: response_format with a strict JSON schema is held to; a keyword that the server cannot enforce is refused.
# Actual:   minimum and maximum bind where the type is "integer" and are dropped, with status 200, where it is "number";
#           multipleOf is dropped for both. Type, required and the names are enforced all the time, so the reply looks constrained.
# Why met:  a judge asks for {"score": number from 0 to 1} and gets 999 or -9, which a mean of scores takes as it comes.
# Seen on 2026-12-01:
#   integer 1..10: 0 outside of 40, such as none
#   number 1..10: 29 outside of 40, such as [999, 9999999, 999999]
#   number 0..1: 40 outside of 40, such as [9, 999, 9999999]
#   integer 1..10, multipleOf 5: 40 outside of 40, such as [9, 9, 9]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
cat > bounds.py <<'PY'
import json
import math
import socket
import urllib.request

import gguf
import numpy as np
import xllamacpp


def write_model(path, table):
    """A llama over single bytes whose layers add nothing: table[last byte or None][next byte] = weight."""
    vocab, width = 259, 320
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(2048), w.add_embedding_length(width), w.add_block_count(1), w.add_feed_forward_length(64)
    w.add_head_count(5), w.add_head_count_kv(5), w.add_layer_norm_rms_eps(1e-6)
    w.add_tokenizer_model("llama"), w.add_token_scores([0.0] * vocab), w.add_add_space_prefix(False)
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)])
    w.add_token_types([2, 3, 3] + [6] * 256), w.add_bos_token_id(1), w.add_eos_token_id(2)
    w.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    head = np.full((vocab, width), -30.0, np.float32)
    for last, weights in table.items():
        column = slice(None) if last is None else 3 + last
        head[:, column] = -30.0
        for byte, weight in weights.items():
            head[3 + byte, column] = math.log(weight)
    w.add_tensor("token_embd.weight", np.eye(vocab, width, dtype=np.float32))
    w.add_tensor("output.weight", head / math.sqrt(width))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    shapes = {f"attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
    for name, shape in {**shapes, "ffn_gate": (64, width), "ffn_up": (64, width), "ffn_down": (width, 64)}.items():
        w.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


later = {ord("9"): 0.6, ord("}"): 0.3, ord("-"): 0.1}
write_model("model.gguf", {None: later, ord("}"): {ord("}"): 0.01}})
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.warmup, params.verbosity = "model.gguf", 1, 2048, False, 0
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    params.port = free.getsockname()[1]
server = xllamacpp.Server(params)


def ask(text, **options):
    body = {"messages": [{"role": "user", "content": text}], "temperature": 1, "min_p": 0, "top_k": 0, **options}
    request = urllib.request.Request(
        server.listening_address + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def outside(name, schema, allowed):
    values = []
    for seed in range(40):
        shape = {"type": "object", "properties": {"score": schema}, "required": ["score"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": shape}}
        choice = ask("Score:", seed=seed, max_tokens=60, response_format=form)["choices"][0]
        if choice["finish_reason"] == "stop":
            values.append(json.loads(choice["message"]["content"])["score"])
    wrong = [value for value in values if not allowed(value)]
    print(f"{name}: {len(wrong)} outside of {len(values)}, such as {wrong[:3] or 'none'}")
    return len(wrong)


assert outside("integer 1..10", {"type": "integer", "minimum": 1, "maximum": 10}, lambda v: 1 <= v <= 10) == 0
assert outside("number 1..10", {"type": "number", "minimum": 1, "maximum": 10}, lambda v: 1 <= v <= 10) > 5
assert outside("number 0..1", {"type": "number", "minimum": 0, "maximum": 1}, lambda v: 0 <= v <= 1) > 5
fives = {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 5}
assert outside("integer 1..10, multipleOf 5", fives, lambda v: v in (5, 10)) > 5
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" bounds.py
echo "as described"
