"""Muon: momentum whose update is made orthogonal, matrix by matrix, in float32 and for all matrices of a shape at once.

It learns to copy in a fraction of AdamW's steps here. torch.optim.Muon does the same in bfloat16, one matrix at a time, which
on a CPU costs twice what the whole rest of a step costs. Source of the method and of the coefficients: K. Jordan et al.,
"Muon: An optimizer for hidden layers in neural networks" (2024).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that drives singular values towards 1; it settles around 0.7 to 1.2, which is enough."""
ROUNDS = 5


def orthogonal(update_N_R_C: torch.Tensor) -> torch.Tensor:
    """Each matrix with its singular values near 1."""
    a, b, c = COEFFICIENTS
    tall = update_N_R_C.shape[1] > update_N_R_C.shape[2]
    x = update_N_R_C.mT if tall else update_N_R_C
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):  # type: ignore[misc, unused-ignore]
    """For matrices only; the step is `lr` times an orthogonal matrix, larger for tall ones as their fan-out demands."""

    def __init__(self, params: Any, *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override, unused-ignore]
        """One step of Nesterov momentum."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        kept = state.setdefault("momentum", torch.zeros_like(parameter))
        kept.lerp_(parameter.grad, 1 - momentum)
        return torch.lerp(parameter.grad, kept, momentum)
