"""Bad input to training, each in one line; which tokens are trained; and the verb on a small recipe."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recontext_data import train as verb
from recontext_data.config.training import Training
from recontext_data.core.errors import InputError, RecontextError
from recontext_data.training.rows import TokenizedRow, training_order
from tests.helpers import ROOT, environment, error_line, files_below, run_folder, write_recipe

pytest.importorskip("trl", reason="training needs the extra `local`")

import torch

from recontext_data.reports.screen import Screen
from recontext_data.training.base import base_from
from recontext_data.training.models import models_of
from recontext_data.training.rows import IGNORED, encode_rows, end_token
from recontext_data.training.sft import train
from recontext_data.training.sharing import helped
from tests.training_world import TEMPLATE, make_arm, make_job, make_model, rows


def refused(tmp_path: Path, **config: Any) -> str:
    """What a training says that must not start; nothing of a model may be left."""
    job = make_job(tmp_path, **config)
    with pytest.raises(RecontextError) as error:
        train(job, screen=Screen(), show=False)
    assert not job.target.exists()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_loss_falls_on_the_completion_and_its_end_token_and_not_on_the_newline_after_it(tmp_path: Path) -> None:
    tokenizer = base_from(str(make_model(tmp_path / "model"))).tokenizer()
    end = end_token(tokenizer, ends={2})
    (row,), drops = encode_rows(tokenizer, rows(1), end=end)
    assert not drops and tokenizer.decode(row.completion) == "Code: return a + b\nAnswer: (A)<|im_end|>"
    assert tokenizer.decode(row.prompt).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert row.labels == [IGNORED] * len(row.prompt) + row.completion and row.labels[-1] == end == 2


def test_a_template_that_adds_to_a_finished_turn_adds_nothing_to_what_is_trained(tmp_path: Path) -> None:
    thinking = TEMPLATE.replace(
        "'\\n' + message['content']",
        "'\\n' + ('<think></think>' if message['role'] == 'assistant' else '') + message['content']",
    )
    assert thinking != TEMPLATE
    tokenizer = base_from(str(make_model(tmp_path / "model", template=thinking))).tokenizer()
    (row,), _ = encode_rows(tokenizer, rows(1), end=end_token(tokenizer, ends={2}))
    assert tokenizer.decode(row.completion) == "Code: return a + b\nAnswer: (A)<|im_end|>"


def test_a_turn_that_ends_in_another_token_than_sampling_does(tmp_path: Path) -> None:
    make_model(tmp_path / "model", template=TEMPLATE.replace("<|im_end|>", "<|im_start|>"))
    assert "ends a turn with '<|im_start|>\\n', and sampling ends at '<|im_end|>'" in refused(tmp_path)


def test_rows_with_the_end_token_or_nothing_in_the_completion_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = rows(20)
    bad[3]["completion"][0]["content"] = "Code <|im_end|> more"
    bad[5]["completion"][0]["content"] = ""
    bad[7]["finish_reason"] = "length"
    make_arm(tmp_path / "arm", train=bad)
    record = train(make_job(tmp_path), screen=Screen())
    assert record is not None
    assert record["dataset"]["dropped"] == {"the completion holds the end token": 1, "the completion is empty": 1}
    assert record["dataset"]["rows"]["train"] == 18 and record["dataset"]["cut_at_max_tokens"] == 1
    said = capsys.readouterr().err
    assert "1 rows left out: the completion is empty" in said and "1 completions were cut at max_tokens" in said
    assert "masked" in said and "trained  Code: return a + b⏎Answer: (A)<|im_end|>" in said
    assert "it/s]" not in said.partition("three rows")[2] and "Warning" not in said


def test_a_dataset_without_the_columns(tmp_path: Path) -> None:
    make_arm(tmp_path / "arm", train=[{"text": "a"}])
    assert "train: has no column 'prompt' (it has text)" in refused(tmp_path)


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "arm").mkdir()
    assert "is not a dataset that `recontext build` wrote" in refused(tmp_path)


@pytest.mark.parametrize("vocabulary", [270, 600])
def test_a_tokenizer_of_another_model(tmp_path: Path, vocabulary: int) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_bytes(
        (make_model(tmp_path / "other", vocabulary=vocabulary) / "tokenizer.json").read_bytes()
    )
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    import safetensors.torch

    path = tmp_path / "model" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    size = 400 if vocabulary == 270 else 100
    weights["model.embed_tokens.weight"] = torch.zeros(size, 32)
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
    assert f"tokens and the model {size}: they are not of one model" in refused(tmp_path)


def test_a_row_longer_than_the_model(tmp_path: Path) -> None:
    make_model(tmp_path / "model", window=64)
    said = refused(tmp_path)
    assert (
        "rows are longer than the model's window of 64 tokens" in said
        and "set training.max_length=64 to leave them out" in said
    )
    assert "training.max_length=100: the model's window is 64" in refused(tmp_path, max_length=100)


def test_longer_rows_are_left_out_whole_and_none_left_is_an_error(tmp_path: Path) -> None:
    lengths = sorted(
        len(row) for row in encode_rows(base_from(str(make_model(tmp_path / "model"))).tokenizer(), rows(64), end=2)[0]
    )
    job = make_job(tmp_path, max_length=lengths[32])
    record = train(job, screen=Screen(), show=False)
    assert record is not None
    left_out = sum(length > lengths[32] for length in lengths)
    assert record["dataset"]["rows"]["train"] == 64 - left_out
    assert record["dataset"]["dropped"][f"longer than training.max_length={lengths[32]}"] >= left_out > 0
    assert "no token is left to train on: 64 rows left out" in refused(tmp_path / "other", max_length=4)


def test_a_tokenizer_that_transformers_rebuilds_differently_is_found_out(tmp_path: Path) -> None:
    """A folder whose config says qwen2 gets qwen2's way of cutting text, whatever tokenizer.json says."""
    from recontext_data.training.base import Base, check_prompts

    made = base_from(str(make_model(tmp_path / "model")))
    base = Base(source=made.source, folder=made.folder, sampled_by_numpy=True)
    messages = rows(1)[0]["prompt"]
    right = encode_rows(base.tokenizer(), rows(1), end=2)[0][0].prompt
    check_prompts(base, base.tokenizer(), [(messages, right)])
    with pytest.raises(InputError, match=r"trained with other tokens than it is sampled with, from token 5 on"):
        check_prompts(base, base.tokenizer(), [(messages, [*right[:5], 9, *right[5:]])])


