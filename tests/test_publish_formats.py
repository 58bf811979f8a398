"""Every export has the fields that its reader documents, holds the rows that the run has, and is read back as them."""

import json
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import yaml

from recontext_data.core.errors import DataError
from recontext_data.publishing.formats.formats import FORMATS
from recontext_data.publishing.formats.jsonl import read_openai
from recontext_data.publishing.formats.pairs import pairs
from recontext_data.publishing.formats.trainers import template_of
from recontext_data.publishing.runs import open_run
from tests.helpers import error_line
from tests.publish_world import ARMS, make_run, publish, row

ARM = ARMS[0]


def scored_run(output: Path) -> Path:
    """A run of one arm that kept the best of three answers of each task; task 3's others tie, and task 4's have no score."""
    folder = make_run(output, arms=(ARM,), train=16)
    tables: dict[str, list[Any]] = {"candidates": [], "judgements": [], "selection": []}
    for number in range(20):
        for k in range(3):
            candidate_id = f"c{number:06}" if k == 0 else f"d{number:06}-{k}"
            score: float | None = 1.0 - k / 4
            if number == 3:
                score = 1.0
            elif number == 4 and k:
                score = None
            text = row(ARM, number)["completion"][0]["content"] if k == 0 else f"Worse {number}/{k}\nAnswer: (B)"
            tables["candidates"].append({"candidate_id": candidate_id, "task_id": f"t{number:06}", "completion": text})
            tables["judgements"].append({"candidate_id": candidate_id, "judge": "choice", "score": score})
            tables["selection"].append({"arm": ARM, "candidate_id": candidate_id, "kept": k == 0, "reason": "best"})
    for name, rows in tables.items():
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / f"{name}.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["select"]["keep"] = "best"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def export(output: Path, name: str, *words: str) -> Path:
    """Exports the run `small` and returns the folder."""
    assert publish("to=file", f"format={name}", "run=small", f"output={output}", *words) == 0
    return output / "runs" / "small" / "latest" / "exports" / name


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_openai_chat_has_messages_with_weights(tmp_path: Path) -> None:
    earlier = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    make_run(tmp_path, arms=(ARM,), bad={0: {"prompt": earlier}})
    first, second, *rest = lines(export(tmp_path, "openai") / f"{ARM}.train.jsonl")
    assert set(first) == {"messages"} and len(rest) == 18
    assert [turn.get("weight") for turn in first["messages"]] == [None, 0, None, 1]
    assert [turn["role"] for turn in second["messages"]] == ["system", "user", "assistant"]
    assert all(set(turn) <= {"role", "content", "weight"} for turn in first["messages"])


@pytest.mark.parametrize("name", ["openai", "together", "fireworks"])
def test_chat_files_are_read_back_as_the_rows_that_were_written(tmp_path: Path, name: str) -> None:
    make_run(tmp_path, arms=(ARM,))
    for split, start, end in (("train", 0, 20), ("validation", 20, 24)):
        found = list(read_openai(export(tmp_path, name) / f"{ARM}.{split}.jsonl"))
        rows = [row(ARM, i) for i in range(start, end)]
        assert [(one["prompt"], one["completion"]) for one in found] == [(one["prompt"], one["completion"]) for one in rows]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"messages": 3}', "is not a chat"),
        ("nonsense", "is not a chat"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "must end with an assistant turn"),
        (
            '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]}',
            "must end with an assistant turn that is trained on",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}]}',
            "trains on several turns",
        ),
    ],
)
def test_a_chat_that_is_none_is_named_by_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(DataError, match=f"mine.jsonl: line 2: .*{told}"):
        list(read_openai(path))


def test_preferences_are_kept_against_lower_scored_answers_under_the_training_prompt(tmp_path: Path) -> None:
    folder = scored_run(tmp_path)
    found = list(pairs(open_run(str(folder)), ARM, "train"))
    assert {pair.row_id.partition("+")[0] for pair in found} == {f"c{i:06}" for i in range(16) if i not in (3, 4)}
    for pair in found:
        number = int(pair.row_id[1:7])
        assert pair.prompt == row(ARM, number)["prompt"]
        assert pair.chosen == row(ARM, number)["completion"][0]["content"]
        assert pair.rejected.startswith(f"Worse {number}/")
    assert [pair.row_id for pair in pairs(open_run(str(folder)), ARM, "train")] == [pair.row_id for pair in found]


def test_kept_rows_without_a_pair_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored_run(tmp_path)
    export(tmp_path, "openai_preference")
    assert "14 pairs; 2 kept rows have no dropped answer with a lower score" in capsys.readouterr().out
    words = ("to=openai", "run=small", f"output={tmp_path}", "model=m", "job.method=dpo", "dry_run=true")
    assert publish(*words) == 0
    assert "2 kept rows have no dropped answer with a lower score" in capsys.readouterr().err


