"""`recontext publish to=file format=FORMAT run=RUN`: files that trainers read, one for every arm and split.

They go to <run>/exports/<format>/<arm>.<split>.<jsonl|parquet>. Rows stream, and a file is there whole or not at all.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from recontext_data.config.training import Training
from recontext_data.core.config import Config
from recontext_data.core.errors import DataError, RecipeError, did_you_mean
from recontext_data.publishing.formats.formats import FORMATS, Format

if TYPE_CHECKING:
    import pyarrow as pa

    from recontext_data.publishing.runs import FinishedRun

WITH_CONFIGS = ("sharegpt", "alpaca")
DEFAULT_BASE = "Qwen/Qwen2.5-7B-Instruct"
QLORA_RATE = 1e-4


class ExportOptions(Config):
    """What `to=file` takes."""

    format: str
    """openai, openai_preference, trl, trl_messages, trl_preference, sharegpt, alpaca, together, fireworks, tinker, parquet."""
    arms: list[str] = Field(default=[])
    """Some of the arms, by name or pair, with commas; all unless set."""
    folder: str | None = None
    """Where the files go; exports/<format> in the run's folder unless set."""
    base_model: str | None = None
    """The model in the YAML of sharegpt and alpaca; the recipe's own unless set, else Qwen/Qwen2.5-7B-Instruct."""
    dry_run: bool = False
    """Say what would be written, and write nothing."""

    @model_validator(mode="after")
    def _known(self) -> "ExportOptions":
        if self.format not in FORMATS:
            raise ValueError(f"format={self.format}: unknown format; {did_you_mean(self.format, FORMATS)}")
        return self


OPTIONS = ExportOptions


def publish(run: "FinishedRun", options: ExportOptions, *, output: Path = Path()) -> int:
    """Writes the files and prints where they are.

    Raises:
        RecontextError: of any kind; files that are written stay, none is half.
    """
    arms, format = run.wanted(options.arms), FORMATS[options.format]
    folder = Path(options.folder).expanduser() if options.folder else run.path / "exports" / format.name
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"folder={options.folder}: is a file; give a folder")
    if options.dry_run:
        for arm in arms:
            for split in run.splits(arm):
                print(f"would write {folder / file_name(arm, split, format)} from {run.num_rows(arm, split):,} rows")
        return 0
    files: dict[tuple[str, str], Path] = {}
    for arm in arms:
        for split in run.splits(arm):
            path = folder / file_name(arm, split, format)
            count = write(run, arm, split, format=format, path=path)
            left = run.num_rows(arm, split) - count
            print(f"{path}  {count:,} {format.source}{f'; {unpaired(left)}' if left else ''}")
            if count:
                files[arm, split] = path
    if format.name in WITH_CONFIGS:
        _configs(run, folder, format, files, options.base_model)
    return 0


def file_name(arm: str, split: str, format: Format) -> str:
    """`<arm>.<split>.<suffix>`"""
    return f"{arm}.{split}.{format.suffix}"


def unpaired(count: int) -> str:
    """What became of kept rows that are in no pair."""
    return f"{count:,} kept rows have no dropped answer with a lower score"


def write(run: "FinishedRun", arm: str, split: str, *, format: Format, path: Path) -> int:
    """Writes one split of an arm in a format; returns how many rows or pairs.

    Raises:
        DataError: a row does not fit the format, or a train split has no pair.
    """
    from recontext_data.publishing.formats.jsonl import write_lines, write_parquet

    rows = (format.convert(row) for row in source(run, arm, split, format=format))
    count = write_lines(path, rows) if format.suffix == "jsonl" else write_parquet(path, rows, schema=schema(format))
    if not count:
        path.unlink()
    if not count and split == "train":
        raise DataError(f"{arm}: no {format.source} to write; every dropped answer ties with the kept one or has no score")
    return count


def source(run: "FinishedRun", arm: str, split: str, *, format: Format) -> Iterator[Mapping[str, Any]]:
    """The rows, or the pairs as rows, of one split."""
    if format.source == "rows":
        yield from run.rows(arm, split)
        return
    from recontext_data.publishing.formats.pairs import pairs

    for pair in pairs(run, arm, split):
        yield pair.as_row()


def schema(format: Format) -> "pa.Schema":
    """The columns of a Parquet format."""
    import pyarrow as pa

    from recontext_data.core.tables import TRAINING_ROWS, arrow_schema

    rows = arrow_schema(TRAINING_ROWS)
    if not format.fields:
        return rows
    return pa.schema([pa.field(name, rows.field("prompt").type) for name in format.fields])


def _configs(run: "FinishedRun", folder: Path, format: Format, files: Mapping[tuple[str, str], Path], base: str | None) -> None:
    from recontext_data.publishing.formats.trainers import base_of, trained_splits, write_configs, write_dataset_info

    # An older run's recipe may lack a setting that was added since.
    training = Training().model_dump(mode="json") | run.manifest["recipe"].get("training", {})
    if training["method"] == "full" and training["base"] is None:
        # Settings for the embedded policy, which is a thousand times smaller than what these trainers are for.
        training |= {"method": "qlora", "learning_rate": QLORA_RATE}
    training["base"] = base_of(run.manifest, base, default=DEFAULT_BASE)
    print(write_dataset_info(folder, format=format.name, files=files))
    for arm in dict.fromkeys(arm for arm, _ in files):
        own = trained_splits(files, arm)
        for path in write_configs(folder, arm, format=format.name, files=own, training=training):
            print(path)
