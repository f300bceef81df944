"""A small listener for the emotion of a voice: what its contours do around a moment, then a little perceptron.

Shapes (legend for this file):
    B batch, T frames at 50 per second, C descriptors and K contours of ``prosody.py``, Q statistics, W width,
    E emotions
    raw (B, T, C) -> described (B, T, Q) -> features (B, T, W); features -> emotion logits (B, T, E) and level (B, T)

It stands in for HuBERT tuned on emotion, with the same rate, and is trained to name emotion and level of a voice at
every frame. A network that is free to look anywhere in a spectrogram learns its few training voices by heart; so what
is looked at is fixed: how strongly pitch and loudness swing at seven rates, how periodic the voice is in each band,
where its pitch is heading and how the balance of its bands varies, each over ``pool`` frames to either side. Only the
perceptron on top is trained. Its features end in pitch, voicing and loudness of the frame itself, for what moves fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from . import prosody
from .emotion_features import RATE

SWING_RATES = (1.0, 2.0, 3.0, 4.2, 5.6, 7.0, 8.8)
"""Hz at which swings of pitch and loudness are measured: phrases, syllables, tremor."""
SWING_REACH = 40
ACTIVE_REACH = 15
STATISTICS = 54
FAST = (0, 1, 8)
"""Contours that are features as they are: pitch, voicing, loudness."""


@dataclass(frozen=True, kw_only=True)
class EmotionEarConfig:
    """Sizes. ``pool`` frames to either side make a statistic. ``source`` "hubert" has no weights here and takes
    ``width`` from it."""

    source: str = "ear"
    width: int = 64
    pool: int = 60
    emotions: int = 8

    def __post_init__(self) -> None:
        if self.source not in ("ear", "hubert"):
            raise ValueError(f"EmotionEarConfig.source must be ear or hubert, got {self.source!r}")
        if self.width <= len(FAST):
            raise ValueError(f"EmotionEarConfig.width must be above {len(FAST)}, got {self.width}")
        for name in ("pool", "emotions"):
            if getattr(self, name) < 1:
                raise ValueError(f"EmotionEarConfig.{name} must be at least 1, got {getattr(self, name)}")

    @property
    def context(self) -> int:
        """Frames that a feature looks to either side."""
        return prosody.REACH + SWING_REACH + 2 * self.pool


def described(raw_BTC: Tensor, pool: int) -> Tensor:
    """(B, T, C) -> (B, T, Q) statistics, untrained."""
    contours = prosody.contours(raw_BTC)
    voiced = contours[..., 1:2]
    active = _mean(voiced, torch.ones_like(voiced), ACTIVE_REACH)
    swings = [_swings(contours[..., column] * scale) for column, scale in ((0, 1 / 3), (15, 4.0))]
    strong = [(_mean(swing, active, pool) + 1e-5).log() for swing in swings]
    shares = [rows - rows.logsumexp(-1, keepdim=True) for rows in strong]
    loudness = contours[..., 8:9]
    loud = voiced * torch.sigmoid((loudness - _mean(loudness, voiced, pool)) * 20)
    periodic = torch.cat([contours[..., 2:8], contours[..., 3:4] - contours[..., 2:3]], dim=-1)
    slopes, moving = contours[..., 13:15], contours[..., [0, 9, 10, 11]]
    balance = _mean(contours[..., 9:12], (1 - voiced) * active, pool)
    rows = [*strong, *shares, *_spread(periodic, loud, pool), *_spread(slopes, voiced, pool)]
    rows += [_spread(moving, voiced, pool)[1].log(), balance, _mean(voiced, active, pool)]
    return torch.cat(rows, dim=-1)


def _mean(x_BTN: Tensor, weight_BTN: Tensor, reach: int) -> Tensor:
    """Weighted, over ``reach`` frames to either side; towards 0 where nothing has weight."""

    def pooled(x: Tensor) -> Tensor:
        return F.avg_pool1d(x.transpose(1, 2), 2 * reach + 1, stride=1, padding=reach).transpose(1, 2)

    return pooled(x_BTN * weight_BTN) / pooled(weight_BTN).clamp_min(0.01)


def _spread(x_BTN: Tensor, weight_BTN: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation."""
    mean = _mean(x_BTN, weight_BTN, reach)
    return mean, (_mean(x_BTN**2, weight_BTN, reach) - mean**2).clamp_min(1e-5).sqrt()