def test_preference_files_have_the_documented_fields(tmp_path: Path) -> None:
    scored_run(tmp_path)
    first = lines(export(tmp_path, "openai_preference") / f"{ARM}.train.jsonl")[0]
    assert set(first) == {"input", "preferred_output", "non_preferred_output"}
    assert set(first["input"]) == {"messages", "tools", "parallel_tool_calls"}
    for side in ("preferred_output", "non_preferred_output"):
        assert [set(turn) for turn in first[side]] == [{"role", "content"}] and first[side][0]["role"] == "assistant"


def test_where_nothing_was_dropped_for_being_worse_there_is_no_preference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    assert publish("to=file", "format=trl_preference", "run=small", f"output={tmp_path}") == 2
    assert "select.keep=all: nothing was dropped for being worse" in error_line(capsys.readouterr().err)


def test_answers_that_were_rewritten_are_not_set_against_those_that_were_not(tmp_path: Path) -> None:
    folder = scored_run(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["completion"] = {"reasoning": "drop"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"completion\.reasoning=drop: the kept answers were changed"):
        list(pairs(open_run(str(folder)), ARM, "train"))


def test_a_least_score_is_a_preference_too(tmp_path: Path) -> None:
    folder = scored_run(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["select"] |= {"keep": "all", "min_score": 0.9}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert len(list(pairs(open_run(str(folder)), ARM, "train"))) == 14


def test_sharegpt_has_conversations_and_marks_the_trained_turn(tmp_path: Path) -> None:
    make_run(tmp_path, arms=(ARM,))
    first = lines(export(tmp_path, "sharegpt") / f"{ARM}.train.jsonl")[0]
    assert set(first) == {"conversations"}
    assert [(turn["from"], turn["train"]) for turn in first["conversations"]] == [
        ("system", False), ("human", False), ("gpt", True),
    ]  # fmt: skip
    assert [turn["value"] for turn in first["conversations"]] == [
        turn["content"] for turn in [*row(ARM, 0)["prompt"], *row(ARM, 0)["completion"]]
    ]


def test_sharegpt_comes_with_a_config_for_each_trainer(tmp_path: Path) -> None:
    make_run(tmp_path)
    folder = export(tmp_path, "sharegpt")
    axolotl = yaml.safe_load((folder / f"{ARM}.axolotl.yaml").read_text())
    (data,) = axolotl["datasets"]
    assert (folder / data["path"]).is_file() and (folder / axolotl["test_datasets"][0]["path"]).is_file()
    assert data["type"] == "chat_template" and data["field_messages"] == "conversations"
    assert data["message_property_mappings"] == {"role": "from", "content": "value"}
    assert data["message_field_training"] == "train" and data["roles_to_train"] == []
    assert axolotl["adapter"] == "qlora" and axolotl["load_in_4bit"] is True
    assert axolotl["micro_batch_size"] * axolotl["gradient_accumulation_steps"] == 16

    factory = yaml.safe_load((folder / f"{ARM}.llamafactory.yaml").read_text())
    info = json.loads((folder / "dataset_info.json").read_text())
    assert len(info) == 6
    for name in (factory["dataset"], factory["eval_dataset"]):
        assert (folder / info[name]["file_name"]).is_file()
        assert info[name]["formatting"] == "sharegpt" and info[name]["columns"] == {"messages": "conversations"}
        tags = info[name]["tags"]
        assert (tags["role_tag"], tags["content_tag"], tags["system_tag"]) == ("from", "value", "system")
        assert (tags["user_tag"], tags["assistant_tag"]) == ("human", "gpt")
    assert factory["stage"] == "sft" and factory["mask_history"] is True and factory["template"] == "qwen"
    assert factory["finetuning_type"] == "lora" and factory["quantization_bit"] == 4


def test_alpaca_has_its_four_fields_and_no_text_of_its_own(tmp_path: Path) -> None:
    make_run(tmp_path, arms=(ARM,))
    folder = export(tmp_path, "alpaca", "base_model=meta-llama/Llama-3.1-8B-Instruct")
    first = lines(folder / f"{ARM}.train.jsonl")[0]
    prompt, completion = row(ARM, 0)["prompt"], row(ARM, 0)["completion"]
    assert first == {
        "instruction": prompt[1]["content"], "input": "", "output": completion[0]["content"], "system": prompt[0]["content"],
    }  # fmt: skip
    own = yaml.safe_load((folder / f"{ARM}.axolotl.yaml").read_text())["datasets"][0]["type"]
    assert own["no_input_format"].format(instruction="X") == "<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n"
    assert {own[f"field_{name}"] for name in ("system", "instruction", "input", "output")} == set(first)
    info = json.loads((folder / "dataset_info.json").read_text())[f"{ARM}.train"]
    assert info["columns"] == {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    factory = yaml.safe_load((folder / f"{ARM}.llamafactory.yaml").read_text())
    assert factory["model_name_or_path"] == "meta-llama/Llama-3.1-8B-Instruct" and factory["template"] == "llama3"


def test_alpaca_refuses_a_prompt_of_several_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    make_run(tmp_path, arms=(ARM,), bad={2: {"prompt": turns}})
    assert publish("to=file", "format=alpaca", "run=small", f"output={tmp_path}") == 2
    assert "row c000002 has a prompt of 3 turns" in error_line(capsys.readouterr().err)
    assert not list((tmp_path / "runs" / "small" / "latest" / "exports" / "alpaca").glob("*.jsonl"))


def test_tinker_has_messages_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path, arms=(ARM,))
    first = lines(export(tmp_path, "tinker") / f"{ARM}.train.jsonl")[0]
    assert first == {"messages": [*row(ARM, 0)["prompt"], *row(ARM, 0)["completion"]]}


def test_plain_parquet_has_every_column_as_it_was(tmp_path: Path) -> None:
    make_run(tmp_path, arms=(ARM,), train=3000)
    path = export(tmp_path, "parquet") / f"{ARM}.train.parquet"
    assert pl.read_parquet(path).to_dicts() == [row(ARM, i) for i in range(3000)]
    import pyarrow.parquet as pq

    assert pq.ParquetFile(path).num_row_groups == 3, "written in batches"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("trl", ["prompt", "completion"]),
        ("trl_messages", ["messages"]),
        ("trl_preference", ["prompt", "chosen", "rejected"]),
    ],
)
def test_trl_files_have_the_documented_columns(tmp_path: Path, name: str, fields: list[str]) -> None:
    scored_run(tmp_path)
    frame = pl.read_parquet(export(tmp_path, name) / f"{ARM}.train.parquet")
    assert frame.columns == fields
    assert all(set(turn) == {"role", "content"} for field in fields for turn in frame[field][0])


