"""Building blocks of the SD-1.5 family: time embedding, residual block, attention, transformer, resampling.

Shapes (legend for this file):
    N = B * F images (B clips of F frames, frames folded into the batch), C channels, H W latent grid, T = H * W tokens
    x_NCHW feature maps; x_NTC tokens; emb_NE time embedding

Layout and numbers follow Stable Diffusion 1.5's UNet (diffusers' UNet2DConditionModel is the test oracle).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build, added, frame_pieces, in_pieces, laid_out


def sinusoidal_embedding(positions: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    """(N,) positions -> (N, width) float32: cosines then sines (SD's timestep embedding, flip_sin_to_cos)."""
    half = width // 2
    exponent = -math.log(max_period) / half
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=positions.device) * exponent)
    angles = positions.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def silu(x: Tensor) -> Tensor:
    """In the memory of ``x``, which nobody else may hold, where there are no gradients."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class TimeEmbedding(nn.Module):
    """timestep (N,) -> (N, outputs) in the model's dtype, ``outputs`` as ``width`` if not given; or several
    ``numbers`` (N, numbers), each with waves of its own."""

    def __init__(self, inputs: int, width: int, build: Build, *, outputs: int = 0, numbers: int = 1):
        super().__init__()
        self.inputs = inputs
        self.linear_1 = build.linear(inputs * numbers, width)
        self.linear_2 = build.linear(width, outputs or width)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        waves = sinusoidal_embedding(timesteps.flatten(), self.inputs).view(len(timesteps), -1)
        return self.linear_2(F.silu(self.linear_1(waves.to(dtype))))


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
        h = self.conv1(laid_out(silu(self.norm1(x_NCHW))))
        if self.time_emb_proj is not None:
            if emb_NE is None:
                raise ValueError("this residual block reads a time embedding, none was given; give emb_NE")
            h = h + self.time_emb_proj(F.silu(emb_NE))[:, :, None, None]
        h = self.conv2(laid_out(silu(self.norm2(h))))
        return added(x_NCHW if self.conv_shortcut is None else self.conv_shortcut(x_NCHW), h)


@dataclass(frozen=True, kw_only=True)
class KeyValue:
    """Keys and values (R, S, D) of contexts that stay while the queries change. ``rows_N``: which of the R contexts
    each of N queries reads; None where all read the same one (R = 1), or every one its own (R = N)."""

    keys_RSD: Tensor
    values_RSD: Tensor
    rows_N: Tensor | None = None

    def of(self, queries: int) -> tuple[Tensor, Tensor]:
        """(N, S, D) each, for N ``queries``."""
        if self.rows_N is not None:
            return self.keys_RSD[self.rows_N], self.values_RSD[self.rows_N]
        return self.keys_RSD.expand(queries, -1, -1), self.values_RSD.expand(queries, -1, -1)

    def part(self, queries: slice) -> KeyValue:
        """What some of the queries read."""
        if self.rows_N is not None:
            return KeyValue(keys_RSD=self.keys_RSD, values_RSD=self.values_RSD, rows_N=self.rows_N[queries])
        if self.keys_RSD.shape[0] == 1:
            return self
        return KeyValue(keys_RSD=self.keys_RSD[queries], values_RSD=self.values_RSD[queries])


@dataclass(frozen=True, kw_only=True)
class FewTokens:
    """Attention to a few tokens that stay, folded into two maps: softmax_h(x A_h) B_h + b, summed over heads h.

    With keys K and values V fixed, A_h = W_q K_h^T / sqrt(d) is (C, S) and B_h = V_h W_o is (S, C): for S tokens and H
    heads that is 2 C H S multiplications a query instead of 2 C^2 + 2 C S.
    ``scores_CE`` (C, H S) the A_h side by side, ``values_EC`` (H S, C) the B_h, ``bias_C``.
    """

    scores_CE: Tensor
    values_EC: Tensor
    bias_C: Tensor
    heads: int

    def __call__(self, x_NTC: Tensor) -> Tensor:
        scores = (
            x_NTC.flatten(0, 1) @ self.scores_CE
        )  # as one product: of three dimensions it would be one for each frame
        shares = softmax_of_few(scores.unflatten(-1, (self.heads, -1))).flatten(-2)
        return torch.addmm(self.bias_C, shares, self.values_EC).view(x_NTC.shape)


def softmax_of_few(scores: Tensor) -> Tensor:
    """Over the last dimension, where it is short: PyTorch's kernel for a CPU takes six times as long there."""
    if not scores.is_cpu or torch.is_grad_enabled():
        return scores.softmax(dim=-1)
    shares = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
    return shares.div_(shares.sum(dim=-1, keepdim=True))


