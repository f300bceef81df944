"""Emotion-to-Latents: every modality queries one set of learnable embeddings.

Shapes (legend for this file):
    N rows (frames or clips), M query tokens per modality, L learnable embeddings, D emotion width
    inputs        {modality: (N, K)} with any non-empty subset of ``MODALITIES``
    -> latents (N, M * number of modalities given, D)

Equation (MoEE 4.3 with Eq. 1): Z_e = LayerNorm(softmax(Q K^T / sqrt(d)) V) with Q = W_Q q, q the encoders' tokens plus
a learned modality embedding, and K = W_K P, V = W_V P for the learnable embeddings P. The residual is off by default:
the paper says the new features replace the inputs. At least eight query tokens: with a single token the experts'
cross-attention does not depend on the picture at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.blocks import CrossAttention
from ..ops import Build
from .encoders import MODALITIES, EmbeddingProjector, VectorEncoder
from .stand_ins import MOOD_WIDTH

TEXT_ENCODERS = ("sentence-t5", "words")
AUDIO_ENCODERS = ("emotion2vec", "hubert", "ear")


@dataclass(frozen=True, kw_only=True)
class EmotionToLatentsConfig:
    """Sizes; the defaults are the full size. 0 ``action_units``, ``text_width`` or ``audio_width``: it is left out.

    ``text`` and ``audio`` name what gives their embeddings: frozen public encoders, or the small ones of
    ``stand_ins.py`` ("words", "ear"), which are then part of the model.
    """

    width: int = 768
    query_tokens: int = 8
    embeddings: int = 64
    heads: int = 8
    labels: int = 8
    action_units: int = 41
    text_width: int = 768
    audio_width: int = 768
    text: str = "sentence-t5"
    audio: str = "emotion2vec"
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "query_tokens", "embeddings", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"EmotionToLatentsConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in (("text", TEXT_ENCODERS), ("audio", AUDIO_ENCODERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"EmotionToLatentsConfig.{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}"
                )
        if self.audio == "ear" and self.audio_width not in (0, MOOD_WIDTH):
            raise ValueError(f"EmotionToLatentsConfig.audio_width of an ear is {MOOD_WIDTH}, got {self.audio_width}")
        if self.width % self.heads:
            raise ValueError(f"EmotionToLatentsConfig.width {self.width} is not a multiple of heads {self.heads}")


class EmotionToLatents(nn.Module):
    """Encoders per modality, modality embeddings, and the attention to the learnable embeddings."""

    def __init__(self, config: EmotionToLatentsConfig, build: Build):
        super().__init__()
        self.config = config
        tokens, width = config.query_tokens, config.width
        encoders: dict[str, nn.Module] = {"label": VectorEncoder(config.labels, tokens, width, build)}
        if config.action_units:
            encoders["action_units"] = VectorEncoder(config.action_units, tokens, width, build)
        for name, inputs in (("text", config.text_width), ("audio", config.audio_width)):
            if inputs:
                encoders[name] = EmbeddingProjector(inputs, tokens, width, build)
        self.encoders = nn.ModuleDict(encoders)
        self.modality = build.embedding(len(MODALITIES), width)
        self.embeddings = build.embedding(config.embeddings, width)
        self.attention = CrossAttention(width, width, config.heads, build)
        self.norm = build.layer_norm(width)

    def queries(self, inputs: dict[str, Tensor]) -> Tensor:
        """The encoders' tokens with their modality embeddings, concatenated in the order of ``MODALITIES``."""
        known = [name for name in MODALITIES if name in self.encoders]
        if not inputs or set(inputs) - set(known):
            raise ValueError(
                f"this model takes emotion as {', '.join(known)}; got {', '.join(sorted(inputs)) or 'none'}"
            )
        parts = []
        for index, name in enumerate(MODALITIES):
            if name in inputs:
                tokens = self.encoders[name](inputs[name])
                which = torch.tensor([index], device=tokens.device)
                parts.append(tokens + self.modality(which).to(tokens.dtype))
        return torch.cat(parts, dim=1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        queries_NMD = self.queries(inputs)
        rows = torch.arange(self.config.embeddings, device=queries_NMD.device)
        table_1LD = self.embeddings(rows).to(queries_NMD.dtype)[None]
        out = self.attention(queries_NMD, table_1LD.expand(queries_NMD.shape[0], -1, -1))
        return self.norm(queries_NMD + out if self.config.residual else out)
