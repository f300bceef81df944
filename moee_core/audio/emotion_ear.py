"""A small listener for the emotion of a voice: log-mel frames in, features at 50 frames a second out.

Shapes (legend for this file):
    B batch, T frames at 50 per second, M mel bands, W width, E emotions
    mel (B, T, M) -> features (B, T, W); features -> emotion logits (B, T, E) and level (B, T), 0 calm .. 1 full

It stands in for HuBERT tuned on emotion, with the same rate, and is trained to name emotion and level of a voice at
every frame. The mean of every band over a second to either side is taken away first: it is the timbre of a voice and
its microphone, by which the ear would know its training voices instead of their moods. Residual dilated convolutions
then look a phrase to either side. Nothing looks further than ``context`` frames (with the default sizes 2.3 s), so a
long recording is read in chunks with the result of one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from .spectrogram import EMOTION_MEL, spectrogram


@dataclass(frozen=True, kw_only=True)
class EmotionEarConfig:
    """Sizes. ``layers`` dilations 1, 2, 4, …; ``mean_frames`` to either side make the mean that is taken away, 0 for
    none. ``source`` "hubert" has no weights here and takes ``width`` from it."""

    source: str = "ear"
    width: int = 96
    layers: int = 6
    mean_frames: int = 50
    emotions: int = 8

    def __post_init__(self) -> None:
        if self.source not in ("ear", "hubert"):
            raise ValueError(f"EmotionEarConfig.source must be ear or hubert, got {self.source!r}")
        for name in ("width", "layers", "emotions"):
            if getattr(self, name) < 1:
                raise ValueError(f"EmotionEarConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.mean_frames < 0:
            raise ValueError(f"EmotionEarConfig.mean_frames must be at least 0, got {self.mean_frames}")

    @property
    def context(self) -> int:
        """Frames that a feature looks to either side."""
        return 1 + sum(2**i for i in range(self.layers)) + self.mean_frames


class EmotionEar(nn.Module):
    def __init__(self, config: EmotionEarConfig, build: Build):
        super().__init__()
        self.config = config
        self.stem = build.conv1d(EMOTION_MEL.mels, config.width)
        self.norms = nn.ModuleList(build.layer_norm(config.width) for _ in range(config.layers))
        self.convs = nn.ModuleList(
            build.operations.Conv1d(
                config.width, config.width, 3, padding=2**i, dilation=2**i, dtype=build.dtype, device=build.device
            )
            for i in range(config.layers)
        )
        self.emotion_head = build.linear(config.width, config.emotions)
        self.level_head = build.linear(config.width, 1)

    @property
    def width(self) -> int:
        return self.config.width

    def forward(self, mel_BTM: Tensor) -> Tensor:
        x, reach = mel_BTM.transpose(1, 2), self.config.mean_frames
        if reach:
            x = x - F.avg_pool1d(x, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)
        h = F.gelu(self.stem(x))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            # normed over channels alone: over time it would depend on where a chunk is cut
            h = h + F.gelu(conv(norm(h.transpose(1, 2)).transpose(1, 2)))
        return h.transpose(1, 2)

    def emotion(self, features_BTW: Tensor) -> Tensor:
        """(B, T, E) logits."""
        return self.emotion_head(features_BTW)

    def level(self, features_BTW: Tensor) -> Tensor:
        """(B, T)."""
        return self.level_head(features_BTW)[..., 0]

    @torch.no_grad()
    def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor:
        """Features of frames ``first`` .. ``last - 1`` of (S,) samples times ``gain``: (last - first, W)."""
        context = self.config.context
        mel = spectrogram(samples, EMOTION_MEL, first - context, last + context, gain)
        weight = self.stem.weight
        features = self(mel[None].to(weight.device, weight.dtype))[0]
        return features[context : context + last - first].float()
