"""A small autoencoder: a linear map of patches, refined by convolutions on both sides.

Shapes (legend for this file):
    x_N3HW pictures in [-1, 1], H and W multiples of 8; z_NZhw latents with h = H / 8, about unit variance per channel

Both ends start as the closed-form principal components of 8x8 patches, the best linear code, and the convolutions
learn only what is left (their last layers start at zero). That reaches in minutes on a CPU what a plain
convolutional autoencoder of this size needs a GPU for. The latents are deterministic (no KL sampling).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from .config import AutoencoderConfig


class _Residual(nn.Module):
    def __init__(self, width: int, build: Build):
        super().__init__()
        self.norm1 = build.group_norm(8, width)
        self.conv1 = build.conv(width, width)
        self.norm2 = build.group_norm(8, width)
        self.conv2 = build.conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Encoder(nn.Module):
    """Linear patch map plus a convolutional correction."""

    def __init__(self, config: AutoencoderConfig, build: Build):
        super().__init__()
        width = config.encoder_width
        self.linear = build.patch_conv(3, config.latent_channels, config.patch)
        self.stem = build.patch_conv(3, width, 4)
        self.block = _Residual(width, build)
        self.down = build.conv(width, width, stride=2)
        self.out_block = _Residual(width, build)
        self.out = build.conv(width, config.latent_channels, kernel=1)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        h = self.down(self.block(self.stem(x_N3HW)))
        return self.linear(x_N3HW) + self.out(F.silu(self.out_block(h)))


class Decoder(nn.Module):
    """Linear patch map plus a convolutional correction that grows from 1/8 to full size by pixel shuffle."""

    def __init__(self, config: AutoencoderConfig, build: Build):
        super().__init__()
        wide, mid, thin = config.widths
        self.linear = build.conv(config.latent_channels, 3 * config.patch**2, kernel=1)
        self.patch = config.patch
        self.inp = build.conv(config.latent_channels, wide)
        self.blocks_8 = nn.ModuleList(_Residual(wide, build) for _ in range(2))
        self.up_4 = build.conv(wide, mid * 4, kernel=1)
        self.draft_4 = build.conv(48, mid)
        self.blocks_4 = nn.ModuleList(_Residual(mid, build) for _ in range(2))
        self.up_2 = build.conv(mid, thin * 4, kernel=1)
        self.draft_2 = build.conv(12, thin)
        self.blocks_2 = nn.ModuleList(_Residual(thin, build) for _ in range(2))
        self.norm = build.group_norm(8, thin)
        self.out = build.conv(thin, 12)

    def forward(self, z_NZhw: Tensor) -> Tensor:
        draft = F.pixel_shuffle(self.linear(z_NZhw), self.patch)
        h = self.inp(z_NZhw)
        for block in self.blocks_8:
            h = block(h)
        h = F.pixel_shuffle(self.up_4(h), 2) + self.draft_4(F.pixel_unshuffle(draft, 4))
        for block in self.blocks_4:
            h = block(h)
        h = F.pixel_shuffle(self.up_2(h), 2) + self.draft_2(F.pixel_unshuffle(draft, 2))
        for block in self.blocks_2:
            h = block(h)
        return draft + F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2)


class Autoencoder(nn.Module):
    """``encode`` pictures to latents, ``decode`` latents to pictures (not clamped)."""

    def __init__(self, config: AutoencoderConfig, build: Build):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, build)
        self.decoder = Decoder(config, build)

    def encode(self, x_N3HW: Tensor) -> Tensor:
        if x_N3HW.shape[-1] % self.config.patch or x_N3HW.shape[-2] % self.config.patch:
            raise ValueError(f"picture sides must be multiples of {self.config.patch}, got {tuple(x_N3HW.shape[-2:])}")
        return self.encoder(x_N3HW)

    def decode(self, z_NZhw: Tensor) -> Tensor:
        return self.decoder(z_NZhw)
