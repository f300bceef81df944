"""Muon: steps along the orthogonalised momentum of a matrix (Jordan et al. 2024, "Muon"; Liu et al. 2025, scaling).

The momentum M of a weight matrix is replaced by the nearest matrix whose singular values are all about 1 (five
Newton-Schulz steps, X <- a X + (b XX^T + c (XX^T)^2) X), times 0.2 sqrt(max(rows, columns)), so that a step has the
size of an AdamW step of the same rate. Convolutions are matrices of outputs against everything else. What is not a
matrix (biases, norms) is AdamW's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


def orthogonalised(matrices_BRC: Tensor, steps: int = 5) -> Tensor:
    """(B, R, C): singular vectors of each matrix, singular values drawn to about 1 (0.7 to 1.2)."""
    x = matrices_BRC.float()
    turned = x.shape[-2] > x.shape[-1]
    x = x.mT if turned else x
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if turned else x


class Muon:
    """Matrices by Muon, the rest by AdamW; the interface of an optimiser as the training loop uses it."""

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, weight_decay: float):
        self.matrices = [p for p in parameters if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 1]
        chosen = {id(p) for p in self.matrices}
        rest = [p for p in parameters if id(p) not in chosen] or [nn.Parameter(torch.zeros(1))]
        self.others = torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.momenta: list[Tensor] = [torch.zeros_like(p) for p in self.matrices]
        self.param_groups = self.others.param_groups  # the loop sets the rate here, for both

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.matrices:
            parameter.grad = None
        self.others.zero_grad(set_to_none=set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        rate, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter, momentum in zip(self.matrices, self.momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.lerp_(parameter.grad, 1 - MOMENTUM)
            ahead = torch.lerp(parameter.grad, momentum, MOMENTUM)  # Nesterov
            rows = parameter.shape[0]
            alike[rows, parameter.numel() // rows].append((parameter, ahead.reshape(rows, -1)))
        for (rows, columns), pairs in alike.items():
            updates = orthogonalised(torch.stack([update for _, update in pairs]))
            size = rate * 0.2 * max(rows, columns) ** 0.5
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - rate * decay).sub_(update.view(parameter.shape), alpha=size)
        self.others.step()

    def state_dict(self) -> dict[str, Any]:
        return {"momenta": list(self.momenta), "others": self.others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for momentum, value in zip(self.momenta, state["momenta"], strict=True):
            momentum.copy_(value)
        self.others.load_state_dict(state["others"])
        self.param_groups = self.others.param_groups
