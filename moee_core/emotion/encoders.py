"""Emotion encoders: one per modality, each ends in the query tokens of Emotion-to-Latents.

Shapes (legend for this file):
    N rows (frames or clips), M query tokens, D emotion width
    label_N8        soft emotion vector over LABELS (neutral, six, contempt); a label's entry is its intensity
    units_N41       action units in [0, 1] (soft vectors allowed)
    text_NK         pooled sentence embedding (sentence-T5: K = 768)
    speech_NK       pooled or per-frame speech-emotion embedding (emotion2vec: K = 768)
    -> queries_NMD

MoEE 4.3: text and audio embeddings pass a fully connected layer, labels a two-layer MLP. The frozen text and audio
encoders themselves are not part of this module: it takes what they produce.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build

MODALITIES = ("label", "action_units", "text", "audio")


class VectorEncoder(nn.Module):
    """Linear - SiLU - linear to M tokens: for label vectors and action units."""

    def __init__(self, inputs: int, tokens: int, width: int, build: Build):
        super().__init__()
        self.inputs, self.tokens, self.width = inputs, tokens, width
        self.linear_1 = build.linear(inputs, width)
        self.linear_2 = build.linear(width, tokens * width)

    def forward(self, vector_NK: Tensor) -> Tensor:
        if vector_NK.shape[-1] != self.inputs:
            raise ValueError(f"the emotion vector must have {self.inputs} entries, got {tuple(vector_NK.shape)}")
        return self.linear_2(F.silu(self.linear_1(vector_NK))).view(-1, self.tokens, self.width)


class EmbeddingProjector(nn.Module):
    """One fully connected layer from a frozen encoder's pooled embedding to M tokens: for text and speech."""

    def __init__(self, inputs: int, tokens: int, width: int, build: Build):
        super().__init__()
        self.inputs, self.tokens, self.width = inputs, tokens, width
        self.linear = build.linear(inputs, tokens * width)

    def forward(self, embedding_NK: Tensor) -> Tensor:
        if embedding_NK.shape[-1] != self.inputs:
            raise ValueError(f"the embedding must have {self.inputs} entries, got {tuple(embedding_NK.shape)}")
        return self.linear(embedding_NK).view(-1, self.tokens, self.width)
