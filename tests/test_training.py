"""Training through TRL: what comes out of full, LoRA and QLoRA training, and that it is never another model's."""

import hashlib
import json
import os
import random
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

from recontext_data.core.errors import InputError
from recontext_data.policies.tiny.policy import TinyPolicy
from recontext_data.reports.screen import Screen
from recontext_data.training import adapters, checkpoints
from recontext_data.training.arguments import sft_config
from recontext_data.training.base import base_from, keep_autograd, load_4bit
from recontext_data.training.models import models_of, read_record
from recontext_data.training.preparing import TrainingJob
from recontext_data.training.sft import train
from tests import children
from tests.training_world import make_arm, make_job, make_model, rows

NO_4BIT = find_spec("bitsandbytes") is None
needs_4bit = pytest.mark.skipif(NO_4BIT, reason="bitsandbytes is not installed here")


def run(job: TrainingJob) -> dict[str, Any]:
    record = train(job, screen=Screen(), show=False)
    assert record is not None
    return record


def weights(job: TrainingJob) -> str:
    name = "model.safetensors" if job.config.method == "full" else "adapter_model.safetensors"
    return hashlib.sha256((job.target / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("method", ["full", "lora", pytest.param("qlora", marks=needs_4bit)])
def test_the_loss_falls_and_the_record_says_what_was_done(tmp_path: Path, method: str) -> None:
    job = make_job(tmp_path, method=method, epochs=3, learning_rate=1e-2 if method == "full" else 2e-2)
    record = run(job)
    assert record["losses"][-1][1] < 0.8 * record["losses"][0][1]
    assert record["validation_loss"]["after"] < 0.8 * record["validation_loss"]["before"]
    assert record["steps"] == 24 and record["dataset"]["rows"] == {"train": 64, "validation": 8}
    assert 0 < record["dataset"]["trained_share"] < 1
    assert record["checks"]["moved"] > 0 and record["checks"]["saved_and_trained"] < 1e-4
    assert (record["parameters"]["trainable"] < record["parameters"]["all"]) == (method != "full")
    if method != "full":
        assert record["checks"]["adapter_and_merged"] < 1e-4
    on_disk = json.loads((job.target / "training.json").read_text())
    assert on_disk == record and on_disk["base"]["identity"] == dict(job.base.folder.identity())
    assert sorted(on_disk["files"]) == sorted(p.name for p in job.target.iterdir() if p.name != "training.json")
    assert str(tmp_path) not in (job.target / "README.md").read_text()
    assert not (job.target / "training_args.bin").exists()


def test_gradient_checkpointing_is_off_unless_extra_asks_for_it_and_changes_no_weight(tmp_path: Path) -> None:
    def trained(name: str, **config: Any) -> tuple[bool, str]:
        job = make_job(tmp_path / name, method="lora", **config)
        arguments = sft_config(job.config, output=tmp_path, seed=0, steps=8, longest=64)
        run(job)
        return arguments.gradient_checkpointing, weights(job)

    off, plain = trained("plain")
    on, recomputed = trained("recomputed", extra={"gradient_checkpointing": True})
    assert (off, on) == (False, True) and recomputed == plain


def test_a_trained_model_is_sampled_by_the_policy_with_the_base_s_own_tokenizer(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    run(job)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (job.target / name).read_bytes() == (job.base.folder.path / name).read_bytes(), name
    policy = TinyPolicy.load(job.target)
    assert policy.count_tokens(rows(1)[0]["prompt"]) == TinyPolicy.load(job.base.folder.path).count_tokens(rows(1)[0]["prompt"])


def test_every_model_carries_its_arm_and_seed_and_a_second_run_trains_nothing(tmp_path: Path) -> None:
    jobs = [make_job(tmp_path, seed=seed) for seed in (3, 1)]
    for job in jobs:
        run(job)
    before = {job.seed: weights(job) for job in jobs}
    assert before[1] != before[3]
    assert [train(job, screen=Screen()) for job in jobs] == [None, None]
    assert {job.seed: weights(job) for job in jobs} == before
    found = models_of(tmp_path)
    assert [(model.arm, model.seed) for model in found] == [("standard.default-default", 1), ("standard.default-default", 3)]
    assert [model.path.name for model in found] == ["seed-1", "seed-3"] and not found[0].is_adapter
    assert found[0].base == str(tmp_path / "model")


def test_a_renamed_model_folder_is_found_out(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    run(job)
    job.target.rename(job.target.with_name("seed-7"))
    with pytest.raises(OSError, match=r"says arm standard.default-default, seed 0; give the folder its name back"):
        models_of(tmp_path)


def test_a_model_of_another_config_or_of_other_rows_is_never_taken_for_this_one(tmp_path: Path) -> None:
    run(make_job(tmp_path))
    with pytest.raises(
        InputError, match=r"another training.learning_rate \(0.005, not 0.001\); delete the folder, or keep both with models="
    ):
        train(make_job(tmp_path, learning_rate=1e-3), screen=Screen())
    shutil.rmtree(tmp_path / "arm")
    make_arm(tmp_path / "arm", train=rows(40))
    with pytest.raises(InputError, match=r"another dataset \(the rows of the arm have changed\)"):
        train(make_job(tmp_path), screen=Screen())


def test_an_adapter_is_refused_on_another_base_and_merges_into_its_own(tmp_path: Path) -> None:
    job = make_job(tmp_path, method="lora")
    run(job)
    (model,) = models_of(tmp_path)
    other = base_from(str(make_model(tmp_path / "other", seed=1)))
    with pytest.raises(InputError, match="is an adapter of another base than other"):
        adapters.load_trained(model, base=other)
    adapters.merge(model, tmp_path / "merged")
    assert TinyPolicy.load(tmp_path / "merged").model.num_parameters > 0
    assert str(tmp_path) not in (job.target / "adapter_config.json").read_text()


@needs_4bit
def test_4bit_gradients_are_the_same_before_and_after_a_forward_without_gradients(tmp_path: Path) -> None:
    """On CPUs with AVX512-BF16 the layers would be packed anew by the forward in the middle, and lose autograd."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import get_peft_model

    job = make_job(tmp_path, method="qlora")
    torch.manual_seed(0)
    model = get_peft_model(load_4bit(job.base, cuda=False), adapters.lora_config(job.config))
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True  # as bitsandbytes' constructor sets it on such a CPU
    keep_autograd(model)
    tokens = torch.arange(3, 40)[None]

    def gradients() -> list[Any]:
        model.zero_grad()
        model.train()
        model(tokens, labels=tokens).loss.backward()
        return [parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None]

    def forward_without_gradients() -> None:
        model.eval()
        with torch.no_grad():
            model(tokens)

    before = gradients()
    forward_without_gradients()
    after = gradients()
    assert len(before) > 10 and any(float(gradient.abs().max()) > 0 for gradient in before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    try:  # without the cure: other gradients, or none at all
        forward_without_gradients()
        spoiled = gradients()
    except RuntimeError:
        return
    assert len(spoiled) != len(before) or not all(torch.equal(a, b) for a, b in zip(before, spoiled, strict=True))


def test_compact_loss_has_the_gradients_of_trl_s_own(tmp_path: Path) -> None:
    import torch

    from recontext_data.training.base import load_for_training
    from recontext_data.training.libraries import quiet
    from recontext_data.training.preparing import make_trainer, read_data

    job = make_job(tmp_path)
    with quiet():
        tokenizer, found = job.base.tokenizer(), {}
        for name in ("ours", "trl"):
            model = load_for_training(job.base, job.config)
            trainer, _ = make_trainer(job, model, tokenizer, data=read_data(job, model, tokenizer), work=tmp_path / name)
            hooks = [*model._forward_pre_hooks, *model.base_model._forward_hooks]
            assert len(hooks) == 2
            if name == "trl":
                model._forward_pre_hooks.clear()
                model._forward_pre_hooks_with_kwargs.clear()
                model.base_model._forward_hooks.clear()
            batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
            loss = trainer.compute_loss(trainer.model.train(), dict(batch))
            loss.backward()
            found[name] = (loss.item(), [parameter.grad for parameter in model.parameters()])
    assert found["ours"][0] == pytest.approx(found["trl"][0], rel=1e-5)
    for ours, theirs in zip(found["ours"][1], found["trl"][1], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def train_in(folder: str, method: str) -> None:
    train(make_job(Path(folder), method=method, epochs=6, checkpoint_steps=3), screen=Screen(), show=False)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_at_a_random_step_and_run_again_the_weights_are_the_same(tmp_path: Path, method: str) -> None:
    whole = make_job(tmp_path / "whole", method=method, epochs=6, checkpoint_steps=3)
    expected = run(whole)
    killed = make_job(tmp_path / "killed", method=method, epochs=6, checkpoint_steps=3)
    work = checkpoints.work_folder(killed.target)
    stop_at = random.Random(os.getpid()).randrange(3, 40, 3)
    child = children.start(train_in, str(tmp_path / "killed"), method)
    deadline = time.monotonic() + 120
    while not any(int(p.name.partition("-")[2]) >= stop_at for p in work.glob("checkpoint-*")):
        assert child.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)
    child.kill()
    child.join()
    assert not killed.target.exists() and work.exists()
    record = run(killed)
    assert 3 <= record["resumed_from"] < 48
    assert record["steps"] == expected["steps"] == 48
    assert weights(killed) == weights(whole), (stop_at, record["resumed_from"])
    assert not work.exists() and [p.name for p in killed.target.parent.iterdir() if p.is_dir()] == ["seed-0"]


def test_a_checkpoint_without_its_last_file_does_not_count(tmp_path: Path) -> None:
    work = tmp_path / ".seed-0.work"
    request = {"seed": 0}
    assert checkpoints.prepare(work, request) is None
    for step in (3, 6, 9):
        (work / f"checkpoint-{step}").mkdir()
        (work / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
    (work / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    (work / "checkpoint-6" / "trainer_state.json").write_text('{"global_step": 6')
    assert checkpoints.prepare(work, request) == work / "checkpoint-3"
    assert sorted(p.name for p in work.iterdir()) == ["checkpoint-3", "request.json"]
    assert checkpoints.prepare(work, {"seed": 1}) is None and not (work / "checkpoint-3").exists()


def test_a_record_that_is_damaged_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(OSError, match=r"delete .* to train it again"):
        read_record(tmp_path)
