"""Audio projector: a window of features around each frame becomes the tokens of the audio attention.

Shapes (legend for this file):
    T frames, L layers, D width, W = 2 * margin + 1 frames of window, S tokens, A token width
    features_TLD -> windows_TWLD (indices clamped at both ends) -> tokens_TSA

MLP with two hidden layers and a LayerNorm on the tokens, as in Hallo (MoEE's base): 5 x 12 x 768 -> 512 -> 512 ->
32 x 768.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build


def window_indices(num_frames: int, margin: int, start: int = 0, stop: int | None = None) -> Tensor:
    """(stop - start, 2 margin + 1) frame numbers around each frame, clamped to the recording."""
    centre = torch.arange(start, num_frames if stop is None else stop)[:, None]
    return (centre + torch.arange(-margin, margin + 1)[None]).clamp(0, num_frames - 1)


class TokenProjector(nn.Module):
    """Flatten what is given, two ReLU layers, tokens, LayerNorm: (N, ...) -> (N, tokens, token_width)."""

    def __init__(self, inputs: int, hidden: int, tokens: int, token_width: int, build: Build):
        super().__init__()
        self.tokens, self.token_width = tokens, token_width
        self.proj1 = build.linear(inputs, hidden)
        self.proj2 = build.linear(hidden, hidden)
        self.proj3 = build.linear(hidden, tokens * token_width)
        self.norm = build.layer_norm(token_width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.proj1(x.flatten(1)))
        h = F.relu(self.proj2(h))
        return self.norm(self.proj3(h).view(-1, self.tokens, self.token_width))


class AudioProjector(TokenProjector):
    """The tokens of windows of features, (N, W, L, D)."""

    def __init__(
        self, *, layers: int, width: int, margin: int, hidden: int, tokens: int, token_width: int, build: Build
    ):
        super().__init__((2 * margin + 1) * layers * width, hidden, tokens, token_width, build)
        self.margin = margin