class CrossAttention(nn.Module):
    """Attn(x, context): Q from x, K and V from context (MoEE Eq. 1); biasless q/k/v, biased output, as in SD-1.5.
    ``multiple`` times as many heads of the same size, where more than the usual is wanted."""

    def __init__(self, width: int, context_width: int, heads: int, build: Build, multiple: int = 1):
        super().__init__()
        self.heads = heads * multiple
        self.width = width
        self.attention = build.attention
        inner = width * multiple
        self.to_q = build.linear(width, inner, bias=False)
        self.to_k = build.linear(context_width, inner, bias=False)
        self.to_v = build.linear(context_width, inner, bias=False)
        self.to_out = nn.ModuleList([build.linear(inner, width)])

    def forward(
        self,
        x_NTC: Tensor,
        context: Tensor | KeyValue | None = None,
        options: dict | None = None,
        beside: KeyValue | None = None,
    ) -> Tensor:
        """``context`` (N, S, C) or what ``kept`` made of it, None for x itself; ``beside`` stands behind it."""
        pieces = frame_pieces(x_NTC) if context is None else []
        if len(pieces) < 2:
            return self._read(x_NTC, context, options, beside)
        return torch.cat(
            [self._read(x_NTC[some], None, options, None if beside is None else beside.part(some)) for some in pieces]
        )

    def _read(
        self, x_NTC: Tensor, context: Tensor | KeyValue | None, options: dict | None, beside: KeyValue | None
    ) -> Tensor:
        if isinstance(context, KeyValue):
            keys, values = context.of(x_NTC.shape[0])
        else:
            source = x_NTC if context is None else context
            keys, values = self.to_k(source), self.to_v(source)
        if beside is not None:
            more_keys, more_values = beside.of(x_NTC.shape[0])
            keys, values = torch.cat([keys, more_keys], dim=1), torch.cat([values, more_values], dim=1)
        out = self.attention(self.to_q(x_NTC), keys, values, self.heads, transformer_options=options or {})
        return self.to_out[0](out)

    def over_frames(self, x_BFTC: Tensor, dropped: int, options: dict | None = None) -> Tensor:
        """Self-attention along the frames at every place of a grid, without the first ``dropped`` frames' outputs:
        (B, F - dropped, T, C). Layers see the frames one behind the other, and nothing is copied to turn them."""
        batch, _, places, _ = x_BFTC.shape

        def by_place(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(0, 1)  # (B*T, F, D)

        # behind each other before the layer, not in it: it takes a slice of one clip for many products of a frame each
        queries = self.to_q(x_BFTC[:, dropped:].flatten(0, 1)).unflatten(0, (batch, -1))
        keys, values = self.to_k(x_BFTC), self.to_v(x_BFTC)
        out = self.attention(
            by_place(queries), by_place(keys), by_place(values), self.heads, transformer_options=options or {}
        )
        return self.to_out[0](out.unflatten(0, (batch, places)).transpose(1, 2))

    def kept(self, context_RSC: Tensor, rows_N: Tensor | None = None) -> KeyValue:
        """Keys and values of a context that stays."""
        return KeyValue(keys_RSD=self.to_k(context_RSC), values_RSD=self.to_v(context_RSC), rows_N=rows_N)

    def folded(self, context_SC: Tensor) -> FewTokens | KeyValue:
        """The whole attention as two maps, where there are so few tokens that it is less work; otherwise ``kept``.

        The layers are asked for what they make of unit vectors: a host may hold their weights in a form of its own.
        """
        keys_SD, values_SD = self.to_k(context_SC), self.to_v(context_SC)
        tokens, inner = keys_SD.shape
        if self.heads * tokens > inner:
            return KeyValue(keys_RSD=keys_SD[None], values_RSD=values_SD[None])
        queries_CD = mapped(self.to_q, self.width, keys_SD)
        size = inner // self.heads
        scores_CHS = torch.einsum(
            "chd,shd->chs", queries_CD.unflatten(-1, (-1, size)), keys_SD.unflatten(-1, (-1, size)) * size**-0.5
        )
        alone_HSHd = torch.zeros(self.heads, tokens, self.heads, size).to(values_SD)
        head = torch.arange(self.heads, device=values_SD.device)
        alone_HSHd[head, :, head] = values_SD.unflatten(-1, (-1, size)).transpose(0, 1)
        bias_C = self.to_out[0](torch.zeros_like(values_SD[0]))
        return FewTokens(
            scores_CE=scores_CHS.flatten(1),
            values_EC=self.to_out[0](alone_HSHd.flatten(2).flatten(0, 1)) - bias_C,
            bias_C=bias_C,
            heads=self.heads,
        )


def mapped(layer: nn.Module, inputs: int, like: Tensor) -> Tensor:
    """(inputs, outputs): what a linear layer without a bias makes of every unit vector, in the type of ``like`` and
    where it is."""
    return layer(torch.eye(inputs, dtype=like.dtype, device=like.device))


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
        self.widest = 2 * width * multiple
        self.net = nn.ModuleList(
            [GEGLU(width, width * multiple, build), nn.Identity(), build.linear(width * multiple, width)]
        )

    def forward(self, x_NTC: Tensor) -> Tensor:
        return in_pieces(self._whole, x_NTC, self.widest)

    def _whole(self, x_NTC: Tensor) -> Tensor:
        for layer in self.net:
            x_NTC = layer(x_NTC)
        return x_NTC


Reference = Tensor | KeyValue | None
"""Tokens (N, S, C) of the portrait, or their keys and values."""
Identity = Tensor | FewTokens | KeyValue | None
"""Tokens (N, K, C) of who it is, or what an attention made of them."""


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
        self, x_NTC: Tensor, reference: Reference, identity: Identity, options: dict | None
    ) -> tuple[Tensor, Tensor]:
        normed = self.norm1(x_NTC)
        if reference is None or isinstance(reference, KeyValue):
            x_NTC = added(x_NTC, self.attn1(normed, None, options, beside=reference))
        else:
            context = torch.cat([normed, reference.to(normed.dtype)], dim=1)
            x_NTC = added(x_NTC, self.attn1(normed, context, options))
        if self.has_identity and identity is not None:
            query = self.norm2(x_NTC)
            few = isinstance(identity, FewTokens)
            x_NTC = added(x_NTC, identity(query) if few else self.attn2(query, identity, options))
        return added(x_NTC, self.ff(self.norm3(x_NTC))), normed


