"""Tokens per second and peak memory of a training as we set it up, beside TRL's own defaults on the same rows.

    python -m benchmarks.training              # GPU: QLoRA on an 8B-shaped model of random weights; else tiny, on the CPU
    python -m benchmarks.training steps=20 batch=16
    python -m benchmarks.training model=path/to/folder   # another model, in full on a CPU and as QLoRA on a GPU

Ours: rows tokenised once, like lengths together, loss computed over the trained tokens alone; on a GPU bf16, and gradient
checkpointing for the 8B model in both. TRL's: `SFTConfig()` with the batch size, the steps and the device given.
Aim: at least 1.0 times TRL's tokens per second. Each is measured in a process of its own, from the third step on.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recontext_data.config.training import Training
from recontext_data.core.resources import shipped
from recontext_data.training.base import base_from
from recontext_data.training.device import has_cuda
from recontext_data.training.libraries import quiet
from recontext_data.training.preparing import TrainingJob, make_trainer, read_data

WARM_UP = 2
"""Steps that are not counted: memory is found and kernels are chosen in them."""
WIDTHS = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
VOCABULARY = 128_256


def main(arguments: list[str]) -> None:
    """Prints one line per way of training."""
    options = dict(argument.split("=", 1) for argument in arguments)
    if "measure" in options:
        print(json.dumps(_measure(options)))
        return
    cuda = has_cuda()
    if not cuda:
        print("no CUDA GPU here: QLoRA on an 8B-shaped model needs one; comparing tiny in full on the CPU instead")
    with tempfile.TemporaryDirectory() as folder:
        model = options.get("model") or _model(Path(folder), cuda=cuda)
        if model is None:
            print("data/tiny is missing; name a folder with model=PATH, or make it with `python scripts/make_tiny.py`")
            return
        _write_rows(Path(folder) / "arm", long=cuda and "model" not in options)
        options = {"steps": "12" if cuda else "8", "batch": "16", **options, "model": str(model), "folder": folder}
        found = {way: _in_a_process(options | {"measure": way}) for way in ("ours", "trl")}
    for way, facts in found.items():
        print(f"{way:5} {facts['rate']:10,.0f} tokens/s   peak {facts['memory'] / 2**30:6.2f} GiB   {facts['settings']}")
    print(f"ours / trl: {found['ours']['rate'] / found['trl']['rate']:.2f} times the speed")


def _in_a_process(options: dict[str, str]) -> dict[str, Any]:
    words = [f"{key}={value}" for key, value in options.items()]
    done = subprocess.run([sys.executable, "-m", "benchmarks.training", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _measure(options: dict[str, str]) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    with quiet():
        trainer, settings = (_ours if options["measure"] == "ours" else _trl)(options)
        marks: list[tuple[float, int]] = []
        trainer.add_callback(_timer(marks, trainer))
        trainer.train()
    (start, before), (end, after) = marks[WARM_UP - 1], marks[-1]
    memory = torch.cuda.max_memory_allocated() if has_cuda() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rate": (after - before) / (end - start), "memory": memory, "settings": settings}


def _timer(marks: list[tuple[float, int]], trainer: Any) -> Any:
    from transformers import TrainerCallback

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if has_cuda():
                import torch

                torch.cuda.synchronize()
            marks.append((time.perf_counter(), trainer._total_train_tokens))

    return Timer()


def _ours(options: dict[str, str]) -> tuple[Any, str]:
    import torch

    from recontext_data.training.base import load_for_training

    cuda, folder = has_cuda(), Path(options["folder"])
    if not cuda:
        torch.set_num_threads(1)
    config = Training(
        method="qlora" if cuda else "full",
        batch_size=int(options["batch"]),
        extra={"max_steps": int(options["steps"]), "gradient_checkpointing": cuda},
    )
    base = base_from(options["model"])
    job = TrainingJob(
        recipe="", arm="", contexts=("", ""), seed=0, dataset=folder / "arm", target=folder / "ours", base=base, config=config
    )
    model, tokenizer = load_for_training(base, config), base.tokenizer()
    trainer, _ = make_trainer(job, model, tokenizer, data=read_data(job, model, tokenizer), work=folder / "ours")
    return trainer, f"{config.method}, batch {config.batch_size}, like lengths together, trained tokens alone" + (
        "" if cuda else ", one thread"
    )


def _trl(options: dict[str, str]) -> tuple[Any, str]:
    from datasets import load_from_disk
    from transformers import AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    cuda, folder = has_cuda(), Path(options["folder"])
    device = {} if cuda else {"use_cpu": True, "bf16": False}
    batch = {"per_device_train_batch_size": int(options["batch"]), "max_steps": int(options["steps"])}
    arguments: dict[str, Any] = {}
    if cuda:
        import torch
        from peft import LoraConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
        arguments["peft_config"] = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=options["model"],
        args=SFTConfig(
            output_dir=str(folder / "trl"), report_to="none", save_strategy="no", disable_tqdm=True, **batch, **device
        ),
        train_dataset=load_from_disk(str(folder / "arm" / "train")),
        processing_class=AutoTokenizer.from_pretrained(options["model"]),
        **arguments,
    )
    return trainer, f"SFTConfig() with batch {options['batch']}" + ("" if cuda else ", use_cpu, torch's own threads")


def _write_rows(folder: Path, *, long: bool) -> None:
    """Prompts of 110-220 words, or 4 times that, and completions of a tenth."""
    from datasets import Dataset

    words, times = ["return", "the", "sum", "of", "all", "even", "numbers", "in", "xs", "or", "zero"], 4 if long else 1
    rows = []
    for i in range(512):
        length = (40 + (i * 37) % 120) * times
        prompt = " ".join(words[(i + j) % len(words)] for j in range(length))
        answer = " ".join(words[(i + j) % len(words)] for j in range(length // 10))
        rows.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": answer}],
                "candidate_id": f"c{i}",
            }
        )
    with quiet():
        Dataset.from_list(rows).save_to_disk(str(folder / "train"))


def _model(folder: Path, *, cuda: bool) -> Path | None:
    tiny = shipped("data/tiny")
    if not (tiny / "model.safetensors").is_file():
        return None
    return _random_8b(tiny, folder / "model") if cuda else tiny


def _random_8b(tiny: Path, target: Path) -> Path:
    """Random weights in the shape of an 8B Llama, with the embedded policy's tokenizer, its vocabulary filled up."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    AutoTokenizer.from_pretrained(tiny).save_pretrained(target)
    path = target / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"<filler {i}>": i for i in range(1024, VOCABULARY)}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    config = LlamaConfig(
        **WIDTHS, vocab_size=VOCABULARY, max_position_embeddings=8192, bos_token_id=None, eos_token_id=2, pad_token_id=0
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(target)
    return target


if __name__ == "__main__":
    main(sys.argv[1:])
