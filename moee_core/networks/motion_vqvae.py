"""Motion VQ-VAE: the movement of a face as a quarter as many discrete tokens, and back (EmoTalker, spec 4.2).

Shapes (legend for this file):
    B batch, T frames, C coefficients, N = T / rate tokens, W width, D code width, E emotions
    motion_BTC -> z_BND -> quantised (B, N, D) -> motion_BTC;   quantised -> emotion logits (B, E)

Encoder: convolution, then per halving a convolution of stride two and residual dilated convolutions, then a
projection to the code width. The decoder mirrors it with nearest-neighbour doubling (the layout of T2M-GPT, on which
EmoTalker's code builds). All convolutions repeat the edge frames instead of seeing zeros: zero is a pose, not silence.
The emotion head reads the mean of a clip's quantised tokens; the published code leaves open where its logits come
from.

Raises ``ValueError`` for sizes below 1, or a motion of another width or a length that is no multiple of ``rate``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..emotion.dictionary import Dictionary, DictionaryConfig, Quantised
from ..ops import Build


@dataclass(frozen=True, kw_only=True)
class MotionVQConfig:
    """Sizes; the defaults are the paper's (rate 4, 1,024 codes of 256). ``SMALL_VQ`` is the embedded model's."""

    width: int = 512
    depth: int = 4
    dilation_growth: int = 3
    halvings: int = 2
    emotions: int = 8
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)

    def __post_init__(self) -> None:
        for name in ("width", "depth", "dilation_growth", "halvings", "emotions"):
            if getattr(self, name) < 1:
                raise ValueError(f"MotionVQConfig.{name} must be at least 1, got {getattr(self, name)}")

    @property
    def rate(self) -> int:
        """Frames per token."""
        return 2**self.halvings

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(self.dilation_growth**i for i in range(self.depth))

    @property
    def context_tokens(self) -> int:
        """How far a decoded frame looks to either side, in tokens, rounded up."""
        frames = 1.0 * self.rate  # the first convolution, at the rate of tokens
        for level in range(self.halvings):
            frames += sum(self.dilations) * 2 ** (self.halvings - level)
            frames += 2 ** (self.halvings - level - 1)  # the convolution after doubling
        return -(-int(frames + 2) // self.rate) + 1


SMALL_VQ = MotionVQConfig(width=96, depth=2, dictionary=DictionaryConfig(codes=256, width=64))


class EdgeConv(nn.Module):
    """A one-dimensional convolution that repeats the edges; the length comes out as input / stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, build: Build, *, stride: int = 1, dilation: int = 1):
        super().__init__()
        reach = (kernel - 1) * dilation
        self.pad = (reach // 2, reach - reach // 2) if stride == 1 else ((kernel - stride) // 2,) * 2
        self.conv = build.operations.Conv1d(
            inputs, outputs, kernel, stride=stride, dilation=dilation, dtype=build.dtype, device=build.device
        )

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCT, self.pad, mode="replicate") if any(self.pad) else x_BCT)


class ResidualStack(nn.Module):
    """x + conv1(relu(conv3_dilated(relu(x)))), once per dilation."""

    def __init__(self, width: int, dilations: Iterable[int], build: Build):
        super().__init__()
        self.wide = nn.ModuleList(EdgeConv(width, width, 3, build, dilation=dilation) for dilation in dilations)
        self.mix = nn.ModuleList(EdgeConv(width, width, 1, build) for _ in self.wide)

    def forward(self, x_BWT: Tensor) -> Tensor:
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x_BWT = x_BWT + mix(F.relu(wide(F.relu(x_BWT))))
        return x_BWT


class MotionEncoder(nn.Module):
    """(B, C, T) -> (B, D, T / rate)."""

    def __init__(self, channels: int, config: MotionVQConfig, build: Build):
        super().__init__()
        width, levels = config.width, range(config.halvings)
        self.first = EdgeConv(channels, width, 3, build)
        self.down = nn.ModuleList(EdgeConv(width, width, 4, build, stride=2) for _ in levels)
        self.stacks = nn.ModuleList(ResidualStack(width, config.dilations, build) for _ in levels)
        self.last = EdgeConv(width, config.dictionary.width, 3, build)

    def forward(self, x_BCT: Tensor) -> Tensor:
        h = F.relu(self.first(x_BCT))
        for down, stack in zip(self.down, self.stacks, strict=True):
            h = stack(down(h))
        return self.last(h)


class MotionDecoder(nn.Module):
    """(B, D, N) -> (B, C, N * rate)."""

    def __init__(self, channels: int, config: MotionVQConfig, build: Build):
        super().__init__()
        width, levels = config.width, range(config.halvings)
        self.first = EdgeConv(config.dictionary.width, width, 3, build)
        self.stacks = nn.ModuleList(ResidualStack(width, reversed(config.dilations), build) for _ in levels)
        self.up = nn.ModuleList(EdgeConv(width, width, 3, build) for _ in levels)
        self.join = EdgeConv(width, width, 3, build)
        self.last = EdgeConv(width, channels, 3, build)

    def forward(self, z_BDN: Tensor) -> Tensor:
        h = F.relu(self.first(z_BDN))
        for stack, up in zip(self.stacks, self.up, strict=True):
            h = up(F.interpolate(stack(h), scale_factor=2.0, mode="nearest"))
        return self.last(F.relu(self.join(h)))


@dataclass(frozen=True, kw_only=True)
class Coded:
    """``motion`` (B, T, C) reconstructed, ``quantised`` of shape (B, N), ``emotion`` logits (B, E)."""

    motion: Tensor
    quantised: Quantised
    emotion: Tensor


class MotionVQVAE(nn.Module):
    """``mean`` and ``scale`` (C,) are the training motion's; inside, coefficients are (x - mean) / scale."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, config: MotionVQConfig, build: Build):
        super().__init__()
        self.channels, self.config = channels, config
        self.register_buffer("mean", torch.zeros(channels, device=build.device))
        self.register_buffer("scale", torch.ones(channels, device=build.device))
        self.encoder = MotionEncoder(channels, config, build)
        self.dictionary = Dictionary(config.dictionary, build)
        self.decoder = MotionDecoder(channels, config, build)
        self.emotion_head = build.linear(config.dictionary.width, config.emotions)

    def encode(self, motion_BTC: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, D), not yet quantised."""
        frames, channels = motion_BTC.shape[1:]
        if channels != self.channels or frames % self.config.rate or not frames:
            raise ValueError(
                f"a motion to encode must be (batch, frames, {self.channels}) with a multiple of {self.config.rate} "
                f"frames, got {tuple(motion_BTC.shape)}"
            )
        return self.encoder(((motion_BTC - self.mean) / self.scale).transpose(1, 2)).transpose(1, 2)

    def decode(self, tokens_BND: Tensor) -> Tensor:
        """(B, N, D) quantised or not -> (B, N * rate, C)."""
        return self.decoder(tokens_BND.transpose(1, 2)).transpose(1, 2) * self.scale + self.mean

    def emotion(self, tokens_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) logits of the clip's emotion."""
        return self.emotion_head(tokens_BND.mean(dim=1))

    def forward(self, motion_BTC: Tensor, *, learn: bool = False, generator: torch.Generator | None = None) -> Coded:
        quantised = self.dictionary(self.encode(motion_BTC), learn=learn, generator=generator)
        return Coded(motion=self.decode(quantised.values), quantised=quantised, emotion=self.emotion(quantised.values))
