"""Sampling a long clip in windows that are laid anew in every step, as Sonic and DICE-Talk do, with Euler's method.

Shapes: latents (T, Z, h, w), the frames of a whole clip; a window is F of them, by their numbers, counted round: behind
the last frame comes the first, so a clip needs some frames more, between its end and its beginning.

Equations (Karras et al. 2022): sigma_i = (a + i / (n - 1) (b - a))^rho with a, b the rho-th roots of the largest and
the smallest; x = x_0 + sigma eps; the network reads x / sqrt(sigma^2 + 1) at the time 1/4 ln sigma and gives v, where
x_0 = x / (sigma^2 + 1) - v sigma / sqrt(sigma^2 + 1). A step of Euler's goes x + (sigma' - sigma) (x - x_0) / sigma.
What several windows say of a frame is averaged behind the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

SIGMA_MAX, SIGMA_MIN, RHO = 700.0, 0.002, 7.0
"""Stable Video Diffusion's."""

Predict = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(frame numbers (F,), scaled latents (F, Z, h, w), time (1,), part of the way 0..1) -> v (F, Z, h, w)."""


def karras_sigmas(steps: int) -> Tensor:
    """(steps + 1,) float32: noise levels from the largest down, and 0."""
    if not 1 <= steps <= 1000:
        raise ValueError(f"the number of steps must be 1 to 1000, got {steps}")
    first, last = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([(first + ramp * (last - first)) ** RHO, torch.zeros(1, dtype=torch.float64)]).float()


def shifted_windows(total: int, window: int, overlap: int, shift: int) -> Iterator[Tensor]:
    """Frame numbers (window,) of each window of a step, whose first begins ``shift`` frames before the clip."""
    if not 0 <= overlap < window:
        raise ValueError(f"windows of {window} frames can overlap in 0 to {window - 1}, got {overlap}")
    for start in range(-shift, total - shift, window - overlap):
        yield torch.arange(start, start + window) % total


def sample_shifting(
    predict: Predict,
    noise_TZhw: Tensor,
    *,
    steps: int,
    window: int,
    overlap: int = 0,
    shift: int = 7,
    start_from: Tensor | None = None,
    strength: float = 1.0,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """(T, Z, h, w) clean latents. ``shift``: by how many frames more the windows begin before the clip in each step.

    ``start_from`` (T or 1, Z, h, w): what the noise is added to, and ``strength`` the part of the steps that are done
    on it. ``on_step(done, steps)`` may raise to cancel.
    """
    total = len(noise_TZhw)
    if total < window:
        raise ValueError(f"a clip of {total} frames is shorter than a window of {window}; give it more")
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength must be above 0 and at most 1, got {strength:g}")
    sigmas = karras_sigmas(steps).to(noise_TZhw.device)
    skipped = steps - min(int(steps * strength), steps)
    sigmas = sigmas[skipped:]
    count = len(sigmas) - 1
    if count < 1:
        raise ValueError(f"{steps} steps at a strength of {strength:g} leave none; raise one of them")
    x = noise_TZhw.float() * sigmas[0]
    if start_from is not None:
        x = x + start_from.to(x)
    before = 0
    for step in range(count):
        sigma, following = sigmas[step], sigmas[step + 1]
        time = (sigma.log() / 4).reshape(1)
        part = step / max(count - 1, 1)
        moved, met = torch.zeros_like(x), torch.zeros(total, device=x.device)
        for numbers in shifted_windows(total, window, overlap, before):
            frames = numbers.to(x.device)
            seen = x[frames]
            v = predict(frames, seen / (sigma**2 + 1).sqrt(), time, part).to(x)
            clean = seen / (sigma**2 + 1) - v * (sigma / (sigma**2 + 1).sqrt())
            moved.index_add_(0, frames, seen + (following - sigma) / sigma * (seen - clean))
            met.index_add_(0, frames, torch.ones_like(frames, dtype=met.dtype))
        x = moved / met[:, None, None, None]
        before = (before + shift) % window
        if on_step is not None:
            on_step(step + 1, count)
    return x


def chain_weights(scales: tuple[float, ...]) -> tuple[float, ...]:
    """What each branch of a chain of conditions, every one knowing more than the one before, weighs in
    v_0 + sum_i s_i (v_i - v_{i-1}). A weight of 0 is a branch that need not be computed."""
    return tuple(0.0 if math.isclose(a, b, abs_tol=1e-9) else a - b for a, b in pairwise((1.0, *scales, 0.0)))
