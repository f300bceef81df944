"""A dictionary of learnable codes: every vector is replaced by the code nearest to it (vector quantisation).

Shapes (legend for this file):
    N vectors in any leading shape, K codes, D width
    x (..., D) -> ``Quantised``: values (..., D), indices (...) of int64

Equations (van den Oord et al. 2017; Razavi et al. 2019, which EmoTalker's supplement 6 cites):
    k(x) = argmin_k |x - C_k|^2,    values = x + sg[C_k(x) - x]        straight-through: the gradient passes unchanged
    commitment = mean (x - sg[C_k(x)])^2,    codebook = mean (sg[x] - C_k(x))^2

How the codes learn (``DictionaryConfig.update``):
    naive      by the gradient of ``codebook``
    ema        N_k <- mu N_k + (1 - mu) n_k,  S_k <- mu S_k + (1 - mu) sum of the vectors assigned,  C_k = S_k / N_k
               (the supplement prints an identity, C_t <- l C_t-1 + (1 - l) C_t-1, a misprint)
    ema_reset  and codes whose N_k falls below ``least_use`` move onto vectors of the batch
Since S_k = N_k C_k at all times, only codes and counts are kept. Both are saved; with several processes the sums over
their batches are added up before anything moves, so all of them hold the same dictionary.

Raises ``ValueError`` for a setting out of range or vectors of another width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..ops import Build

UPDATES = ("naive", "ema", "ema_reset")
STARTS = ("batch", "uniform")
ROWS_AT_ONCE = 16384
"""Vectors compared with all codes in one go, which bounds the table of distances."""
START_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig:
    """Sizes and how codes learn. ``decay`` is mu; ``least_use`` is in vectors per batch (over all processes).

    ``start``: codes begin as vectors of the first batch, or uniform in +-1/K as in the first VQ-VAE.
    """

    codes: int = 1024
    width: int = 256
    update: str = "ema_reset"
    start: str = "batch"
    decay: float = 0.99
    least_use: float = 1.0

    def __post_init__(self) -> None:
        for name in ("codes", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"DictionaryConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in (("update", UPDATES), ("start", STARTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"DictionaryConfig.{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}"
                )
        if not 0 <= self.decay < 1:
            raise ValueError(f"DictionaryConfig.decay must be at least 0 and below 1, got {self.decay}")
        if not self.least_use >= 0:
            raise ValueError(f"DictionaryConfig.least_use must be at least 0, got {self.least_use}")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """``values`` (..., D) carry the gradient straight through; ``indices`` (...); the two losses are scalars."""

    values: Tensor
    indices: Tensor
    commitment: Tensor
    codebook: Tensor


@dataclass(frozen=True, kw_only=True)
class CodeUse:
    """``used``: share of codes met at all. ``perplexity``: exp of the entropy of their use, 1 to K codes."""

    used: float
    perplexity: float


def code_use(indices: Tensor, codes: int) -> CodeUse:
    """How widely ``indices`` of any shape spread over ``codes`` codes."""
    counts = torch.bincount(indices.flatten(), minlength=codes).double()
    share = counts / counts.sum().clamp_min(1)
    entropy = -(share[share > 0] * share[share > 0].log()).sum()
    return CodeUse(used=float((counts > 0).double().mean()), perplexity=float(entropy.exp()))


class Dictionary(nn.Module):
    """K codes of width D. Reading never changes it; it learns only where ``learn=True`` is asked for."""

    counts: Tensor
    started: Tensor

    def __init__(self, config: DictionaryConfig, build: Build):
        super().__init__()
        self.config = config
        self.codes = build.embedding(config.codes, config.width)
        # float, as all state: a file in half precision keeps them like the rest
        self.register_buffer("counts", torch.ones(config.codes, device=build.device))
        self.register_buffer("started", torch.zeros((), device=build.device))

    @property
    def learns_by_gradient(self) -> bool:
        """Whether the codes belong to an optimiser's parameters."""
        return self.config.update == "naive"

    def squared_distances(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., K): |x - C_k|^2, in float32 also under autocast: in half precision |x|^2 swamps what one
        code is nearer than another."""
        with torch.autocast(x.device.type, enabled=False):
            x, codes = x.float(), self.codes.weight.float()
            squared = x.square().sum(-1, keepdim=True) - 2 * x @ codes.T + codes.square().sum(-1)
        return squared.clamp_min(0)

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        """(..., D) -> (...) numbers of the nearest codes."""
        flat = x.reshape(-1, x.shape[-1])
        found = [self.squared_distances(rows).argmin(-1) for rows in flat.split(ROWS_AT_ONCE)]
        return torch.cat(found).view(x.shape[:-1])

    def forward(self, x: Tensor, *, learn: bool = False, generator: torch.Generator | None = None) -> Quantised:
        """Quantise (..., D). ``learn`` lets the first batch start the codes and, but for naive, moves them.

        ``generator`` (on the CPU) draws which vectors start or replace a code; None is PyTorch's own.
        """
        if x.shape[-1] != self.config.width:
            raise ValueError(f"vectors must be (..., {self.config.width}), got {tuple(x.shape)}")
        flat = x.detach().reshape(-1, self.config.width)
        if learn and not bool(self.started):
            self._start(flat, generator)
        indices = self.nearest(x)
        chosen = self.codes(indices).to(x.dtype)
        commitment = (x - chosen.detach()).square().mean()
        codebook = (x.detach() - chosen).square().mean()
        if learn and not self.learns_by_gradient:
            self._move(flat, indices.flatten(), generator)
        return Quantised(values=x + (chosen - x).detach(), indices=indices, commitment=commitment, codebook=codebook)

    @torch.no_grad()
    def _start(self, flat_ND: Tensor, generator: torch.Generator | None) -> None:
        weight = self.codes.weight
        if self.config.start == "batch":
            weight.copy_(_agreed(self._drawn(flat_ND, generator)))
        else:
            spread = torch.rand(weight.shape, generator=generator) * 2 - 1
            weight.copy_(_agreed((spread / self.config.codes).to(weight.device)))
        self.counts.fill_(1.0)
        self.started.fill_(1.0)

    @torch.no_grad()
    def _move(self, flat_ND: Tensor, indices_N: Tensor, generator: torch.Generator | None) -> None:
        weight, mu = self.codes.weight, self.config.decay
        vectors = flat_ND.to(weight.dtype)
        sums = torch.zeros_like(weight).index_add_(0, indices_N, vectors)
        met = torch.bincount(indices_N, minlength=self.config.codes).to(weight.dtype)
        sums, met = _summed(sums), _summed(met)
        counts = mu * self.counts + (1 - mu) * met
        mass = mu * self.counts[:, None] * weight + (1 - mu) * sums
        moved = torch.where(met[:, None] > 0, mass / counts.clamp_min(1e-12)[:, None], weight)
        if self.config.update == "ema_reset":
            dead = counts < self.config.least_use
            moved = torch.where(dead[:, None], _agreed(self._drawn(vectors, generator)), moved)
            counts = counts.clamp_min(self.config.least_use)  # a moved code begins at the threshold
        weight.copy_(moved)
        self.counts.copy_(counts)

    def _drawn(self, flat_ND: Tensor, generator: torch.Generator | None) -> Tensor:
        """(K, D) vectors of the batch in random order; too few are repeated with a little noise."""
        wanted, have = self.config.codes, len(flat_ND)
        order = torch.randperm(have, generator=generator)
        if have < wanted:
            order = order.repeat(-(-wanted // have))
        chosen = flat_ND[order[:wanted].to(flat_ND.device)]
        if have < wanted:
            noise = torch.randn(chosen.shape, generator=generator) * START_NOISE / self.config.width**0.5
            chosen = chosen + noise.to(chosen)
        return chosen


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _summed(values: Tensor) -> Tensor:
    """Over all processes."""
    if _several():
        dist.all_reduce(values)
    return values


def _agreed(values: Tensor) -> Tensor:
    """The first process's, for all of them."""
    if _several():
        values = values.contiguous()
        dist.broadcast(values, src=0)
    return values
