"""Building blocks of the SD-1.5 family: time embedding, residual block, attention, transformer, resampling.

Shapes (legend for this file):
    N = B * F images (B clips of F frames, frames folded into the batch), C channels, H W latent grid, T = H * W tokens
    x_NCHW feature maps; x_NTC tokens; emb_NE time embedding

Layout and numbers follow Stable Diffusion 1.5's UNet (diffusers' UNet2DConditionModel is the test oracle).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build


def sinusoidal_embedding(positions: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    """(N,) positions -> (N, width) float32: cosines then sines (SD's timestep embedding, flip_sin_to_cos)."""
    half = width // 2
    exponent = -math.log(max_period) / half
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=positions.device) * exponent)
    angles = positions.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """timestep (N,) -> (N, width) in the model's dtype."""

    def __init__(self, inputs: int, width: int, build: Build):
        super().__init__()
        self.inputs = inputs
        self.linear_1 = build.linear(inputs, width)
        self.linear_2 = build.linear(width, width)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoidal_embedding(timesteps, self.inputs).to(dtype))))


class ResnetBlock(nn.Module):
    """norm - SiLU - conv, plus time embedding, norm - SiLU - conv, plus shortcut. ``time_width`` 0: no time embedding,
    as in an autoencoder."""

    def __init__(self, inputs: int, outputs: int, time_width: int, groups: int, build: Build, eps: float = 1e-5):
        super().__init__()
        self.norm1 = build.group_norm(groups, inputs, eps=eps)
        self.conv1 = build.conv(inputs, outputs)
        self.time_emb_proj = build.linear(time_width, outputs) if time_width else None
        self.norm2 = build.group_norm(groups, outputs, eps=eps)
        self.conv2 = build.conv(outputs, outputs)
        self.conv_shortcut = build.conv(inputs, outputs, kernel=1) if inputs != outputs else None

    def forward(self, x_NCHW: Tensor, emb_NE: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_NCHW)))
        if self.time_emb_proj is not None:
            if emb_NE is None:
                raise ValueError("this residual block reads a time embedding, none was given; give emb_NE")
            h = h + self.time_emb_proj(F.silu(emb_NE))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (x_NCHW if self.conv_shortcut is None else self.conv_shortcut(x_NCHW)) + h


class CrossAttention(nn.Module):
    """Attn(x, context): Q from x, K and V from context (MoEE Eq. 1); biasless q/k/v, biased output, as in SD-1.5.
    ``multiple`` times as many heads of the same size, where more than the usual is wanted."""

    def __init__(self, width: int, context_width: int, heads: int, build: Build, multiple: int = 1):
        super().__init__()
        self.heads = heads * multiple
        self.attention = build.attention
        inner = width * multiple
        self.to_q = build.linear(width, inner, bias=False)
        self.to_k = build.linear(context_width, inner, bias=False)
        self.to_v = build.linear(context_width, inner, bias=False)
        self.to_out = nn.ModuleList([build.linear(inner, width)])

    def forward(self, x_NTC: Tensor, context_NSC: Tensor | None = None, options: dict | None = None) -> Tensor:
        context = x_NTC if context_NSC is None else context_NSC
        out = self.attention(
            self.to_q(x_NTC), self.to_k(context), self.to_v(context), self.heads, transformer_options=options or {}
        )
        return self.to_out[0](out)


class GEGLU(nn.Module):
    """x W_a * gelu(x W_b)."""

    def __init__(self, width: int, inner: int, build: Build):
        super().__init__()
        self.proj = build.linear(width, 2 * inner)

    def forward(self, x_NTC: Tensor) -> Tensor:
        value, gate = self.proj(x_NTC).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU - linear. ``net`` keeps SD-1.5's numbering (1 was dropout)."""

    def __init__(self, width: int, multiple: int, build: Build):
        super().__init__()
        self.net = nn.ModuleList(
            [GEGLU(width, width * multiple, build), nn.Identity(), build.linear(width * multiple, width)]
        )

    def forward(self, x_NTC: Tensor) -> Tensor:
        for layer in self.net:
            x_NTC = layer(x_NTC)
        return x_NTC


class TransformerBlock(nn.Module):
    """Self-attention (reading the reference), identity cross-attention where configured, feed-forward.

    ``attn1`` sees the frame's own tokens followed by the reference's tokens of the same site: K, V = [own ; reference].
    ``forward`` returns the block's output and the normed tokens before ``attn1``, which a ReferenceNet hands on.
    """

    def __init__(self, width: int, heads: int, identity_width: int, ff_multiple: int, build: Build):
        super().__init__()
        self.norm1 = build.layer_norm(width)
        self.attn1 = CrossAttention(width, width, heads, build)
        if identity_width:
            self.norm2 = build.layer_norm(width)
            self.attn2 = CrossAttention(width, identity_width, heads, build)
        self.norm3 = build.layer_norm(width)
        self.ff = FeedForward(width, ff_multiple, build)
        self.has_identity = bool(identity_width)

    def forward(
        self, x_NTC: Tensor, reference_NSC: Tensor | None, identity_NKC: Tensor | None, options: dict | None
    ) -> tuple[Tensor, Tensor]:
        normed = self.norm1(x_NTC)
        context = normed if reference_NSC is None else torch.cat([normed, reference_NSC.to(normed.dtype)], dim=1)
        x_NTC = x_NTC + self.attn1(normed, context, options)
        if self.has_identity and identity_NKC is not None:
            x_NTC = x_NTC + self.attn2(self.norm2(x_NTC), identity_NKC, options)
        return x_NTC + self.ff(self.norm3(x_NTC)), normed


class SpatialTransformer(nn.Module):
    """norm - 1x1 conv - one transformer block over the grid's tokens - 1x1 conv - residual (SD-1.5's layout)."""

    def __init__(self, width: int, heads: int, identity_width: int, ff_multiple: int, groups: int, build: Build):
        super().__init__()
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.conv(width, width, kernel=1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, identity_width, ff_multiple, build)])
        self.proj_out = build.conv(width, width, kernel=1)

    def forward(
        self, x_NCHW: Tensor, reference_NSC: Tensor | None, identity_NKC: Tensor | None, options: dict | None
    ) -> tuple[Tensor, Tensor]:
        n, c, height, width = x_NCHW.shape
        tokens = self.proj_in(self.norm(x_NCHW)).flatten(2).transpose(1, 2)
        tokens, features = self.transformer_blocks[0](tokens, reference_NSC, identity_NKC, options)
        grid = tokens.transpose(1, 2).reshape(n, c, height, width)
        return x_NCHW + self.proj_out(grid), features


class Downsample(nn.Module):
    """3x3 convolution with stride 2."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width, stride=2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv(x_NCHW)


class Upsample(nn.Module):
    """Nearest neighbour to the size of the skip connection it will meet, then a 3x3 convolution."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width)

    def forward(self, x_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x_NCHW, size=size, mode="nearest"))
