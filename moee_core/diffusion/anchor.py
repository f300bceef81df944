"""Drawing what changes of a portrait, by a network that draws whole pictures.

Shapes: latents (N, Z, h, w), the portrait's (1 or N, Z, h, w) = p; noise level sigma, change scale s.

With y = (x - p) / s a clip's latents become its changes, of about unit variance, and a noise of sigma one of sigma / s:
the same diffusion, so the network and its training stay as they are and any sampler can be used around them. An
untrained network that answers 0 then draws the portrait, where it would draw grey; a small one that is trained for an
hour needs this. The network reads y / sqrt(sigma_y^2 + 1) at the time 1/4 ln sigma_y and gives v_y as in
``shifting.py``:
    x_0 = p + s (y / (sigma_y^2 + 1) - v_y sigma_y / sqrt(sigma_y^2 + 1))
    v = (x / (sigma^2 + 1) - x_0) sqrt(sigma^2 + 1) / sigma
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_change(scaled_NZhw: Tensor, time: Tensor, portrait: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What the network reads, and when, for scaled latents x / sqrt(sigma^2 + 1) at the time 1/4 ln sigma."""
    sigma = _sigma(time)
    at = sigma / scale
    change = (scaled_NZhw.float() * (sigma**2 + 1).sqrt() - portrait.float()) / scale
    return change / (at**2 + 1).sqrt(), time - torch.log(torch.as_tensor(scale)) / 4


def from_change(v_NZhw: Tensor, scaled_NZhw: Tensor, time: Tensor, portrait: Tensor, scale: float) -> Tensor:
    """v of the whole picture from the v of its change."""
    sigma = _sigma(time)
    at, root = sigma / scale, (sigma**2 + 1).sqrt()
    x = scaled_NZhw.float() * root
    change = (x - portrait.float()) / scale
    clean = portrait.float() + scale * (change / (at**2 + 1) - v_NZhw.float() * (at / (at**2 + 1).sqrt()))
    return (x / (sigma**2 + 1) - clean) * root / sigma


def _sigma(time: Tensor) -> Tensor:
    """(1,) or (N, 1, 1, 1)."""
    sigma = torch.exp(4 * time.float())
    return sigma if sigma.numel() == 1 else sigma.view(-1, 1, 1, 1)
