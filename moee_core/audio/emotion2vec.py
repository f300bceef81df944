"""emotion2vec: a speech encoder made for emotion, frozen (Ma et al. 2023, a data2vec 2.0 network; base: 768 numbers).

Shapes (legend for this file):
    N recordings, S samples (16 kHz mono), T frames (50 a second), X extra tokens, D width, H heads
    sound (N, S) of mean 0 and variance 1 -> states (N, T, D)

    seven convolutions without bias, each - layer norm over channels - GELU; layer norm, linear to D
    + five grouped convolutions over time, each - layer norm without weights - GELU
    X learned tokens in front, layer norm, the early and then the late blocks; the extra tokens are left out
    block: x = norm(x + attention(x)), x = norm(x + mlp(x)); attention sees further frames less (ALiBi):
        softmax(Q K^T / sqrt(D / H) - s_h m_h |i - j|) V, m_h the slope of a head and s_h its learned scale, at least 0

Every size follows from the shapes of a checkpoint's weights: ``weights/emotion2vec.py`` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import DEFAULT_BUILD, Build
from .hubert import stretch

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
EPS = 1e-5
"""Beside the variance of a recording, as emotion2vec's own preparation has it."""


@dataclass(frozen=True, kw_only=True)
class Emotion2VecConfig:
    """Sizes, those of the published base. ``positions`` convolutions over ``reach`` frames say where a frame is."""

    channels: int = 512
    width: int = 768
    hidden: int = 3072
    heads: int = 12
    early: int = 4
    late: int = 8
    extra: int = 10
    positions: int = 5
    reach: int = 19
    groups: int = 16

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % self.groups:
            raise ValueError(
                f"Emotion2VecConfig.width {self.width} must be a multiple of heads {self.heads} and of groups "
                f"{self.groups}"
            )


class Block(nn.Module):
    """Attention and perceptron, each normed after what it adds."""

    def __init__(self, config: Emotion2VecConfig, build: Build):
        super().__init__()
        self.heads, self.attention = config.heads, build.attention
        self.qkv = build.linear(config.width, 3 * config.width)
        self.out = build.linear(config.width, config.width)
        self.norm_1 = build.layer_norm(config.width)
        self.up = build.linear(config.width, config.hidden)
        self.down = build.linear(config.hidden, config.width)
        self.norm_2 = build.layer_norm(config.width)

    def forward(self, x_NTD: Tensor, bias_1HTT: Tensor) -> Tensor:
        q, k, v = self.qkv(x_NTD).chunk(3, dim=-1)
        x_NTD = self.norm_1(x_NTD + self.out(self.attention(q, k, v, self.heads, mask=bias_1HTT)))
        return self.norm_2(x_NTD + self.down(F.gelu(self.up(x_NTD))))


class Emotion2Vec(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: Emotion2VecConfig, build: Build = DEFAULT_BUILD):
        super().__init__()
        self.config = config
        conv, place = build.operations.Conv1d, {"dtype": build.dtype, "device": build.device}
        inputs = (1, *([config.channels] * (len(KERNELS) - 1)))
        self.convs = nn.ModuleList(
            conv(before, config.channels, kernel, stride=stride, bias=False, **place)
            for before, kernel, stride in zip(inputs, KERNELS, STRIDES, strict=True)
        )
        self.conv_norms = nn.ModuleList(build.layer_norm(config.channels) for _ in KERNELS)
        self.project_norm = build.layer_norm(config.channels)
        self.project = build.linear(config.channels, config.width)
        self.positions = nn.ModuleList(
            conv(config.width, config.width, config.reach, padding=config.reach // 2, groups=config.groups, **place)
            for _ in range(config.positions)
        )
        self.extra_tokens = nn.Parameter(torch.zeros(1, config.extra, config.width, **place))
        self.alibi_scale = nn.Parameter(torch.ones(1, 1, config.heads, 1, 1, **place))
        self.early_norm = build.layer_norm(config.width)
        self.early = nn.ModuleList(Block(config, build) for _ in range(config.early))
        self.late = nn.ModuleList(Block(config, build) for _ in range(config.late))

    def forward(self, sound_NS: Tensor) -> Tensor:
        x = sound_NS[:, None]
        for conv, norm in zip(self.convs, self.conv_norms, strict=True):
            x = F.gelu(norm(conv(x).transpose(1, 2))).transpose(1, 2)
        x_NTD = self.project(self.project_norm(x.transpose(1, 2)))
        place = x_NTD.transpose(1, 2)
        frames = place.shape[-1]
        for conv in self.positions:
            place = conv(place)[..., :frames].transpose(1, 2)  # an even reach gives one frame more
            place = F.gelu(F.layer_norm(place, place.shape[-1:])).transpose(1, 2)
        x_NTD = x_NTD + place.transpose(1, 2)
        extra = self.config.extra
        x_NTD = torch.cat([self.extra_tokens.expand(len(x_NTD), -1, -1), x_NTD], dim=1)
        bias_1HTT = F.pad(self._bias(frames).to(x_NTD), (extra, 0, extra, 0))  # extra tokens are equally near to all
        x_NTD = self.early_norm(x_NTD)
        for block in (*self.early, *self.late):
            x_NTD = block(x_NTD, bias_1HTT)
        return x_NTD[:, extra:]

    def _bias(self, frames: int) -> Tensor:
        """(1, H, frames, frames)."""
        scale = self.alibi_scale[0].clamp_min(0)
        place = torch.arange(frames, device=scale.device)
        distance = (place[:, None] - place).abs().float()
        return -slopes(self.config.heads).to(scale.device)[None, :, None, None] * distance * scale.float()


def slopes(heads: int) -> Tensor:
    """(H,) ALiBi's slopes: 2^(-8 i / H) for a power of two; between two powers, those of the lower one and then every
    other one of the higher."""

    def geometric(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    low = 2 ** math.floor(math.log2(heads))
    return torch.tensor(geometric(low) + geometric(2 * low)[::2][: heads - low])


class Emotion2VecFeatures:
    """A frozen emotion2vec as a source of ``emotion_features.EmotionFeatures``; ``to`` chooses where it computes."""

    kind = "emotion2vec"

    def __init__(self, model: Emotion2Vec):
        self.model = model.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        return self.model.config.width

    def to(self, device: Any) -> Emotion2VecFeatures:
        self.model.to(device)
        return self

    @torch.no_grad()
    def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor:
        wave, lead = stretch(samples, first, last, gain, EPS)
        parameter = self.model.extra_tokens
        states = self.model(wave[None].to(parameter.device, parameter.dtype))[0]
        return states[first - lead : last - lead].float().cpu()
