"""What this machine trains on, and what there is to say about it."""

from typing import TYPE_CHECKING

from recontext_data.config.training import Training
from recontext_data.training.arguments import is_main

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen


def has_cuda() -> bool:
    """Whether torch can use a CUDA GPU."""
    import torch

    return bool(torch.cuda.is_available())


def say_device(config: Training, screen: "Screen") -> None:
    """One line for a choice that works here and is not what it was made for."""
    if config.method == "qlora" and not has_cuda() and is_main():
        screen.warn(
            "training.method=qlora without a CUDA GPU: the nf4 layers run on the CPU, correctly and slowly; "
            "training.method=lora is faster here"
        )
