#!/usr/bin/env bash
# Packages: xllamacpp 2026.10.11549 (llama.cpp's own server), gguf 0.19.0
# Expected: logprobs.content has one entry for every generated token, so its sum is the log-probability of the text and its length is
#           usage.completion_tokens.
# Actual:   tokens that are parts of one character become a single entry, which carries the log-probability of the last part alone. An
#           emoji of four byte tokens, each of probability .6, is listed at log(.6) = -.51 in place of -2.04. Half a stop string at the
#           end of a reply is listed as empty entries, then as one entry that repeats their text. Nothing in the reply says so.
# Why met:  every tokenizer with byte fallback writes rare characters so. Perplexities, importance weights and KL estimates come out
#           too high, only for texts with such characters; counting entries undercounts tokens (4 paid, 1 listed).
# Seen on 2026-12-01:
#   text '\U0001f600': 4 tokens, entries [('\U0001f600', -0.511)], sum -0.511 where -2.043 is due
#   text 'xyzQ:' with stop 'zQ@': 5 tokens, entries ['x', 'y', '', '', 'zQ:']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
cat > entries.py <<'PY'
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


path = list("\U0001f600".encode()) + [ord("!")]
table = {last: {byte: 0.6, ord("k"): 0.4} for last, byte in zip([ord("g"), *path], path)}
table.update({last: {byte: 1.0} for last, byte in zip(b"wxyzQ:", b"xyzQ::")})
write_model("model.gguf", {None: {ord("k"): 1.0}, **table})
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


def entries(prompt, **options):
    reply = ask(prompt, temperature=0, logprobs=True, **options)
    choice = reply["choices"][0]
    listed = [(entry["token"], round(entry["logprob"], 3)) for entry in choice["logprobs"]["content"]]
    return choice["message"]["content"], reply["usage"]["completion_tokens"], listed


text, count, listed = entries("g", max_tokens=4)
due, total = 4 * math.log(0.6), sum(logprob for _, logprob in listed)
print(f"text {text!a}: {count} tokens, entries {ascii(listed)}, sum {total:.3f} where {due:.3f} is due")
assert text == "\U0001f600" and count == 4 and len(listed) == 1 and abs(total - math.log(0.6)) < 0.01
text, count, listed = entries("w", max_tokens=5, stop=["zQ@"])
tokens = [token for token, _ in listed]
print(f"text {text!r} with stop 'zQ@': {count} tokens, entries {tokens}")
assert text == "xyzQ:" and count == 5 and tokens == ["x", "y", "", "", "zQ:"]
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" entries.py
echo "as described"
