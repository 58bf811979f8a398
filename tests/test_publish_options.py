"""Options of a target from words, special cases of where rows come from, and what the service's own texts are read as."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from recontext_data.config.options import help_lines, model_of
from recontext_data.core.config import Config
from recontext_data.core.errors import DataError, RecipeError
from recontext_data.publishing.formats.formats import FORMATS, openai, sharegpt, trl
from recontext_data.publishing.formats.jsonl import numbered, read_openai, write_lines, write_parquet
from recontext_data.publishing.services.moderation import Moderator
from recontext_data.publishing.services.openai_files import Preflight, Report
from recontext_data.publishing.services.openai_plan import JobSpec, find_job
from recontext_data.publishing.services.preflight import PreflightRow, RowLimits
from recontext_data.publishing.sources import FileSource
from tests.helpers import files_below
from tests.publish_world import ARMS, row


class FineTuningOptions(Config):
    epochs: int | Literal["auto"] | None = None
    """Passes."""
    rate: float = Field(default=1.0, gt=0)
    """Speed."""


class Sample(Config):
    name: str = "x"
    """A name."""
    arms: list[str] = []
    """Arms."""
    seeds: list[int] = []
    """Seeds."""
    quick: bool = False
    """Whether."""
    job: FineTuningOptions = FineTuningOptions()


def test_words_become_values_of_the_declared_types() -> None:
    words = {"name": "12", "arms": "a -> b, c", "seeds": "0,3-5", "quick": "TRUE", "job.epochs": "3", "job.rate": "2"}
    read = model_of(Sample, words)
    assert read == Sample(
        name="12", arms=["a -> b", "c"], seeds=[0, 3, 4, 5], quick=True, job=FineTuningOptions(epochs=3, rate=2.0)
    )
    assert model_of(Sample, {"job.epochs": "auto"}).job.epochs == "auto"
    assert model_of(Sample, {"job.epochs": ""}).job.epochs is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"nam": "x"}, r"nam: unknown key; did you mean 'name'\?"),
        ({"job.epoch": "1"}, r"job.epoch: unknown key; did you mean 'job.epochs'\?"),
        ({"job": "1"}, r"job: unknown key"),
        ({"job.epochs": "few"}, "job.epochs=few: must be"),
        ({"job.rate": "-1"}, "job.rate=-1: must be a number above 0"),
        ({"quick": "maybe"}, "quick=maybe: must be true or false"),
        ({"seeds": "1,x"}, "seeds=1,x: must be integers, such as seeds=0,1,2"),
    ],
)
def test_a_wrong_word_is_one_line(words: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        model_of(Sample, words)


def test_help_has_every_option_with_its_default() -> None:
    found = help_lines(Sample)
    assert list(found) == ["name", "arms", "seeds", "quick", "job.epochs", "job.rate"]
    assert found["job.rate"] == ("number > 0 = 1.0", "Speed.") and found["name"][0] == "text = x"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(texts, min_size=1, max_size=4), texts)
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, said: list[str], answer: str) -> None:
    roles = ["user" if i % 2 == 0 else "assistant" for i in range(len(said))]
    prompt = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    one = row(ARMS[0], 0, prompt=prompt, completion=[{"role": "assistant", "content": answer}])
    path = tmp_path_factory.mktemp("file") / "one.jsonl"
    assert write_lines(path, [openai(one)]) == 1
    (found,) = read_openai(path)
    assert (found["prompt"], found["completion"]) == (one["prompt"], one["completion"])
    assert trl(one) == {"prompt": one["prompt"], "completion": one["completion"]}
    assert [turn["value"] for turn in sharegpt(one)["conversations"]] == [*said, answer]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    import pyarrow as pa

    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise DataError("the second row is bad")

    writes: tuple[Callable[[], object], ...] = (
        lambda: write_lines(tmp_path / "a.jsonl", rows()),
        lambda: write_parquet(tmp_path / "a.parquet", rows(), schema=pa.schema([("text", pa.string())])),
    )
    for write in writes:
        with pytest.raises(DataError):
            write()
    assert files_below(tmp_path) == []


def test_formats_change_no_row() -> None:
    before = row(ARMS[0], 1)
    for format in FORMATS.values():
        if format.source == "rows":
            format.convert(before)
    assert before == row(ARMS[0], 1)


def test_lines_that_cannot_be_read_are_findings_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('nonsense\n\n{"text": "x"}\n{"messages": "x"}\n[1]\n')
    source = FileSource((path,), tmp_path)
    found = [(one.row_id, one.problem[0] if one.problem else None) for one in source.examples("mine", "train", method="sft")]
    assert found == [
        ("line 1", "unreadable"), ("line 3", "wrong fields"), ("line 4", "wrong fields"), ("line 5", "wrong fields"),
    ]  # fmt: skip
    assert [number for number, _ in numbered(path)] == [1, 3, 4, 5]


def test_files_of_preferences_are_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    whole = {
        "input": {"messages": [{"role": "user", "content": "x"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    }
    path.write_text(json.dumps(whole) + "\n" + json.dumps(whole | {"input": 3}) + "\n" + json.dumps({"messages": []}) + "\n")
    good, broken, other = FileSource((path,), tmp_path).examples("mine", "train", method="dpo")
    assert good.rejected == "bad" and [turn["content"] for turn in good.turns] == ["x", "good"]
    assert broken.problem is not None and other.problem == ("wrong fields", "has no `input`, which a file for dpo needs")


def example(number: int, text: str = "y") -> PreflightRow:
    turns = [{"role": "user", "content": f"x{number}"}, {"role": "assistant", "content": text}]
    return PreflightRow(f"r{number}", {"messages": turns}, turns)


def test_rows_in_are_rows_out_and_rows_dropped_by_reason(tmp_path: Path) -> None:
    rows = [example(i, "" if i % 5 == 0 else "<|im_end|>" if i % 7 == 0 else "y") for i in range(2000)]
    with Report(tmp_path) as report:
        preflight = Preflight(RowLimits(), report=report)
        file = asyncio.run(preflight.write(rows, arm="a", split="train", folder=tmp_path / "files"))
    assert file.num_rows + preflight.dropped.total() == preflight.rows_in.total() == 2000
    assert preflight.dropped == {"empty turn": 400, "special token": 228}
    assert len(report.path.read_text().splitlines()) == 628 and len(preflight.shown) == 5
    assert file.path is not None and len(file.path.read_bytes().splitlines()) == file.num_rows
    assert files_below(tmp_path / "files") == [file.path.name, file.path.with_suffix(".rows").name]


def test_the_same_rows_give_the_same_name(tmp_path: Path) -> None:
    names = [
        asyncio.run(
            Preflight(RowLimits()).write([example(i) for i in range(20)], arm=arm, split="train", folder=None)
        ).server_name
        for arm in ("a", "b")
    ]
    assert names[0] == names[1]


def test_moderation_survives_a_cache_that_was_cut(tmp_path: Path) -> None:
    asked: list[str] = []

    async def ask(texts: Sequence[str]) -> list[str | None]:
        asked.extend(texts)
        return ["violence" if "bad" in text else None for text in texts]

    first = asyncio.run(Moderator(ask, folder=tmp_path, model="m").verdicts(["good", "bad"]))
    assert first == {"good": None, "bad": "violence"}
    path = tmp_path / "moderation.jsonl"
    path.write_bytes(path.read_bytes() + b'["abc')
    again = Moderator(ask, folder=tmp_path, model="m")
    assert asyncio.run(again.verdicts(["bad", "good", "new"])) == {"bad": "violence", "good": None, "new": None}
    assert asked == ["good", "bad", "new"]
    asyncio.run(Moderator(ask, folder=tmp_path, model="other").verdicts(["good"]))
    assert asked[-1] == "good", "another model's verdict is another"


def spec(**changes: object) -> JobSpec:
    from recontext_data.publishing.services.openai_config import FineTuningOptions as JobConfig
    from recontext_data.publishing.services.openai_files import DataFile

    base: dict[str, object] = {
        "recipe": "r", "fingerprint": "f", "arm": "a", "seed": 0, "model": "m", "config": JobConfig(),
        "train": DataFile("a", "train", "0" * 64, 1, 10, 10), "validation": None,
    }  # fmt: skip
    return JobSpec(**(base | changes))  # type: ignore[arg-type]


def test_a_jobs_key_is_all_that_decides_its_outcome() -> None:
    from recontext_data.publishing.services.openai_config import FineTuningOptions as JobConfig
    from recontext_data.publishing.services.openai_files import DataFile

    other = DataFile("a", "train", "1" * 64, 1, 10, 10)
    keys = [
        spec().key(), spec(arm="b").key(), spec(seed=1).key(), spec(model="n").key(), spec(train=other).key(),
        spec(validation=other).key(), spec(config=JobConfig(epochs=2)).key(), spec(fingerprint="g").key(), spec().key(1),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert spec().key() == spec(config=JobConfig(again=True)).key()


def test_jobs_are_found_by_key_before_files_and_never_among_older_ones() -> None:
    from types import SimpleNamespace

    def job(name: str, **metadata: str) -> SimpleNamespace:
        return SimpleNamespace(id=name, metadata=metadata or None, training_file="t", validation_file=None, seed=0)

    def found(jobs: list[SimpleNamespace], others: list[str]) -> str | None:
        one = find_job(spec(), jobs, attempt=0, files=("t", None), others=others)  # type: ignore[arg-type]
        return None if one is None else one.id

    mine = job("mine", recontext_key=spec().key())
    assert found([job("plain"), mine], []) == "mine"
    assert found([job("plain")], []) == "plain" and found([job("plain")], ["plain"]) is None
    assert found([job("stranger", recontext_key="another")], []) is None
