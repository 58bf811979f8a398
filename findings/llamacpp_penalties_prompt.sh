#!/usr/bin/env bash
# Packages: xllamacpp 2026.10.11549 (llama.cpp's own server), gguf 0.19.0
# Expected: frequency_penalty counts what was generated so far, as OpenAI documents it, so the first token does not depend on it; and
#           it counts all of that, however long ago.
# Actual:   the prompt counts too, and only the last 64 tokens of prompt and completion together. A letter that stands six times in
#           the prompt is never the first token (0 where 60 % are due); push the six out with 64 other letters and it is back.
# Why met:  a penalty against loops silently forbids quoting the prompt (an option's text, a name, a line of code), and a judge with a
#           long rubric is penalised for the rubric's last 64 tokens alone.
# Seen on 2026-12-01, share of "d" among 200 first tokens (the model gives d .6, e .3, f .1 after every letter):
#   no penalty, prompt dddddd: 0.555
#   frequency_penalty 1, prompt dddddd: 0.0
#   frequency_penalty 1, prompt dddddd + f * 64: 0.61 (d and e stand 2 to 1 again)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
cat > penalties.py <<'PY'
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


write_model("model.gguf", {None: {ord("d"): 0.6, ord("e"): 0.3, ord("f"): 0.1}})
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


def share_of_d(prompt, **options):
    first = [ask(prompt, max_tokens=1, seed=seed, **options)["choices"][0]["message"]["content"] for seed in range(200)]
    return first.count("d") / len(first)


plain = share_of_d("dddddd")
print("no penalty, prompt dddddd:", plain)
penalised = share_of_d("dddddd", frequency_penalty=1)
print("frequency_penalty 1, prompt dddddd:", penalised)
pushed_out = share_of_d("dddddd" + "f" * 64, frequency_penalty=1)
print("frequency_penalty 1, prompt dddddd + f * 64:", pushed_out, "(d and e stand 2 to 1 again)")
assert 0.5 < plain < 0.7 and penalised < 0.03 and 0.55 < pushed_out < 0.78
assert share_of_d("dddddd" + "f" * 50, frequency_penalty=1) < 0.03
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" penalties.py
echo "as described"