def test_the_order_belongs_to_the_seed_and_the_ids_and_every_epoch_has_every_row_once() -> None:
    made = [TokenizedRow(f"c{i}", [1] * (i % 50 + 1), [2]) for i in range(100)]
    first = training_order(made, epochs=3, batch_size=8, seed=0)
    assert first == training_order(made, epochs=3, batch_size=8, seed=0) != training_order(made, epochs=3, batch_size=8, seed=1)
    assert all(sorted(first[at : at + 100]) == list(range(100)) for at in (0, 100, 200))
    assert first[:100] != first[100:200]
    spread = [max(lengths) - min(lengths) for at in range(0, 96, 8) if (lengths := [len(made[i]) for i in first[at : at + 8]])]
    assert sum(spread) / len(spread) < 12  # 40 or so in an order that ignores length


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"seeds": [1, 1]}, "training.seeds"),
        ({"seeds": [-1]}, "training.seeds"),
        ({"micro_batch_size": 3}, "does not divide training.batch_size 16"),
        ({"method": "dora"}, "method"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"lora": {"rnak": 3}}, "rnak"),
    ],
)
def test_values_that_will_not_do(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Training.model_validate(tree)


def run_verb(*words: str) -> int:
    return verb.main(list(words))


def refused_by_verb(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_verb(*words) == 2
    return error_line("\n".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")))


def test_the_verb_builds_trains_each_arm_and_seed_and_then_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tmp_path / "model", window=1024)
    recipe = write_recipe(tmp_path, training={"base": str(model), "learning_rate": 1e-2})
    words = (f"recipe={recipe}", f"output={tmp_path}", "seeds=0,4")
    assert run_verb(*words) == 0
    shown = capsys.readouterr()
    assert "the datasets are not built yet; building them first" in shown.err
    run = run_folder(tmp_path)
    expected = [(arm, seed) for arm in ("recontextualized.default-hack", "standard.default-default") for seed in (0, 4)]
    assert [(model.arm, model.seed) for model in models_of(run)] == expected
    assert [line.split()[:4] for line in shown.out.splitlines() if line.startswith("default -> hack")] == [
        ["default", "->", "hack", seed] for seed in ("0", "4")
    ]
    assert shown.err.count("three rows as they are trained") == 2
    before = files_below(run)
    assert run_verb(*words) == 0
    assert "4 of 4 models were there already" in capsys.readouterr().err and files_below(run) == before
    assert run_verb(*words, "arms=default->hack", "models=other", "training.learning_rate=0.001") == 0
    assert [(model.arm, model.seed) for model in models_of(run, models="other")] == expected[:2]
    capsys.readouterr()
    assert "no such arm; did you mean 'default -> hack'? (to declare others" in refused_by_verb(
        capsys, *words, "arms=default -> hacks"
    )
    said = refused_by_verb(capsys, *words, "training.extra={warmup_step: 3}")
    assert said == "error: training.extra.warmup_step: TRL's SFTConfig has no such field; did you mean 'warmup_steps'?"
    assert "has a field of its own; set training.learning_rate" in refused_by_verb(
        capsys, *words, "training.extra={learning_rate: 3}"
    )
    assert "is decided by checkpoints here" in refused_by_verb(capsys, *words, "training.extra={output_dir: x}")
    if find_spec("wandb") is None:
        assert "report_to=wandb: is not installed" in refused_by_verb(capsys, *words, "training.extra={report_to: wandb}")
    if not torch.cuda.is_available():
        assert "needs a CUDA GPU" in refused_by_verb(capsys, *words, "training.extra={packing: true}")


def test_a_wrong_extra_is_refused_before_anything_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (f"recipe={write_recipe(tmp_path)}", f"output={tmp_path / 'out'}", "training.extra={warmup_step: 3}")
    for more in ((), ("dry_run=true",)):
        assert "training.extra.warmup_step" in refused_by_verb(capsys, *words, *more)
    assert not (tmp_path / "out").exists()


def test_workers_share_the_models_and_a_failing_one_is_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    model = make_model(tmp_path / "model", window=1024)
    recipe = write_recipe(tmp_path, training={"base": str(model)})
    words = (f"recipe={recipe}", f"output={tmp_path}", "seeds=0-4")
    assert run_verb(*words, "workers=2") == 0
    found = models_of(run_folder(tmp_path))
    assert [model.seed for model in found] == [*range(5), *range(5)]
    assert capsys.readouterr().out.count("default -> hack") == 5
    with (
        pytest.raises(RecontextError, match="one of 2 failed: recipe=nowhere: no recipe has that name"),
        helped(["recipe=nowhere"], workers=2),
    ):
        pass


def test_words_of_the_verb_that_will_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path)
    words = (f"recipe={recipe}", f"output={tmp_path}")
    assert "seeds=one: must be integers" in refused_by_verb(capsys, *words, "seeds=one")
    assert "workers=0: must be an integer from 1 to 64" in refused_by_verb(capsys, *words, "workers=0")
    assert "models=../x: becomes a folder" in refused_by_verb(capsys, *words, "models=../x")
    assert "training.seeds=[1, 1]: must " in refused_by_verb(capsys, *words, "seeds=1,1")
    assert "training.methd: unknown key; did you mean 'method'?" in refused_by_verb(capsys, *words, "training.methd=full")
    assert "policy.kind=fake: cannot be trained here; set training.base" in refused_by_verb(capsys, *words)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """A process in which trl cannot be found, as where `local` is not installed."""
    recipe = write_recipe(tmp_path)
    code = (
        "import sys; from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return None if name == 'trl' else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]\n"
        "from recontext_data import train; sys.exit(train.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, f"recipe={recipe}", f"output={tmp_path / 'out'}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60, check=False)
    assert done.returncode == 2
    assert error_line(done.stderr) == "error: training.method=full needs trl: pip install 'recontext_data[local]'"
    assert not (tmp_path / "out").exists()


def test_the_launcher_s_configs_are_ones_that_accelerate_reads() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    folder = ROOT / "recontext_data" / "training" / "accelerate"
    fsdp, zero = (load_config_from_file(str(folder / name)) for name in ("fsdp.yaml", "deepspeed_zero3.yaml"))
    assert fsdp.distributed_type == "FSDP" and fsdp.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert zero.distributed_type == "DEEPSPEED" and zero.deepspeed_config["zero3_save_16bit_model"] is True


def test_the_verb_starts_light() -> None:
    code = "import sys, recontext_data.train; print({'torch', 'transformers', 'trl', 'peft', 'datasets'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"
