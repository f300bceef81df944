"""Noise schedules: betas, zero terminal SNR, trailing time-steps.

Quantities: ``alpha`` = sqrt(alpha_bar), ``sigma`` = sqrt(1 - alpha_bar); x_t = alpha x_0 + sigma eps;
velocity v = alpha eps - sigma x_0 (Salimans & Ho 2022), so x_0 = alpha x_t - sigma v and eps = sigma x_t + alpha v.
Names follow diffusers: ``linear`` is linear in beta, ``scaled_linear`` linear in sqrt(beta).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

TRAIN_STEPS = 1000
BETA_SCHEDULES = ("linear", "scaled_linear")


@lru_cache(maxsize=8)
def alphas_cumprod(
    kind: str = "scaled_linear", start: float = 0.00085, end: float = 0.012, zero_snr: bool = True
) -> Tensor:
    """alpha_bar at t = 0..999, (1000,) float64. ``zero_snr`` rescales so that alpha_bar[999] = 0 (Lin et al. 2024)."""
    if kind == "linear":
        betas = torch.linspace(start, end, TRAIN_STEPS, dtype=torch.float64)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    else:
        raise ValueError(f"unknown beta schedule {kind!r}; choose {' or '.join(BETA_SCHEDULES)}")
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    if zero_snr:
        first, last = root[0].clone(), root[-1].clone()
        root = (root - last) * first / (first - last)
    return root**2


def alpha_sigma(timesteps: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) at possibly fractional time-steps (N,), float32 (N,); linear between table entries."""
    table = table.to(timesteps.device, torch.float32)
    t = timesteps.float().clamp(0, TRAIN_STEPS - 1)
    low = t.floor().long()
    high = (low + 1).clamp_max(TRAIN_STEPS - 1)
    alpha_bar = torch.lerp(table[low], table[high], t - low)
    return alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()


def trailing_timesteps(steps: int) -> list[int]:
    """``steps`` time-steps from 999 down, spaced as diffusers' "trailing": round(1000 (1 - i / steps)) - 1."""
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"the number of steps must be 1 to {TRAIN_STEPS}, got {steps}")
    return [round(TRAIN_STEPS - i * TRAIN_STEPS / steps) - 1 for i in range(steps)]
