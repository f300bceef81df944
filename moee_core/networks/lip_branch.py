"""The lip branch: what the mouth does in a frame, from a fifth of a second of sound (EmoTalker, spec 4.4).

Shapes (legend for this file):
    N frames, E reference numbers (the mouth at rest, then the frame's expression), L lip numbers
    mel (N, 80, 16) bands x steps, reference (N, E), blink (N,) 0 open .. 1 shut -> lips (N, L)

A convolutional encoder gives 512 numbers (in place of SadTalker's frozen one, trained here); one linear map of them,
the reference and the blink gives y; the result is m * Linear(y) + (1 - m) * y. Because the expression is an input,
lips depend on the face that the other branch made.

Raises ``ValueError`` for settings out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.spectrogram import LIP_MEL, LIP_STEPS
from ..ops import Build

FRAMES = 5
"""Consecutive frames of a training sample (supplement 6)."""


@dataclass(frozen=True, kw_only=True)
class LipBranchConfig:
    """``widths``: channels of the encoder, each at half the resolution before it. ``mixing`` is m (0.8 published)."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    audio_width: int = 512
    norm_groups: int = 8
    mixing: float = 0.8

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or min(self.widths) < 1 or self.audio_width < 1:
            raise ValueError(f"LipBranchConfig.widths must be four sizes above 0, got {self.widths}")
        if any(width % self.norm_groups for width in self.widths):
            raise ValueError(f"LipBranchConfig.widths {self.widths} must be multiples of norm_groups")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"LipBranchConfig.mixing must be 0 to 1, got {self.mixing}")


class MelEncoder(nn.Module):
    """Four convolutions of stride two over bands and steps, then a linear map: (N, 80, 16) -> (N, audio width)."""

    def __init__(self, config: LipBranchConfig, build: Build):
        super().__init__()
        inputs = (1, *config.widths[:-1])
        sizes = list(zip(inputs, config.widths, strict=True))
        self.convs = nn.ModuleList(build.conv(before, after, stride=2) for before, after in sizes)
        self.norms = nn.ModuleList(build.group_norm(config.norm_groups, after) for _, after in sizes)
        cells = -(-LIP_MEL.mels // 16) * -(-LIP_STEPS // 16)
        self.out = build.linear(config.widths[-1] * cells, config.audio_width)

    def forward(self, mel_NKS: Tensor) -> Tensor:
        h = mel_NKS[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(h)))
        return F.relu(self.out(h.flatten(1)))


class LipBranch(nn.Module):
    def __init__(self, lips: int, reference: int, config: LipBranchConfig, build: Build):
        super().__init__()
        self.config = config
        self.encoder = MelEncoder(config, build)
        self.head = build.linear(config.audio_width + reference + 1, lips)
        self.mix = build.linear(lips, lips)

    def forward(self, mel_NKS: Tensor, reference_NE: Tensor, blink_N: Tensor) -> Tensor:
        y = self.head(torch.cat([self.encoder(mel_NKS), reference_NE, blink_N[:, None]], dim=1))
        return self.config.mixing * self.mix(y) + (1 - self.config.mixing) * y