class SpatialTransformer(nn.Module):
    """norm - 1x1 conv - one transformer block over the grid's tokens - 1x1 conv - residual (SD-1.5's layout)."""

    def __init__(self, width: int, heads: int, identity_width: int, ff_multiple: int, groups: int, build: Build):
        super().__init__()
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.conv(width, width, kernel=1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, identity_width, ff_multiple, build)])
        self.proj_out = build.conv(width, width, kernel=1)

    def forward(
        self, x_NCHW: Tensor, reference: Reference, identity: Identity, options: dict | None
    ) -> tuple[Tensor, Tensor]:
        n, c, height, width = x_NCHW.shape
        tokens = self.proj_in(self.norm(x_NCHW)).flatten(2).transpose(1, 2)
        tokens, features = self.transformer_blocks[0](tokens, reference, identity, options)
        grid = tokens.transpose(1, 2).reshape(n, c, height, width)
        return added(x_NCHW, self.proj_out(grid)), features


class Downsample(nn.Module):
    """3x3 convolution with stride 2."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width, stride=2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv(laid_out(x_NCHW))


class Upsample(nn.Module):
    """Nearest neighbour to the size of the skip connection it will meet, then a 3x3 convolution."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.conv = build.conv(width, width)

    def forward(self, x_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(laid_out(F.interpolate(x_NCHW, size=size, mode="nearest")))
