"""What training needs installed, and how its libraries are kept quiet on the terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from recontext_data.core.errors import SetupError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTTrainer

    LanguageModel, Tokenizer, Trainer = PreTrainedModel, PreTrainedTokenizerBase, SFTTrainer
else:  # used in annotations only; importing the libraries takes seconds
    Dataset = LanguageModel = Tensor = Tokenizer = Trainer = object

__all__ = ["Dataset", "LanguageModel", "Tensor", "Tokenizer", "Trainer", "quiet", "require_libraries", "versions"]

NEEDED = {
    "full": ("torch", "transformers", "datasets", "accelerate", "trl"),
    "lora": ("torch", "transformers", "datasets", "accelerate", "trl", "peft"),
    "qlora": ("torch", "transformers", "datasets", "accelerate", "trl", "peft", "bitsandbytes"),
}
RECORDED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers")


def require_libraries(method: str) -> None:
    """Raises SetupError where a library that the method needs is missing."""
    missing = [name for name in NEEDED[method] if find_spec(name) is None]
    if missing:
        raise SetupError(f"training.method={method} needs {', '.join(missing)}: pip install 'recontext_data[local]'")


def versions() -> dict[str, str]:
    """The versions of what a trained model depends on; what is not installed is left out."""
    found: dict[str, str] = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what the libraries say in passing and is understood; errors are still heard. Afterwards all is as before."""
    import datasets
    import transformers

    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    transformers_bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()
        with warnings.catch_warnings():
            # The trainer pins memory for a GPU that is not there, and TRL announces its own next major version.
            warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"trl\..*")
            # TRL's own config sets it under the old name.
            warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        if transformers_bars:
            transformers.utils.logging.enable_progress_bar()
