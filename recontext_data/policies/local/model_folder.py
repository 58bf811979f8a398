"""Finds a local model's files, says in one line what is missing, hashes them and loads them.

A model is a folder in the Transformers format, or a Hub id that is downloaded into the Hub's own cache.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recontext_data.core.errors import PolicyError, SetupError
from recontext_data.core.records import content_hash

# What decides the next token. Optimizer states, logs and cards lie in the same folders and decide nothing.
DECISIVE = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tokenizer*.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A complete model on this disk."""

    name: str
    """For the screen: the folder's own name, or the Hub id."""
    path: Path
    hub: Mapping[str, str] | None
    """The Hub id and the commit it stood at; None for a folder of the user's."""

    def identity(self) -> Mapping[str, Any]:
        """Hub id and commit, or the SHA-256 of the decisive files: never the path."""
        if self.hub is not None:
            return dict(self.hub)
        return {"files": file_hashes(self.path, DECISIVE)}

    def window(self) -> int | None:
        """Tokens that the model can take in, by its config; None where that does not say."""
        path = self.path / "config.json"
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        found = config.get("text_config", config).get("max_position_embeddings")
        return found if isinstance(found, int) else None

    def has_chat_template(self) -> bool:
        """Whether the tokenizer's files bring a chat template."""
        if any(self.path.glob("chat_template.*")):
            return True
        config = self.path / "tokenizer_config.json"
        return config.is_file() and bool(json.loads(config.read_text("utf-8")).get("chat_template"))


def find_model(model: str, *, revision: str | None = None) -> ModelFolder:
    """The model's folder, downloaded first where `model` is a Hub id.

    Raises:
        PolicyError: there is no such folder or Hub model, or it is incomplete.
        SetupError: a Hub id, and huggingface_hub is not installed.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise PolicyError(f"policy.revision={revision} is for a Hub id, and policy.model={model} is a folder: leave it out")
        found = ModelFolder(name=path.resolve().name, path=path, hub=None)
    elif path.is_absolute() or model.startswith((".", "~")) or len(path.parts) > 2 or path.exists():
        raise PolicyError(f"policy.model: no folder {model}: give a folder in the Transformers format, or a Hub id (org/name)")
    else:
        found = _download(model, revision)
    _check_complete(found)
    return found


def load_model(folder: ModelFolder, *, dtype: str, device: str) -> Any:
    """The model on its device, ready to be sampled.

    Raises:
        PolicyError: the files cannot be read, or weights are missing from them.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Its bar and its hints would write over the build's own progress; what matters of them is checked below.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder.path, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise PolicyError(f"model folder {folder.name} cannot be loaded: {first_line(error)}") from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        # Transformers only warns, and fills them with noise.
        raise PolicyError(f"model folder {folder.name} lacks {len(missing)} of its weights, {missing[0]} among them")
    return model.to(device).eval()


def load_tokenizer(folder: ModelFolder, *, chat_template: str | None) -> Any:
    """The model's tokenizer, with `chat_template` in place of its own if there is one.

    Raises:
        PolicyError: the files cannot be read.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PolicyError(f"model folder {folder.name}: its tokenizer cannot be read: {first_line(error)}") from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def pick_template(path: str | None, folder: ModelFolder) -> str | None:
    """The chat template in the file `path`; None where the model's own will do.

    Raises:
        PolicyError: the file cannot be read, or neither has one.
    """
    if path is not None:
        try:
            return Path(path).expanduser().read_text("utf-8")
        except OSError as error:
            raise PolicyError(f"policy.chat_template={path} cannot be read: {error.strerror}") from error
    if not folder.has_chat_template():
        raise PolicyError(
            f"model folder {folder.name} has no chat template: set policy.chat_template to a file with one,"
            " or take the model's instruct version"
        )
    return None


def pick_device(wanted: str) -> str:
    """The device to use: `wanted`, or the fastest there is for `auto`.

    Raises:
        PolicyError: it is not there.
    """
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, there in here.items() if there)
    if not here[wanted.partition(":")[0]]:
        raise PolicyError(f"policy.device={wanted}: this machine has none that torch can use; set policy.device=auto")
    return wanted


def file_hashes(folder: Path, patterns: Iterable[str]) -> str:
    """One hash of the names and contents of the folder's files that match any of the patterns."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return content_hash({file.name: _sha256_of(file) for file in files})


def first_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _download(model: str, revision: str | None) -> ModelFolder:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise SetupError(
            "a model from the Hub needs huggingface_hub, which is missing: pip install 'recontext_data[local]'"
        ) from error
    try:
        # Top level only: subfolders hold the same weights again in other formats.
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(DECISIVE), ignore_patterns=["*/*"]))
    except LocalEntryNotFoundError as error:
        raise PolicyError(
            f"policy.model={model} is neither a folder nor in this machine's Hub cache, and the Hub cannot be reached:"
            " give a folder, or run once with a connection"
        ) from error
    except (HFValidationError, OSError) as error:
        raise PolicyError(f"policy.model={model} is neither a folder nor a model on the Hub: {first_line(error)}") from error
    # The cache names a snapshot's folder after its commit: the branch `main` moves, this does not.
    return ModelFolder(name=model, path=folder, hub={"model": model, "commit": folder.name})


def _check_complete(found: ModelFolder) -> None:
    has = {pattern: any(found.path.glob(pattern)) for pattern in ("config.json", *TOKENIZERS, *WEIGHTS)}
    if not has["config.json"]:
        if (found.path / "adapter_config.json").is_file():
            raise PolicyError(
                f"model folder {found.name} is an adapter, not a model: set policy.adapter to it and policy.model to its base"
            )
        raise PolicyError(f"model folder {found.name} has no config.json: expected a folder in the Transformers format")
    if not any(has[name] for name in TOKENIZERS):
        raise PolicyError(
            f"model folder {found.name} has no tokenizer: expected {TOKENIZERS[0]} (or {', '.join(TOKENIZERS[1:])}),"
            " which tokenizer.save_pretrained(folder) writes"
        )
    if not any(has[pattern] for pattern in WEIGHTS):
        raise PolicyError(f"model folder {found.name} has no weights: expected model.safetensors")


def _sha256_of(file: Path) -> str:
    status = file.stat()
    return _sha256(str(file.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    # Size and time are there for the cache: weights of many gigabytes are read once per process, and again if they change.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
