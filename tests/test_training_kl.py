"""The penalty for leaving the reference: weight 0 is plain SFT bit for bit, a large one holds the model back."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs the extra `local`")

import torch

from recontext_data.config.training import Training
from recontext_data.core.errors import DataError, RecipeError
from recontext_data.reports.screen import Screen
from recontext_data.training import checkpoints
from recontext_data.training.base import load_for_training
from recontext_data.training.kl import Penalty, digest, read_rows, require_one_process
from recontext_data.training.preparing import TrainingJob
from recontext_data.training.rows import end_token
from recontext_data.training.sft import train
from tests.training_world import make_job


def chats(path: Path, count: int = 12) -> Path:
    """Answers that training never shows."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Which option? Add {i}"},
                {"role": "assistant", "content": "the numbers " * (i % 3 + 1)},
            ]
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def trained(job: TrainingJob) -> dict[str, Any]:
    record = train(job, screen=Screen(), show=False)
    assert record is not None
    return record


def weights(job: TrainingJob) -> str:
    name = "model.safetensors" if job.config.method == "full" else "adapter_model.safetensors"
    return hashlib.sha256((job.target / name).read_bytes()).hexdigest()


class Stopped(Exception):
    pass


class StoppingScreen(Screen):
    """Ends a training in its midst, as its line of progress moves on."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.left = after

    @contextmanager
    def stage(self, name: str, total: int | None, *, unit: str) -> Iterator[Any]:
        yield self

    def advance(self, count: int = 1) -> None:
        self.left -= count
        if not self.left:
            raise Stopped


def job(folder: Path, weight: float | None, **config: Any) -> TrainingJob:
    data = chats(folder.parent / "chats.jsonl") if weight is not None else None
    penalty: dict[str, Any] = {} if data is None else {"kl": {"weight": weight, "data": str(data)}}
    return make_job(folder, **penalty, **config)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weight_0_is_plain_sft_bit_for_bit_and_a_large_weight_stays_near_the_reference(tmp_path: Path, method: str) -> None:
    config = {"method": method, "learning_rate": 1e-2, "epochs": 2, "micro_batch_size": 4}
    found: dict[float | None, tuple[str, dict[str, Any]]] = {}
    for weight in (None, 0.0, 3.0):
        one = job(tmp_path / f"weight-{weight}", weight, **config)
        record = trained(one)
        found[weight] = weights(one), record
    assert found[0.0][0] == found[None][0] != found[3.0][0]
    assert "kl" not in found[None][1] and found[0.0][1]["kl"]["rows"] == 12
    free, held = found[0.0][1]["kl"]["after"], found[3.0][1]["kl"]["after"]
    assert 0 < held < 0.5 * free, (held, free)
    assert found[3.0][1]["losses"][-1][1] < found[3.0][1]["losses"][0][1]  # and it still learns


def test_the_divergence_is_that_of_the_two_distributions(tmp_path: Path) -> None:
    """Counted again row by row, without padding, from the whole logits."""
    one = job(tmp_path / "a", 1.0)
    tokenizer, model = one.base.tokenizer(), load_for_training(one.base, one.config)
    penalty = Penalty.of(one.config, model, tokenizer, end=end_token(tokenizer, ends={2}), seed=0)
    model.eval()
    assert penalty.reference is not None
    assert float(penalty.divergence(model, penalty.rows[:5])[0].detach()) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    total, count = penalty.divergence(model, penalty.rows[:5])
    expected, tokens = 0.0, 0
    for row in penalty.rows[:5]:
        with torch.no_grad():
            p, q = (one(torch.tensor([row.input_ids])).logits[0].double().log_softmax(-1) for one in (model, penalty.reference))
        for at in range(len(row.prompt) - 1, len(row) - 1):
            expected += sum(math.exp(a) * (a - b) for a, b in zip(p[at].tolist(), q[at].tolist(), strict=True))
            tokens += 1
    assert count == tokens and float(total.detach()) == pytest.approx(expected, rel=1e-4) and expected > 0.01
    total.backward()
    assert any(float(parameter.grad.abs().max()) > 0 for parameter in model.parameters() if parameter.grad is not None)
    assert all(parameter.grad is None for parameter in penalty.reference.parameters())


def test_every_row_takes_its_turn_and_the_order_is_the_seed_s(tmp_path: Path) -> None:
    one = job(tmp_path / "a", 1.0)
    tokenizer, model = one.base.tokenizer(), load_for_training(one.base, one.config)
    penalties = [Penalty.of(one.config, model, tokenizer, end=2, seed=seed) for seed in (0, 0, 1)]
    turns = [[row.row_id for number in range(6) for row in penalty.batch(number, 4)] for penalty in penalties]
    assert turns[0] == turns[1] != turns[2]
    assert sorted(turns[0][:12]) == sorted(row.row_id for row in penalties[0].rows) and turns[0][12:] == turns[0][:12]


def test_a_resumed_training_takes_the_same_rows(tmp_path: Path) -> None:
    """Checkpoints of a whole training are left as a kill would leave them, and continued from."""
    config = {"epochs": 2, "micro_batch_size": 4, "checkpoint_steps": 6}
    whole, resumed = job(tmp_path / "whole", 1.0, **config), job(tmp_path / "resumed", 1.0, **config)
    trained(whole)

    with pytest.raises(Stopped):
        train(resumed, screen=StoppingScreen(after=9), show=False)
    assert checkpoints.work_folder(resumed.target).exists()
    record = trained(resumed)
    assert record["resumed_from"] == 6 and weights(resumed) == weights(whole)


def test_rows_are_known_by_what_they_are_and_not_by_where(tmp_path: Path) -> None:
    first = job(tmp_path / "a", 1.0)
    assert first.config.kl is not None
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes((tmp_path / "chats.jsonl").read_bytes())
    other = first.config.kl.model_copy(update={"data": str(moved)})
    assert digest(other) == digest(first.config.kl) and str(tmp_path) not in json.dumps(first.request())
    chats(moved, 11)
    assert digest(other) != digest(first.config.kl)
    arm = first.config.kl.model_copy(update={"data": str(first.dataset)})
    assert len(read_rows(arm)) == 64 and len(read_rows(first.config.kl)) == 12
    assert "kl" not in job(tmp_path / "b", None).request()["config"]  # models that were trained before stay known


def test_wrong_data_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Training.model_validate({"kl": {"weight": 1.0, "data": str(tmp_path / "none.jsonl")}})
    assert config.kl is not None
    with pytest.raises(DataError, match=r"^training\.kl\.data=.*none\.jsonl: cannot be read"):
        read_rows(config.kl)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"training\.kl: is computed in one process only"):
        require_one_process(config)
