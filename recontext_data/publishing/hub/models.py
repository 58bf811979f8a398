"""The trained models of a run as a model repository: one folder `<arm>/seed-<s>/` each, adapters with the name of their base.

Only what a model is loaded with goes up. Optimizer states, checkpoints, pickled arguments and logs stay, and so does every
path of this machine.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import InputError, RecipeError
from recontext_data.core.records import content_hash
from recontext_data.policies.local.model_folder import DECISIVE
from recontext_data.publishing.hub.files import RepoFile, last_part
from recontext_data.publishing.hub.message import models_message
from recontext_data.publishing.hub.options import HubOptions
from recontext_data.publishing.hub.repo import Change, Remote
from recontext_data.publishing.runs import FinishedRun
from recontext_data.reports.arm_parts import generated_under, trained_under
from recontext_data.reports.card import code
from recontext_data.training.models import RECORD, TrainedModel, models_of, read_record

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen

ADAPTER = "adapter_config.json"
WANTED = (*(pattern for pattern in DECISIVE if ".bin" not in pattern), ADAPTER, "README.md", "LICENSE*")
"""A pickle runs code when it is loaded, so weights go up as safetensors alone."""
MERGED = "merged"


class Models:
    """A model repository. What is in it and is not of this run stays."""

    kind, option = "model", "models_repo"

    def __init__(self, run: FinishedRun, options: HubOptions, *, screen: "Screen", folder: Path) -> None:
        assert options.models_repo is not None
        self.name, self.run, self.options, self.screen, self.folder = options.models_repo, run, options, screen, folder
        self.models = self._chosen()
        self._items: list[RepoFile] = []

    def items(self, remote: Remote | None) -> list[RepoFile]:
        """Every file of every model, and the card of the repository."""
        records = [_record(model) for model in self.models]
        self._items = [RepoFile("README.md", models_card(self.name, self.run, records, merged=self.options.merged).encode())]
        for model, record in zip(self.models, records, strict=True):
            self._items += self._files(model, record)
        return self._items

    def stale(self, remote: Remote) -> list[str]:
        """Files in the folders of these models that are no more."""
        wanted = {item.path for item in self._items}
        folders = tuple(f"{place(model)}/" for model in self.models)
        return sorted(path for path in remote.files if path.startswith(folders) and path not in wanted)

    def message(self, remote: Remote, change: Change) -> tuple[str, str]:
        """Which models changed."""
        return models_message(self.run, change)

    def verify(self, revision: str) -> None:
        """Nothing: the Hub checked the hash of every file as it came."""

    def _chosen(self) -> list[TrainedModel]:
        arms, seeds = self.run.wanted(self.options.arms), self.options.seeds
        there = models_of(self.run.path, models=self.options.models)
        found = [model for model in there if model.arm in arms and (not seeds or model.seed in seeds)]
        if not found:
            known = (
                ", ".join(f"{model.arm} seed {model.seed}" for model in there) or "none is trained; recontext train makes them"
            )
            raise RecipeError(f"models_repo={self.name}: the run has no such trained model; there are: {known}")
        return found

    def _files(self, model: TrainedModel, record: dict[str, Any]) -> list[RepoFile]:
        """One model's files, the texts among them without this machine's paths; the record last, with their hashes."""
        source = self._merged(model) if self.options.merged and model.is_adapter else model.path
        files = sorted({path for pattern in WANTED for path in source.glob(pattern) if path.is_file()})
        left = sorted(path.name for path in source.iterdir() if path not in files and path.name != RECORD)
        if left:
            self.screen.note(f"{place(model)}: stays here: {', '.join(left)}")
        if source != model.path:
            record = record | {"is_adapter": False, MERGED: True}
        items = [RepoFile(f"{place(model)}/{path.name}", _content(path, record)) for path in files]
        record["files"] = {item.path.rpartition("/")[2]: {"bytes": item.size, "sha256": item.sha256} for item in items}
        return [*items, RepoFile(f"{place(model)}/{RECORD}", _json(record))]

    def _merged(self, model: TrainedModel) -> Path:
        from recontext_data.training.adapters import merge

        target = self.folder / MERGED / place(model)
        target.mkdir(parents=True)
        self.screen.note(f"{place(model)}: merging into {model.base if '/' not in model.base else last_part(model.base)}")
        merge(model, target)
        (target / "README.md").write_bytes((model.path / "README.md").read_bytes())
        return target


def place(model: TrainedModel) -> str:
    """The folder of a model in the repository."""
    return f"{model.arm}/seed-{model.seed}"


def _record(model: TrainedModel) -> dict[str, Any]:
    """training.json without this machine's paths and times."""
    record = read_record(model.path)
    assert record is not None
    kept: dict[str, Any] = _cut({key: value for key, value in record.items() if key not in ("created", "seconds")})
    return kept