def _swings(x_BT: Tensor) -> Tensor:
    """(B, T, rates) power of the swings at ``SWING_RATES``: windowed sine and cosine, squared."""
    seconds = torch.arange(-SWING_REACH, SWING_REACH + 1, device=x_BT.device) / RATE
    window = torch.hann_window(2 * SWING_REACH + 3, periodic=False, device=x_BT.device)[1:-1]
    phase = 2 * math.pi * torch.tensor(SWING_RATES, device=x_BT.device)[:, None] * seconds
    waves = torch.cat([phase.cos(), phase.sin()]) * window
    waves = (waves - waves.mean(1, keepdim=True)) * (2 / window.sum())
    found = F.conv1d(x_BT[:, None], waves[:, None].to(x_BT), padding=SWING_REACH) ** 2
    cosine, sine = found.chunk(2, dim=1)
    return (cosine + sine).transpose(1, 2)


class EmotionEar(nn.Module):
    """``mean`` and ``scale`` (Q,) of the statistics are those of the training voices; ``set_range`` sets them."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: EmotionEarConfig, build: Build):
        super().__init__()
        self.config = config
        hidden = config.width - len(FAST)
        kind = {"dtype": build.dtype, "device": build.device}
        self.register_buffer("mean", torch.zeros(STATISTICS, **kind))
        self.register_buffer("scale", torch.ones(STATISTICS, **kind))
        self.first, self.second = build.linear(STATISTICS, hidden), build.linear(hidden, hidden)
        self.emotion_head = build.linear(hidden, config.emotions)
        self.level_head = build.linear(hidden, 1)

    @property
    def width(self) -> int:
        return self.config.width

    @torch.no_grad()
    def set_range(self, described_NQ: Tensor) -> None:
        """Take mean and scale from the statistics of many frames."""
        self.mean.copy_(described_NQ.mean(0))
        self.scale.copy_(described_NQ.std(0).clamp_min(1e-3))

    def normalised(self, described_BTQ: Tensor) -> Tensor:
        return (described_BTQ - self.mean) / self.scale

    def hear(self, normalised_BTQ: Tensor) -> Tensor:
        """(B, T, W - 3)."""
        return F.gelu(self.second(F.gelu(self.first(normalised_BTQ))))

    def forward(self, raw_BTC: Tensor) -> Tensor:
        """(B, T, W)."""
        raw = raw_BTC.float()  # sums over seconds of squares are beyond half precision
        heard = self.hear(self.normalised(described(raw, self.config.pool)).to(self.first.weight))
        return torch.cat([heard, fast(raw).to(heard)], dim=-1)

    def emotion(self, features_BTW: Tensor) -> Tensor:
        """(B, T, E) logits."""
        return self.emotion_head(features_BTW[..., : self.config.width - len(FAST)])

    def level(self, features_BTW: Tensor) -> Tensor:
        """(B, T)."""
        return self.level_head(features_BTW[..., : self.config.width - len(FAST)])[..., 0]

    @torch.no_grad()
    def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor:
        """Features of frames ``first`` .. ``last - 1`` of (S,) samples times ``gain``: (last - first, W)."""
        context = self.config.context
        raw = prosody.descriptors(samples, first - context, last + context, gain)
        features = self(raw[None].to(self.first.weight.device))[0]
        return features[context : context + last - first].float().cpu()


def fast(raw_BTC: Tensor) -> Tensor:
    """(B, T, 3) the contours that are features as they are."""
    return prosody.contours(raw_BTC)[..., list(FAST)]
