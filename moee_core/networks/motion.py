"""Temporal attention over the frames of a window, and audio cross-attention.

Shapes (legend for this file):
    B clips, F frames, N = B * F, k motion frames, C width, H W grid, T = H * W, S audio tokens, A audio width
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..ops import Build, added
from .blocks import CrossAttention, FeedForward


def temporal_positions(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width) sinusoidal table, sine and cosine interleaved (AnimateDiff's)."""
    position = torch.arange(length, dtype=torch.float32, device=like.device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32, device=like.device) * (-math.log(10000.0) / width))
    angles = position * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


@dataclass(frozen=True, kw_only=True)
class KeptMotion:
    """Motion frames as they stand in front of the sequence: ``hidden_BkTC``, behind the norm and the projection at the
    entry. The first attention's queries, keys and values of them stay too, and are worked out again each time: to join
    them with the others' takes as long as it saves (measured on a CPU), and they are three times the memory."""

    hidden_BkTC: Tensor


class MotionModule(nn.Module):
    """Self-attention along time at every position of the grid (AnimateDiff's layout).

    The last ``k`` frames of the previous window stand in front of the sequence at positions 0..k-1 as the reference
    net's features of the same site; their outputs are dropped. So windows continue each other (MoEE 4.1, Hallo).
    ``norm_carried``: they pass the norm at the entry like every frame, as in Hallo.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        attentions: int,
        ff_multiple: int,
        groups: int,
        build: Build,
        norm_carried: bool = False,
    ):
        super().__init__()
        self.norm_carried = norm_carried
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.linear(width, width)
        self.norms = nn.ModuleList(build.layer_norm(width) for _ in range(attentions))
        self.attentions = nn.ModuleList(CrossAttention(width, width, heads, build) for _ in range(attentions))
        self.ff_norm = build.layer_norm(width) if ff_multiple else None
        self.ff = FeedForward(width, ff_multiple, build) if ff_multiple else None
        self.proj_out = build.linear(width, width)

    def kept(self, motion_BkTC: Tensor) -> KeptMotion:
        if self.norm_carried:
            flat_NCT = motion_BkTC.flatten(0, 1).transpose(1, 2)
            motion_BkTC = self.norm(flat_NCT).transpose(1, 2).reshape(motion_BkTC.shape)
        return KeptMotion(hidden_BkTC=self.proj_in(motion_BkTC))

    def forward(
        self, x_NCHW: Tensor, motion: Tensor | KeptMotion | None, frames: int, options: dict | None = None
    ) -> Tensor:
        """``motion`` (B, k, T, C), or what ``kept`` made of it. Behind the last attention the motion frames are left
        out: nothing reads them any more."""
        n, c, height, width = x_NCHW.shape
        tokens = self.proj_in(self.norm(x_NCHW).flatten(2).transpose(1, 2))
        x_BFTC = tokens.view(n // frames, frames, height * width, c)
        lead = 0
        if motion is not None:
            carried = motion if isinstance(motion, KeptMotion) else self.kept(motion.to(x_BFTC.dtype))
            lead = carried.hidden_BkTC.shape[1]
            x_BFTC = torch.cat([carried.hidden_BkTC, x_BFTC], dim=1)
        positions_F1C = temporal_positions(lead + frames, c, x_BFTC)[:, None]
        last = len(self.attentions) - 1
        for index, (norm, attention) in enumerate(zip(self.norms, self.attentions, strict=True)):
            dropped = lead if index == last else 0
            over_frames = cast(CrossAttention, attention).over_frames
            update = over_frames(added(positions_F1C, norm(x_BFTC)), dropped, options)
            x_BFTC = x_BFTC[:, dropped:] + update
        x_NTC = x_BFTC[:, x_BFTC.shape[1] - frames :].flatten(0, 1)
        if self.ff is not None and self.ff_norm is not None:
            x_NTC = added(x_NTC, self.ff(self.ff_norm(x_NTC)))
        update = self.proj_out(x_NTC).transpose(1, 2).reshape(n, c, height, width)
        return added(x_NCHW, update)


class AudioAttention(nn.Module):
    """X + CrossAttn(LN(X), audio tokens of the frame); the tokens cover a window of frames around it."""

    def __init__(self, width: int, audio_width: int, heads: int, build: Build):
        super().__init__()
        self.norm = build.layer_norm(width)
        self.attention = CrossAttention(width, audio_width, heads, build)

    def forward(self, x_NTC: Tensor, audio_NSA: Tensor, options: dict | None = None) -> Tensor:
        return x_NTC + self.attention(self.norm(x_NTC), audio_NSA, options)
