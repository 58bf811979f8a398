#!/usr/bin/env bash
# Package:  litellm 1.108.7 with its proxy
# Expected: a proxy hands on the finish_reason that the server gave, and leaves usage out where the server sent none.
# Actual:   every finish_reason outside OpenAI's few becomes "stop", also "error", null and "model_length" (a cut completion); a reply
#           without usage gets one of zeros. "error" turns into "stop" without a line in the log, the others with a warning there. The server's
#           own word, where it was not null, stands in choices[0].provider_specific_fields.native_finish_reason, which no OpenAI client shows.
# Why met:  vLLM says "abort", routers say "error" beside half a text, others "model_length" or "insufficient_system_resource". Behind the
#           proxy such halves look finished: filters on finish_reason keep them, and budgets built on usage count 0 tokens.
# Seen on 2026-12-01:
#   error                        -> stop, kept aside: error
#   abort                        -> stop, kept aside: abort
#   model_length                 -> stop, kept aside: model_length
#   insufficient_system_resource -> stop, kept aside: insufficient_system_resource
#   None                         -> stop, kept aside: None
#   length                       -> length, kept aside: None
#   no usage                     -> {'completion_tokens': 0, 'prompt_tokens': 0, 'total_tokens': 0}
set -euo pipefail
work=$(mktemp -d)
upstream='' proxy=''
trap 'for pid in $upstream $proxy; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'litellm[proxy]==1.108.7'
cd "$work"
cat > upstream.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers with the finish_reason that the last message names in JSON; "no usage" leaves usage out."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        wanted = json.loads(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": "def f(x):\n    return"}
        choice = {"index": 0, "message": message, "finish_reason": "stop" if wanted == "no usage" else wanted}
        reply = {"id": "r", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        if wanted != "no usage":
            reply["usage"] = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], file=open("port", "w"), flush=True)
server.serve_forever()
PY
python3 upstream.py & upstream=$!
for _ in $(seq 30); do [ ! -s port ] || break; sleep 0.2; done
cat > proxy.yaml <<YAML
model_list:
  - {model_name: m, litellm_params: {model: hosted_vllm/m, api_base: "http://127.0.0.1:$(cat port)/v1", api_key: none}}
YAML
free=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
LITELLM_MASTER_KEY="sk-$(python3 -c 'import secrets; print(secrets.token_hex(24))')"
export LITELLM_MASTER_KEY LITELLM_LOCAL_MODEL_COST_MAP=True
"$work/venv/bin/litellm" --config proxy.yaml --host 127.0.0.1 --port "$free" > proxy.log 2>&1 & proxy=$!
cat > ask.py <<'PY'
import json
import os
import sys
import time
import urllib.error
import urllib.request


def ask(wanted):
    body = {"model": "m", "messages": [{"role": "user", "content": json.dumps(wanted)}]}
    headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["LITELLM_MASTER_KEY"]}
    url = f"http://127.0.0.1:{sys.argv[1]}/v1/chat/completions"
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60))


for _ in range(120):
    try:
        ask("stop")
        break
    except (urllib.error.URLError, ConnectionError):
        time.sleep(1)
for wanted in ("error", "abort", "model_length", "insufficient_system_resource", None, "length"):
    choice = ask(wanted)["choices"][0]
    aside = choice.get("provider_specific_fields", {}).get("native_finish_reason")
    print(f"{wanted!s:28} -> {choice['finish_reason']}, kept aside: {aside}")
    assert (choice["finish_reason"], aside) == (("length", None) if wanted == "length" else ("stop", wanted))
usage = ask("no usage")["usage"]
print(f"{'no usage':28} -> {usage}")
assert usage == {"completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0}
PY
python3 ask.py "$free" || { tail -20 proxy.log; exit 1; }
if grep -q "Unmapped finish_reason 'error'" proxy.log; then echo "the log now warns of 'error'"; exit 1; fi
grep -q "Unmapped finish_reason 'abort'" proxy.log
echo "as described"
