"""Building blocks of the Stable Video Diffusion family: convolutions and attention along time, adapters.

Shapes (legend for this file):
    B guidance branches, F frames of a window, N = B * F, frames folded into the batch; C channels, H W grid, T = H * W,
    E time embedding, S tokens of a context, D context width
    x_NCHW feature maps; x_NTC tokens; emb_NE

Layout and numbers are those of diffusers' UNetSpatioTemporalConditionModel, which is the test oracle; the adapters are
those of Sonic and DICE-Talk (Tan et al. 2025, section 3): one cross-attention, further keys and values, whose outputs
are added before the output layer:
    out = W_o (Attn(q, K, V) + sum_a s_a M_a * Attn(q, K_a, V_a))
with one number s_a and, within a frame, a map M_a for each adapter. Attention along time reads of every context its
mean over the window's frames, the same at all places, so its keys and values are made once and not at every place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..ops import Build, added
from .blocks import CrossAttention, FeedForward, ResnetBlock, TimeEmbedding, laid_out, silu


class TimeMixer(nn.Module):
    """sigmoid(m) x_space + (1 - sigmoid(m)) x_time. The number is a leaf module of its own, so that a host can stream
    it."""

    def __init__(self, build: Build):
        super().__init__()
        self.mix_factor = build.embedding(1, 1)

    def forward(self, space: Tensor, time: Tensor) -> Tensor:
        """In the memory of ``time`` where there are no gradients: nobody else may hold it."""
        factor = self.mix_factor(torch.zeros(1, dtype=torch.long, device=space.device))
        share = factor.float().sigmoid().to(space.dtype).view(1)
        return time + share * (space - time) if torch.is_grad_enabled() else time.lerp_(space, share)


class TemporalResnetBlock(nn.Module):
    """norm - SiLU - conv over three frames, plus time embedding, norm - SiLU - conv, plus x. The norms are over the
    frames of a window too."""

    def __init__(self, width: int, time_width: int, groups: int, build: Build, eps: float):
        super().__init__()
        self.norm1 = build.group_norm(groups, width, eps=eps)
        self.conv1 = build.conv_over_time(width)
        self.time_emb_proj = build.linear(time_width, width)
        self.norm2 = build.group_norm(groups, width, eps=eps)
        self.conv2 = build.conv_over_time(width)

    def forward(self, x_BCFHW: Tensor, emb_BFE: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x_BCFHW)))
        shift_BFC = self.time_emb_proj(nn.functional.silu(emb_BFE))
        h = added(shift_BFC.transpose(1, 2)[..., None, None], h)
        return added(x_BCFHW, self.conv2(silu(self.norm2(h))))


class VideoResnetBlock(nn.Module):
    """A residual block within each frame, one along time, and the mix of both."""

    def __init__(self, inputs: int, outputs: int, time_width: int, groups: int, build: Build, eps: float):
        super().__init__()
        self.spatial_res_block = ResnetBlock(inputs, outputs, time_width, groups, build, eps=eps)
        self.temporal_res_block = TemporalResnetBlock(outputs, time_width, groups, build, eps)
        self.time_mixer = TimeMixer(build)

    def forward(self, x_NCHW: Tensor, emb_NE: Tensor, frames: int) -> Tensor:
        space = self.spatial_res_block(x_NCHW, emb_NE)
        window = space.unflatten(0, (-1, frames))
        time = self.temporal_res_block(window.transpose(1, 2), emb_NE.unflatten(0, (-1, frames)))
        return self.time_mixer(window, time.transpose(1, 2)).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Keys and values (R, S, C) of one context, made once: one row for each frame (R = N), or for each branch."""

    keys_RSC: Tensor
    values_RSC: Tensor


@dataclass(frozen=True, kw_only=True)
class KeptContext:
    """What one cross-attention makes of all contexts. ``image``: of one token, whose attention is its value whatever
    asks for it, (R, 1, C); or keys and values. ``adapters``: None for one that is off."""

    image: Tensor | Heard
    adapters: tuple[Heard | None, ...]


class Adapter(nn.Module):
    """Keys and values of one more context."""

    def __init__(self, width: int, context_width: int, build: Build):
        super().__init__()
        self.to_k = build.linear(context_width, width, bias=False)
        self.to_v = build.linear(context_width, width, bias=False)

    def heard(self, context_RSD: Tensor) -> Heard:
        return Heard(keys_RSC=self.to_k(context_RSD), values_RSC=self.to_v(context_RSD))


class AdaptedAttention(CrossAttention):
    """See the module's docstring."""

    def __init__(self, width: int, context_width: int, heads: int, adapters: int, build: Build):
        super().__init__(width, context_width, heads, build)
        self.adapters = nn.ModuleList(Adapter(width, context_width, build) for _ in range(adapters))

    def kept_contexts(self, image_RSD: Tensor, adapted: Sequence[Tensor | None]) -> KeptContext:
        """``adapted`` (R, S, D) for each adapter, None for one that is off."""
        if len(adapted) != len(self.adapters):
            raise ValueError(f"{len(self.adapters)} adapters read a context each, got {len(adapted)} contexts")
        values = self.to_v(image_RSD)
        alone = image_RSD.shape[1] == 1
        return KeptContext(
            image=values if alone else Heard(keys_RSC=self.to_k(image_RSD), values_RSC=values),
            adapters=tuple(
                None if context is None else adapter.heard(context)
                for adapter, context in zip(self._adapters(), adapted, strict=True)
            ),
        )

    def _adapters(self) -> list[Adapter]:
        return [adapter for adapter in self.adapters if isinstance(adapter, Adapter)]

    def read(
        self,
        x_RTC: Tensor,
        kept: KeptContext,
        scales: Sequence[Tensor | float],
        options: dict | None = None,
    ) -> Tensor:
        """``scales`` of the adapters: a number, or a number for every token (1 or R, T, 1)."""
        asked: list[Tensor] = []  # nothing is asked for where the image is one token and every adapter is off

        def attend(heard: Heard) -> Tensor:
            if not asked:
                asked.append(self.to_q(x_RTC))
            keys, values = heard.keys_RSC, heard.values_RSC
            return self.attention(asked[0], keys, values, self.heads, transformer_options=options or {})

        out = attend(kept.image) if isinstance(kept.image, Heard) else kept.image
        for heard, scale in zip(kept.adapters, scales, strict=True):
            if heard is not None:
                out = added(out, attend(heard) * scale)
        return self.to_out[0](out)


class FrameBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward within each frame."""

    def __init__(self, width: int, heads: int, context_width: int, adapters: int, build: Build):
        super().__init__()
        self.norm1 = build.layer_norm(width)
        self.attn1 = CrossAttention(width, width, heads, build)
        self.norm2 = build.layer_norm(width)
        self.attn2 = AdaptedAttention(width, context_width, heads, adapters, build)
        self.norm3 = build.layer_norm(width)
        self.ff = FeedForward(width, 4, build)

    def forward(
        self, x_NTC: Tensor, kept: KeptContext, scales: Sequence[Tensor | float], options: dict | None
    ) -> Tensor:
        x_NTC = added(x_NTC, self.attn1(self.norm1(x_NTC), None, options))
        x_NTC = added(x_NTC, self.attn2.read(self.norm2(x_NTC), kept, scales, options))
        return added(x_NTC, self.ff(self.norm3(x_NTC)))


class TimeBlock(nn.Module):
    """Feed-forward, self-attention along the frames at every place, cross-attention and feed-forward. All but the
    self-attention look at each token alone, so nothing is turned for them."""

    def __init__(self, width: int, heads: int, context_width: int, adapters: int, build: Build):
        super().__init__()
        self.norm_in = build.layer_norm(width)
        self.ff_in = FeedForward(width, 4, build)
        self.norm1 = build.layer_norm(width)
        self.attn1 = CrossAttention(width, width, heads, build)
        self.norm2 = build.layer_norm(width)
        self.attn2 = AdaptedAttention(width, context_width, heads, adapters, build)
        self.norm3 = build.layer_norm(width)
        self.ff = FeedForward(width, 4, build)

    def forward(self, x_BFTC: Tensor, kept: KeptContext, scales: Sequence[float], options: dict | None) -> Tensor:
        _, frames, places, _ = x_BFTC.shape
        x_BFTC = added(x_BFTC, self.ff_in(self.norm_in(x_BFTC)))
        x_BFTC = x_BFTC + self.attn1.over_frames(self.norm1(x_BFTC), 0, options)
        asked = self.norm2(x_BFTC).flatten(1, 2)  # all tokens of a branch read the same contexts
        update = self.attn2.read(asked, kept, scales, options)
        x_BFTC = added(x_BFTC, update.unflatten(1, (frames, places)) if update.shape[1] > 1 else update[:, None])
        return added(x_BFTC, self.ff(self.norm3(x_BFTC)))


class VideoTransformer(nn.Module):
    """norm - linear - a block within each frame, one along time, the mix of both - linear - residual."""

    def __init__(self, width: int, heads: int, context_width: int, adapters: int, groups: int, build: Build):
        super().__init__()
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.linear(width, width)
        self.transformer_blocks = nn.ModuleList([FrameBlock(width, heads, context_width, adapters, build)])
        self.temporal_transformer_blocks = nn.ModuleList([TimeBlock(width, heads, context_width, adapters, build)])
        self.time_pos_embed = TimeEmbedding(width, 4 * width, build, outputs=width)
        self.time_mixer = TimeMixer(build)
        self.proj_out = build.linear(width, width)

    def attentions(self) -> tuple[AdaptedAttention, AdaptedAttention]:
        """The cross-attention within frames, and the one along time."""
        frame, time = self.transformer_blocks[0], self.temporal_transformer_blocks[0]
        assert isinstance(frame, FrameBlock)
        assert isinstance(time, TimeBlock)
        return frame.attn2, time.attn2

    def forward(
        self,
        x_NCHW: Tensor,
        frames: int,
        kept: tuple[KeptContext, KeptContext],
        scales: tuple[Sequence[Tensor | float], Sequence[float]],
        options: dict | None,
    ) -> Tensor:
        """``kept`` and ``scales`` of the attention within frames, and of the one along time."""
        n, c, height, width = x_NCHW.shape
        tokens = self.proj_in(self.norm(x_NCHW).flatten(2).transpose(1, 2))
        space = self.transformer_blocks[0](tokens, kept[0], scales[0], options)
        numbers = torch.arange(frames, device=x_NCHW.device)
        position_FC = self.time_pos_embed(numbers, x_NCHW.dtype)
        window = space.unflatten(0, (-1, frames))
        time = self.temporal_transformer_blocks[0](window + position_FC[:, None], kept[1], scales[1], options)
        mixed = self.proj_out(self.time_mixer(window, time).flatten(0, 1))
        return added(x_NCHW, mixed.transpose(1, 2).reshape(n, c, height, width))


class Resample(nn.Module):
    """A 3x3 convolution: with stride 2, or behind a doubling of every side to the size of the skip it will meet."""

    def __init__(self, width: int, build: Build, *, up: bool):
        super().__init__()
        self.up = up
        self.conv = build.conv(width, width, stride=1 if up else 2)

    def forward(self, x_NCHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if self.up:
            x_NCHW = nn.functional.interpolate(x_NCHW, size=size, mode="nearest")
        return self.conv(laid_out(x_NCHW))
