#!/usr/bin/env bash
# Packages: peft 0.21.2 (with transformers 5.23.0, torch 2.13.0)
# Expected: a LoRA adapter that is saved and loaded onto the same base gives the same outputs; where two keys of alpha_pattern fit a module,
#           the order of the dict does not matter, or stays what it was.
# Actual:   the first key that fits wins, and save_pretrained sorts the keys. {"q_proj": 64, "layers.0.self_attn.q_proj": 4} trains layer 0
#           at scaling 8.0 and serves it at 0.5 after loading, without a word; written the other way round it is stable. With rank_pattern
#           the same order makes an adapter that cannot be loaded at all (size mismatch).
# Why met:  "all q_proj at 64, the first layer less" is the natural way to write a general rule and an exception, and training code saves the
#           adapter that evaluation then loads: what is measured is not what was trained.
# Seen on 2026-12-01:
#   general rule first: scaling of layer 0 trained 8.0, loaded 0.5; logits differ by 0.0781 (their spread is 0.1121)
#   exception first:    scaling of layer 0 trained 0.5, loaded 0.5; logits differ by 0.0000 (their spread is 0.1130)
#   rank_pattern, general rule first: RuntimeError, size mismatch
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q peft==0.21.2 transformers==5.23.0
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
cat > program.py <<'PY'
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

EXCEPTION = "layers.0.self_attn.q_proj"
TOKENS = torch.arange(10)[None]


def base():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, **shape))


def scaling(model):
    return model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"]


def trained(**patterns):
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **patterns)
    model = get_peft_model(base(), config).eval()
    model.save_pretrained("adapter")
    return model


def compare(name, pattern):
    with torch.no_grad():
        model = trained(alpha_pattern=pattern)
        logits = model(TOKENS).logits
        loaded = PeftModel.from_pretrained(base(), "adapter").eval()
        apart = (loaded(TOKENS).logits - logits).abs().max().item()
    print(f"{name} scaling of layer 0 trained {scaling(model)}, loaded {scaling(loaded)};", end=" ")
    print(f"logits differ by {apart:.4f} (their spread is {logits.std():.4f})")
    return scaling(model), scaling(loaded), apart


before, after, apart = compare("general rule first:", {"q_proj": 64, EXCEPTION: 4})
assert (before, after) == (8.0, 0.5) and apart > 0.01
before, after, apart = compare("exception first:   ", {EXCEPTION: 4, "q_proj": 64})
assert (before, after) == (0.5, 0.5) and apart == 0
trained(rank_pattern={"q_proj": 16, EXCEPTION: 4})
try:
    PeftModel.from_pretrained(base(), "adapter")
except RuntimeError as error:
    assert "size mismatch" in str(error)
    print("rank_pattern, general rule first: RuntimeError, size mismatch")
else:
    raise SystemExit("rank_pattern: the adapter loads now")
PY
"$work/venv/bin/python" program.py 2>&1 | grep -v -i -e warn -e kernels
echo "as described"
