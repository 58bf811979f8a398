#!/usr/bin/env bash
# Packages: transformers 5.23.0 with its server, torch 2.13.0
# Expected: as with OpenAI, vLLM and llama.cpp, the text ends before the stop string, and finish_reason is "stop".
# Actual:   finish_reason is "stop" and the stop string stays in the text, together with whatever else the token holds that completed it:
#           with stop "D" a token "CDE" ends the text as "ABCDE". An array of stop strings behaves the same.
# Why met:  code and answers are cut with stops such as "\nclass", "```" or "Question:": here every completion carries the stop, code does not
#           parse, and exact-match scores are 0. The same evaluation against another server is right, and nothing says why.
# Seen on 2026-12-01 (the model writes the tokens AB, CDE and F, then ends):
#   no stop:    'ABCDEF' stop
#   stop "D":   'ABCDE' stop, 'ABC' is due
#   stop ["B"]: 'AB' stop, 'A' is due
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q 'transformers[serving]==5.23.0'
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
cat > make.py <<'PY'
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENS = ["<pad>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyzABCDEF", "AB", "DE", "CDE"]
tokens = {token: place for place, token in enumerate(TOKENS)}
tokenizer = Tokenizer(models.BPE(tokens, [("A", "B"), ("D", "E"), ("C", "DE")]))
tokenizer.decoder = decoders.Fuse()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
fast.save_pretrained("model")
width = 40
config = LlamaConfig(vocab_size=len(TOKENS), hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
model = LlamaForCausalLM(config)
with torch.no_grad():  # the layers add nothing, so that the next token depends on the last one alone
    model.model.layers[0].self_attn.o_proj.weight.zero_()
    model.model.layers[0].mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(len(TOKENS), width))
    model.lm_head.weight.zero_()
    for last, following in (("o", "AB"), ("AB", "CDE"), ("CDE", "F"), ("F", "</s>")):
        model.lm_head.weight[tokens[following], tokens[last]] = 10.0
model.save_pretrained("model")
PY
"$work/venv/bin/python" make.py
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/transformers" serve model --host 127.0.0.1 --port "$port" --device cpu > server.log 2>&1 & server=$!
cat > ask.py <<'PY'
import json
import sys
import time
import urllib.error
import urllib.request


def ask(**options):
    body = {"model": "model", "messages": [{"role": "user", "content": "go"}], **options}
    url, kind = f"http://127.0.0.1:{sys.argv[1]}/v1/chat/completions", {"content-type": "application/json"}
    for _ in range(120):
        try:
            reply = urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind), timeout=60)
            return json.load(reply)["choices"][0]
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise SystemExit("the server did not start")


def shown(**options):
    choice = ask(max_tokens=20, **options)
    return choice["message"]["content"], choice["finish_reason"]


whole, inside, listed = shown(), shown(stop="D"), shown(stop=["B"])
print(f"no stop:    {whole[0]!r} {whole[1]}")
print(f"stop \"D\":   {inside[0]!r} {inside[1]}, 'ABC' is due")
print(f"stop [\"B\"]: {listed[0]!r} {listed[1]}, 'A' is due")
assert (whole, inside, listed) == (("ABCDEF", "stop"), ("ABCDE", "stop"), ("AB", "stop"))
PY
python3 ask.py "$port" || { tail -20 server.log; exit 1; }
echo "as described"
