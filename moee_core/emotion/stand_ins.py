"""Small encoders inside a checkpoint, in the place of the frozen public ones: what a text means, how a voice sounds.

Shapes (legend for this file):
    N rows (frames or clips), T frames of a voice at 50 per second, K width of a text's embedding
    features (N, 49)    what ``free_text.understand`` found: emotion vector (8), action units (41)
    -> text_NK
    heard (T, W)        features of ``EmotionEar``
    -> mood (F, 16)     per video frame: probability of each of ``LABELS``, and the same times the level heard

``WordsEncoder`` stands in for sentence-T5: a text is understood by rules, and embedded by a perceptron trained with
the rest. ``mood`` stands in for emotion2vec: what the ear thinks, averaged over the seconds around a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.emotion_ear import EmotionEar
from ..audio.emotion_features import RATE, FeatureReader
from ..ops import Build
from .action_units import ACTION_UNITS
from .vocabulary import LABELS

TEXT_FEATURES = len(LABELS) + len(ACTION_UNITS)
MOOD_WIDTH = 2 * len(LABELS)
MOOD_SECONDS = 2.5
"""A mood is heard over this long to either side of a frame."""


class WordsEncoder(nn.Module):
    """Linear - SiLU - linear."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.linear_1 = build.linear(TEXT_FEATURES, width)
        self.linear_2 = build.linear(width, width)

    def forward(self, features_NK: Tensor) -> Tensor:
        if features_NK.shape[-1] != TEXT_FEATURES:
            raise ValueError(f"a text's features are {TEXT_FEATURES} numbers, got {tuple(features_NK.shape)}")
        return self.linear_2(F.silu(self.linear_1(features_NK)))


def mood_of(logits_T8: Tensor, level_T: Tensor) -> Tensor:
    """(T, 8) and (T,) -> (T, 16): averaged over ``MOOD_SECONDS`` to either side, fewer at the ends."""
    both = torch.cat([logits_T8, level_T[:, None]], dim=-1).T[None]
    reach = round(MOOD_SECONDS * RATE)
    mean = F.avg_pool1d(both, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)[0].T
    probability, level = mean[:, :-1].softmax(dim=-1), mean[:, -1:].clamp(0, 1)
    return torch.cat([probability, probability * level], dim=-1)


@torch.no_grad()
def mood(ear: EmotionEar, samples: Tensor, frames: int, fps: float) -> Tensor:
    """(frames, 16) the mood of a recording, (S,) 16 kHz mono, at the middle of every video frame."""
    reader = FeatureReader(ear, samples)
    parts = []
    for first in range(0, reader.total, reader.chunk):
        heard = reader.read(first, min(first + reader.chunk, reader.total)).to(ear.first.weight)
        parts.append(torch.cat([ear.emotion(heard), ear.level(heard)[:, None]], dim=-1).float().cpu())
    joined = torch.cat(parts)
    moods = mood_of(joined[:, :-1], joined[:, -1])
    wanted = ((torch.arange(frames, dtype=torch.float64) + 0.5) * RATE / fps).long().clamp(0, len(moods) - 1)
    return moods[wanted]