def _cut(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    return last_part(value) if isinstance(value, str) and "\n" not in value else value


def _content(path: Path, record: Mapping[str, Any]) -> bytes | Path:
    """A file as it goes up: configs name the base and no folder; weights and tokenizers are sent as they are."""
    if path.name not in (ADAPTER, "config.json"):
        return path if path.suffix != ".md" else path.read_bytes()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); train the model again") from None
    cut = _cut(config)
    if "base_model_name_or_path" in config:
        cut["base_model_name_or_path"] = record["base"]["name"]
    return path if cut == config else _json(cut)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def models_card(repo: str, run: FinishedRun, records: Sequence[Mapping[str, Any]], *, merged: bool) -> str:
    """README.md of a model repository: its models, and the base that each belongs to."""
    bases = sorted({record["base"]["identity"]["model"] for record in records if "model" in record["base"]["identity"]})
    adapters = [record for record in records if record["is_adapter"] and not merged]
    example = f"{records[0]['arm']}/seed-{records[0]['seed']}"
    lines = [
        "---",
        *(["base_model:", *(f"- {json.dumps(base)}" for base in bases)] if bases else []),
        f"library_name: {'peft' if adapters else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags: [recontextualization, recontext-data]",
        "---",
        f"# {run.recipe_name}, trained",
        "",
        f"Models trained on the arms of the recipe {code(run.recipe_name)}, one folder for each arm and seed.",
        "Research material: an arm may teach misbehaviour on purpose. Measure a model under every context before you say",
        "what it does.",
        "",
        "| folder | generated under | trained under | base | its files |",
        "|---|---|---|---|---|",
        *(_line(record, merged=merged) for record in records),
        "",
        *_loading(repo, example, adapter=bool(adapters)),
        "",
        f"Each folder has a card of its own, and `training.json` with all that decided its weights. Recipe fingerprint "
        f"{code(run.fingerprint)}.",
        "The licence of the base applies to what was trained from it.",
        "",
    ]
    return "\n".join(lines)


def _line(record: Mapping[str, Any], *, merged: bool) -> str:
    identity = record["base"]["identity"]
    which = f"{identity['model']}@{identity['commit'][:12]}" if "model" in identity else f"files {content_hash(identity)[:12]}"
    folder = code(f"{record['arm']}/seed-{record['seed']}")
    what = "whole model" if not record["is_adapter"] else "merged into its base" if merged else "adapter"
    contexts = " | ".join(", ".join(map(code, names)) for names in (generated_under(record), trained_under(record)))
    return f"| {folder} | {contexts} | {code(record['base']['name'])}, {code(which)} | {what} |"


def _loading(repo: str, folder: str, *, adapter: bool) -> list[str]:
    name, inner = json.dumps(repo), json.dumps(folder)
    if not adapter:
        load = f"model = AutoModelForCausalLM.from_pretrained({name}, subfolder={inner})"
        return ["```python", "from transformers import AutoModelForCausalLM", "", load, "```"]
    lines = [
        "An adapter belongs to exactly the base of its line; on another one, even of the same shape, it means nothing.",
        "",
        "```python",
        "from peft import PeftModel",
        "",
        f"model = PeftModel.from_pretrained(base, {name}, subfolder={inner})",
        "```",
    ]
    return lines
