#!/usr/bin/env bash
# Packages: lm_eval 0.4.13 with xllamacpp 2026.10.11549 (llama.cpp's own server) and gguf 0.19.0
# Expected: a task with `repeats: 4` at temperature 1 draws four completions of every prompt; --seed changes them.
# Actual:   lm_eval's API models send "seed": 1234 with every request, the repeats included, and --seed does not reach the request. A
#           server that honours seeds answers with one text four times: majority votes, pass@k and spreads over repeats are those of
#           one sample, and nothing is said. The same server asked without a seed gives four texts.
# Why met:  humaneval-like and self-consistency tasks are built on repeats, and local servers (llama.cpp, vLLM) honour seeds.
#           `--model_args ...,seed=N` moves all of them together; only a server that ignores seeds gives what the task asks for.
# Seen on 2026-12-01 (texts and counts of the last line differ on every run):
#   --seed 1: distinct texts among 4 repeats, by prompt: [1, 1, 1]
#   --seed 2: distinct texts among 4 repeats, by prompt: [1, 1, 1], the same texts as before: True
#   asked 4 times without a seed: 4 distinct texts
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'lm_eval[api]==0.4.13' xllamacpp==2026.10.11549 gguf==0.19.0
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
cat > serve.py <<'PY'
import math
import socket
import time

import gguf
import numpy as np
import xllamacpp

vocab, width = 259, 320  # a llama over single bytes whose layers add nothing: the letters a to h are equally likely
w = gguf.GGUFWriter("model.gguf", "llama")
w.add_context_length(2048), w.add_embedding_length(width), w.add_block_count(1), w.add_feed_forward_length(64)
w.add_head_count(5), w.add_head_count_kv(5), w.add_layer_norm_rms_eps(1e-6)
w.add_tokenizer_model("llama"), w.add_token_scores([0.0] * vocab), w.add_add_space_prefix(False)
w.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)])
w.add_token_types([2, 3, 3] + [6] * 256), w.add_bos_token_id(1), w.add_eos_token_id(2)
w.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
head = np.full((vocab, width), -30.0, np.float32)
head[3 + ord("a") : 3 + ord("i")] = 0.0
w.add_tensor("token_embd.weight", np.eye(vocab, width, dtype=np.float32))
w.add_tensor("output.weight", head / math.sqrt(width))
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    w.add_tensor(f"{name}.weight", np.ones(width, np.float32))
shapes = {f"attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
for name, shape in {**shapes, "ffn_gate": (64, width), "ffn_up": (64, width), "ffn_down": (width, 64)}.items():
    w.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.warmup, params.verbosity = "model.gguf", 1, 2048, False, 0
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    params.port = free.getsockname()[1]
server = xllamacpp.Server(params)
print(server.listening_address, file=open("address", "w"), flush=True)
time.sleep(600)
PY
"$work/venv/bin/python" serve.py & server=$!
for _ in $(seq 60); do [ ! -s address ] || break; sleep 1; done
mkdir tasks
printf '{"question": "Letters %s?", "answer": "a"}\n' one two three > rows.jsonl
cat > tasks/letters.yaml <<YAML
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: "$work/rows.jsonl"}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], do_sample: true, temperature: 1.0, max_gen_toks: 12}
repeats: 4
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
YAML
for seed in 1 2; do
  "$work/venv/bin/lm_eval" run --model local-chat-completions --apply_chat_template --seed "$seed" --tasks letters --include_path tasks \
    --model_args "model=m,base_url=$(cat address)/v1/chat/completions" --log_samples --output_path "out$seed" > "log$seed" 2>&1 || { cat "log$seed"; exit 1; }
done
cat > check.py <<'PY'
import glob
import json
import urllib.request

found = {}
for seed in (1, 2):
    (path,) = glob.glob(f"out{seed}/**/samples_letters*.jsonl", recursive=True)
    found[seed] = [json.loads(line)["resps"][0] for line in open(path)]
    distinct = [len(set(texts)) for texts in found[seed]]
    more = "" if seed == 1 else f", the same texts as before: {found[1] == found[2]}"
    print(f"--seed {seed}: distinct texts among 4 repeats, by prompt: {distinct}{more}")
    assert [len(texts) for texts in found[seed]] == [4, 4, 4] and distinct == [1, 1, 1]
assert found[1] == found[2]
body = {"messages": [{"role": "user", "content": "Letters one?"}], "max_tokens": 12, "temperature": 1}
url, kind = open("address").read().strip() + "/v1/chat/completions", {"content-type": "application/json"}
asked = [json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind))) for _ in range(4)]
distinct = {reply["choices"][0]["message"]["content"] for reply in asked}
print(f"asked 4 times without a seed: {len(distinct)} distinct texts")
assert len(distinct) > 1
PY
"$work/venv/bin/python" check.py
echo "as described"
