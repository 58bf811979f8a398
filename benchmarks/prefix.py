"""What it saves to read a prompt once for all its completions: ours beside `generate(num_return_sequences=n)`. Needs torch.

    python -m benchmarks.prefix
    python -m benchmarks.prefix n=16 prompt=512 tokens=32 repeats=5 threads=2

A random Llama of 20M parameters in float32 on the CPU; both draw at temperature 1, every completion to its last token. The
two take turns, so that a busy machine slows both, and the medians are compared. More threads than idle cores measure nothing:
threads that wait for each other spin. Aim: at least 2.5 times the throughput.
"""

import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from recontext_data.core.records import SamplingParams
from recontext_data.policies.local.decoding import DecodingRow, decode

DEFAULTS = {"n": 16, "prompt": 512, "tokens": 32, "repeats": 5, "threads": 1}
AIM = 2.5


def main(arguments: list[str]) -> None:
    """Prints a line per repeat, then the medians and their ratio."""
    import torch

    options = DEFAULTS | {name: int(value) for name, value in (argument.split("=", 1) for argument in arguments)}
    n, tokens = options["n"], options["tokens"]
    torch.set_num_threads(options["threads"])
    model = _model()
    prompt = torch.randint(1, model.config.vocab_size, (1, options["prompt"]))
    millions = sum(weights.numel() for weights in model.parameters()) / 1e6
    print(f"{millions:.1f}M parameters, {options['prompt']}-token prompt, n={n}, {tokens} tokens, {options['threads']} threads")

    def ours() -> None:
        rows = [DecodingRow(prompt=0, seed=seed, limit=tokens) for seed in range(n)]
        decode(model, prompt.tolist(), rows=rows, sampling=SamplingParams(), stop=(set(), threading.Event()))
        assert all(len(row.tokens) == tokens for row in rows)

    def theirs() -> None:
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=0,
            num_return_sequences=n,
            max_new_tokens=tokens,
        )
        assert out.shape == (n, options["prompt"] + tokens)

    _compare(ours, theirs, repeats=options["repeats"], completions=n)


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)  # fixed so that all runs draw the same texts
    shape = LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=4096,
        # No end token, so that every completion has its full length in both.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(shape).eval()


def _compare(ours: Callable[[], None], theirs: Callable[[], None], *, repeats: int, completions: int) -> None:
    for run in (ours, theirs):
        run()  # the first time is slower: memory is claimed and kernels are chosen
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
    for (wall, cpu), (other_wall, other_cpu) in pairs:
        print(f"ours {wall:6.2f} s ({cpu:5.2f} CPU)   generate {other_wall:6.2f} s ({other_cpu:5.2f} CPU)")
    for i, what in enumerate(("wall", "CPU")):
        mine, other = (statistics.median(pair[side][i] for pair in pairs) for side in (0, 1))
        print(
            f"{what:5} {completions / mine:6.2f} completions/s against {completions / other:6.2f}:"
            f" {other / mine:.2f} times the throughput (aim {AIM})"
        )


def _seconds(run: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main(sys.argv[1:])
