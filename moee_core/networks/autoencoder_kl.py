"""The autoencoder of Stable Diffusion 1.5, which Hallo's latents come from.

Shapes (legend for this file):
    x_N3HW pictures in [-1, 1]; z_NZhw latents times ``scaling``, h = H / 8; C channels

Layout and numbers follow diffusers' AutoencoderKL, which is the test oracle. ``encode`` gives the mean of the
distribution, not a sample: a portrait has one latent.

Raises ``ValueError`` for pictures whose sides are no multiples of the patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from .blocks import ResnetBlock
from .config import AutoencoderKLConfig

EPS = 1e-6
"""Of every norm of this network; the UNet's residual blocks have 1e-5."""


class GridAttention(nn.Module):
    """Self-attention over all positions, in one head; q, k and v have biases."""

    def __init__(self, width: int, groups: int, build: Build):
        super().__init__()
        self.attention = build.attention
        self.group_norm = build.group_norm(groups, width, eps=EPS)
        self.to_q = build.linear(width, width)
        self.to_k = build.linear(width, width)
        self.to_v = build.linear(width, width)
        self.to_out = nn.ModuleList([build.linear(width, width)])

    def forward(self, x_NCHW: Tensor) -> Tensor:
        tokens = self.group_norm(x_NCHW).flatten(2).transpose(1, 2)
        out = self.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), 1)
        return x_NCHW + self.to_out[0](out).transpose(1, 2).reshape(x_NCHW.shape)


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, width: int, groups: int, build: Build):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, 0, groups, build, EPS) for _ in range(2))
        self.attentions = nn.ModuleList([GridAttention(width, groups, build)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class HalvingConv(nn.Module):
    """3x3 convolution with stride 2; the border is added on the right and below only."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class DoublingConv(nn.Module):
    """Every pixel four times, then a 3x3 convolution."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one width, then ``resample`` if there is one."""

    def __init__(self, inputs: int, width: int, layers: int, groups: int, resample: nn.Module | None, build: Build):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(inputs if i == 0 else width, width, 0, groups, build, EPS) for i in range(layers)
        )
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.resample is None else self.resample(x)


class Encoder(nn.Module):
    """Pictures to mean and log-variance of latents, (N, 2 Z, h, w)."""

    def __init__(self, config: AutoencoderKLConfig, build: Build):
        super().__init__()
        widths, groups = config.block_widths, config.norm_groups
        last = len(widths) - 1
        self.conv_in = build.conv(3, widths[0])
        self.down_blocks = nn.ModuleList(
            Level(
                widths[max(level - 1, 0)],
                width,
                config.layers_per_block,
                groups,
                HalvingConv(width, build) if level < last else None,
                build,
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], groups, build)
        self.conv_norm_out = build.group_norm(groups, widths[-1], eps=EPS)
        self.conv_out = build.conv(widths[-1], 2 * config.latent_channels)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        h = self.conv_in(x_N3HW)
        for block in self.down_blocks:
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: AutoencoderKLConfig, build: Build):
        super().__init__()
        widths, groups = config.block_widths[::-1], config.norm_groups
        last = len(widths) - 1
        self.conv_in = build.conv(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, build)
        self.up_blocks = nn.ModuleList(
            Level(
                widths[max(level - 1, 0)],
                width,
                config.layers_per_block + 1,
                groups,
                DoublingConv(width, build) if level < last else None,
                build,
            )
            for level, width in enumerate(widths)
        )
        self.conv_norm_out = build.group_norm(groups, widths[-1], eps=EPS)
        self.conv_out = build.conv(widths[-1], 3)

    def forward(self, z_NZhw: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(z_NZhw))
        for block in self.up_blocks:
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class AutoencoderKL(nn.Module):
    """``encode`` pictures to latents, ``decode`` latents to pictures (not clamped)."""

    def __init__(self, config: AutoencoderKLConfig, build: Build):
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config, build)
        self.quant_conv = build.conv(2 * channels, 2 * channels, kernel=1)
        self.post_quant_conv = build.conv(channels, channels, kernel=1)
        self.decoder = Decoder(config, build)

    def encode(self, x_N3HW: Tensor) -> Tensor:
        if x_N3HW.shape[-1] % self.config.patch or x_N3HW.shape[-2] % self.config.patch:
            raise ValueError(f"picture sides must be multiples of {self.config.patch}, got {tuple(x_N3HW.shape[-2:])}")
        mean, _ = self.quant_conv(self.encoder(x_N3HW)).chunk(2, dim=1)
        return self.config.scaling * mean

    def decode(self, z_NZhw: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z_NZhw / self.config.scaling))
