#!/usr/bin/env bash
# Packages: transformers 5.23.0 with its server (/v1/systemone, typed decisions), torch 2.13.0
# Expected: a model that would answer neither Yes nor No is reported as such: an error, a low confidence, or the share of probability that
#           fell on the options (some servers of this protocol report it as option_mass).
# Actual:   any chat model is taken, the logits of the labels alone are put through a softmax, and nothing else is in the answer. A model that
#           writes <think> or "The" with probability .9999 and holds .00009 for Yes is a judge who is 90 % sure; confidence of a choice is
#           as high. The place that is read is the first token after the chat template, also where that is inside an opened thinking block.
# Why met:  it looks like the cheap way to judge with a local model: one forward pass, probabilities, no parsing. Reasoning models and models that
#           open with a sentence give numbers that say nothing of what they would have answered. (llama.cpp's server, build 11549, answers the
#           same request for such a model with status 501, "This model is not a decision model".)
# Seen on 2026-12-01 (the model writes T with p .9999, Yes .00009, No .00001, A .000009, B .000001 after every prompt):
#   asked in a chat:  'TTT'
#   yes or no:        {'type': 'noul', 'noul': 0.9}
#   good or bad:      {'type': 'choice', 'choice': 'good', 'confidence': 0.8, 'probabilities': {'good': 0.9, 'bad': 0.1}}
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

TOKENS = ["<pad>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyzABNTY", "Ye", "Yes", "No"]
tokens = {token: place for place, token in enumerate(TOKENS)}
tokenizer = Tokenizer(models.BPE(tokens, [("N", "o"), ("Y", "e"), ("Ye", "s")]))
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
    for following, weight in (("T", 0.9999), ("Yes", 9e-5), ("No", 1e-5), ("A", 9e-6), ("B", 1e-6)):
        model.lm_head.weight[tokens[following]] = (torch.log(torch.tensor(weight)) + 20) / width**0.5
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


def ask(path="chat/completions", **options):
    chat = {"messages": [{"role": "user", "content": "y"}], "temperature": 0} if path == "chat/completions" else {}
    body = {"model": "model", **chat, **options}
    url, kind = f"http://127.0.0.1:{sys.argv[1]}/v1/{path}", {"content-type": "application/json"}
    for _ in range(120):
        try:
            reply = urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind), timeout=60)
            return json.load(reply)
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise SystemExit("the server did not start")


def decide(question):
    return ask(path="systemone", state="Two and two is four.", questions={"q": question})["answers"]["q"]


print("asked in a chat: ", repr(text := ask(max_tokens=3)["choices"][0]["message"]["content"]))
yes = decide({"type": "noul", "instructions": "Is it right?"})
print("yes or no:       ", {**yes, "noul": round(yes["noul"], 3)})
choice = decide({"type": "choice", "instructions": "What is it?", "criteria": {"good": None, "bad": None}})
shown = {name: round(p, 3) for name, p in choice["probabilities"].items()}
print("good or bad:     ", {**choice, "confidence": round(choice["confidence"], 3), "probabilities": shown})
assert text == "TTT" and abs(yes["noul"] - 0.9) < 0.01 and set(yes) == {"type", "noul"}
assert abs(choice["confidence"] - 0.8) < 0.02 and set(choice) == {"type", "choice", "confidence", "probabilities"}
PY
python3 ask.py "$port" || { tail -20 server.log; exit 1; }
echo "as described"
