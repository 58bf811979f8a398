#!/usr/bin/env bash
# Packages: xllamacpp 2026.10.11549 (llama.cpp's own server), gguf 0.19.0
# Expected: a seed is 64 bits wide or refused when it does not fit; every seed makes a request repeatable.
# Actual:   only the low 32 bits count. Seeds 7, 2^32 + 7 and 2^40 + 7 give the same text. A seed whose low 32 bits are all
#           ones (2^32 - 1, 2^40 - 1, 2^63 - 1) means "no seed": the text changes with every request. Choice i of n has seed + i, so an
#           ordinary seed can reach that number as well: with n=4 and seed 2^32 - 3 the third choice alone is not repeatable.
# Why met:  seeds derived from a hash of the prompt are 63 or 64 bits wide, and 2^63 - 1 or 2^32 - 1 is the obvious largest seed.
# Seen on 2026-12-01 (the texts of unrepeatable seeds differ on every run):
#   7 and 2^32+7 and 2^40+7: ebafbbgfghcb ebafbbgfghcb ebafbbgfghcb
#   2^32-2 twice: same; 2^32-1 twice: different; 2^40-1 twice: different; 2^63-1 twice: different
#   n=4 from seed 2^32-3, asked twice, equal choices: [True, True, False, True]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
cat > seeds.py <<'PY'
import json
import math
import socket
import urllib.request

import gguf
import numpy as np
import xllamacpp


def write_model(path, weights):
    """A llama over single bytes whose layers add nothing, so that every next byte has the given weights."""
    vocab, width = 259, 320
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(2048), w.add_embedding_length(width), w.add_block_count(1), w.add_feed_forward_length(64)
    w.add_head_count(5), w.add_head_count_kv(5), w.add_layer_norm_rms_eps(1e-6)
    w.add_tokenizer_model("llama"), w.add_token_scores([0.0] * vocab), w.add_add_space_prefix(False)
    w.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)])
    w.add_token_types([2, 3, 3] + [6] * 256), w.add_bos_token_id(1), w.add_eos_token_id(2)
    w.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    head = np.full((vocab, width), -30.0, np.float32)
    for text, weight in weights.items():
        head[3 + ord(text)] = math.log(weight)
    w.add_tensor("token_embd.weight", np.eye(vocab, width, dtype=np.float32))
    w.add_tensor("output.weight", head / math.sqrt(width))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    shapes = {"attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width), "attn_output": (width, width)}
    for name, shape in {**shapes, "ffn_gate": (64, width), "ffn_up": (64, width), "ffn_down": (width, 64)}.items():
        w.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


write_model("model.gguf", {letter: 1 / 8 for letter in "abcdefgh"})
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.warmup, params.verbosity = "model.gguf", 4, 4096, False, 0
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    params.port = free.getsockname()[1]
server = xllamacpp.Server(params)


def texts(seed, n=1):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 12, "temperature": 1, "seed": seed, "n": n}
    request = urllib.request.Request(
        server.listening_address + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return [choice["message"]["content"] for choice in json.load(reply)["choices"]]


same = [texts(seed)[0] for seed in (7, 2**32 + 7, 2**40 + 7)]
print("7 and 2^32+7 and 2^40+7:", *same)
assert len(set(same)) == 1 and texts(8) != texts(7)
for name, seed, repeats in (("2^32-2", 2**32 - 2, True), ("2^32-1", 2**32 - 1, False), ("2^40-1", 2**40 - 1, False), ("2^63-1", 2**63 - 1, False)):
    first, second = texts(seed), texts(seed)
    print(f"{name} twice:", "same" if first == second else "different")
    assert (first == second) is repeats
equal = [a == b for a, b in zip(texts(2**32 - 3, n=4), texts(2**32 - 3, n=4))]
print("n=4 from seed 2^32-3, asked twice, equal choices:", equal)
assert equal == [True, True, False, True]
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" seeds.py
echo "as described"