@pytest.mark.parametrize("name", ["trl", "trl_messages", "trl_preference"])
def test_trl_trains_a_step_on_what_was_exported(tmp_path: Path, name: str) -> None:
    pytest.importorskip("trl")
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from tests.training_world import make_model

    scored_run(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    data = load_dataset(
        "parquet", data_files=str(export(tmp_path, name) / f"{ARM}.train.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )
    common = {
        "output_dir": str(tmp_path / "out"), "max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True, "bf16": False,
        "report_to": "none", "save_strategy": "no", "learning_rate": 1e-2, "disable_tqdm": True,
    }  # fmt: skip
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    if name == "trl_preference":
        reference = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        trainer = DPOTrainer(model, reference, args=DPOConfig(**common), train_dataset=data, processing_class=tokenizer)
    else:
        trainer = SFTTrainer(model, args=SFTConfig(**common), train_dataset=data, processing_class=tokenizer)
    trainer.train()
    if name == "trl":
        labels = next(iter(trainer.get_train_dataloader()))["labels"]
        assert (labels == -100).any() and (labels != -100).any(), "the prompt is masked, the completion is not"
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert trainer.state.global_step == 1 and not torch.equal(before, after)


def test_a_dry_run_names_the_files_and_writes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path)
    assert publish("to=file", "format=trl", "run=small", f"output={tmp_path}", "dry_run=true") == 0
    assert capsys.readouterr().out.count("would write") == 6 and not (folder / "exports").exists()


def test_files_go_where_they_are_told_and_some_arms_are_enough(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert (
        publish(
            "to=file", "format=openai", "run=small", f"output={tmp_path}", f"folder={tmp_path}/mine", "arms=default -> hack"
        )
        == 0
    )
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [f"{ARM}.train.jsonl", f"{ARM}.validation.jsonl"]


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    scored_run(tmp_path)
    for name in FORMATS:
        first = {path.name: path.read_bytes() for path in export(tmp_path, name).iterdir()}
        assert first and {path.name: path.read_bytes() for path in export(tmp_path, name).iterdir()} == first


def test_templates_are_known_by_a_models_name() -> None:
    assert template_of("Qwen/Qwen2.5-7B-Instruct") == "qwen"
    assert template_of("google/gemma-3-4b-it") == "gemma3"
    assert template_of("mine") == "default"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["format=opneai"], "format=opneai: unknown format; did you mean 'openai'?"),
        ([], "format: missing"),
        (["format=openai", "arms=x"], "arms=x: the run has no such arm"),
        (["format=openai", "colour=red"], "colour: unknown key"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    make_run(tmp_path)
    assert publish("to=file", "run=small", f"output={tmp_path}", *words) == 2
    assert told in error_line(capsys.readouterr().err)
