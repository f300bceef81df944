"""Small networks that turn what is known of a portrait into conditions of the denoiser, as in Hallo.

Shapes (legend for this file):
    B portraits, E width of a face's embedding, K tokens, C identity width, H W picture, h w its latents, D width of
    the UNet's first level
    embedding_BE -> tokens_BKC;  face_B3HW in [0, 1] -> located_BDhw

Layout and order of the layers follow the authors' published code (Xu et al. 2024, "Hallo"); the locator is ControlNet's
encoder of conditions (Zhang et al. 2023).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build


class IdentityProjector(nn.Module):
    """Linear, split into tokens, LayerNorm. Nobody in particular is the embedding of zeros, not tokens of zeros."""

    def __init__(self, width: int, tokens: int, token_width: int, build: Build):
        super().__init__()
        self.width, self.tokens, self.token_width = width, tokens, token_width
        self.proj = build.linear(width, tokens * token_width)
        self.norm = build.layer_norm(token_width)

    def forward(self, embedding_BE: Tensor) -> Tensor:
        if embedding_BE.shape[-1] != self.width:
            raise ValueError(f"a face's embedding has {self.width} numbers, got {tuple(embedding_BE.shape)}")
        return self.norm(self.proj(embedding_BE).view(-1, self.tokens, self.token_width))


class FaceLocator(nn.Module):
    """3x3 convolutions with SiLU between; two of each width, the second halving the picture."""

    def __init__(self, widths: tuple[int, ...], outputs: int, build: Build):
        super().__init__()
        self.conv_in = build.conv(3, widths[0])
        self.blocks = nn.ModuleList()
        for width, following in pairwise(widths):
            self.blocks.append(build.conv(width, width))
            self.blocks.append(build.conv(width, following, stride=2))
        self.conv_out = build.conv(widths[-1], outputs)

    def forward(self, face_B3HW: Tensor) -> Tensor:
        h = F.silu(self.conv_in(face_B3HW))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)
