"""The SVD family's UNet with adapters: what DICE-Talk draws with.

Shapes (legend for this file):
    B guidance branches, F frames of a window, N = B * F, frames folded into the batch; Z latent channels in and out,
    H W latent grid; S tokens of a context of width D; K numbers beside the time-step (frame rate, motion, ...)
    x_NZHW noisy latents joined by the portrait's; t (1,) or (N,); ids_BK; image_NSD; adapted (N, S, D) for each adapter
    -> v_NZHW

Contexts differ from frame to frame, where plain SVD has one for all; attention along time reads their mean over the
window. An adapter's part is weighed within frames by a map, where one is given, and along time by its scale alone. With
no adapter this is Stable Video Diffusion, whose one context is that of all frames.

What the layers make of contexts is worked out once by ``kept``, for all steps of a window: a context's keys and values
do not change with the time-step, and the same are read at all places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build, added
from .blocks import TimeEmbedding
from .config import VideoUNetConfig
from .video_blocks import AdaptedAttention, KeptContext, Resample, VideoResnetBlock, VideoTransformer

KeptContexts = tuple[tuple[KeptContext, KeptContext], ...]
"""Of every transformer, in the order they run: what its attention within frames and that along time make of it."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What is read besides the hidden states."""

    frames: int
    kept: KeptContexts
    scales: tuple[float, ...]
    maps: dict[tuple[int, int], Tensor]
    options: dict | None

    def within(self, size: tuple[int, int]) -> Sequence[Tensor | float]:
        found = self.maps.get(size)
        return self.scales if found is None else tuple(scale * found for scale in self.scales)


class _Block(nn.Module):
    """Residual blocks, transformers where the level has them, and a resampling, under the names of diffusers."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module]):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.first = 0
        """Number of the first of its transformers."""

    def layer(self, index: int, x: Tensor, emb: Tensor, read: _Read) -> Tensor:
        x = self.resnets[index](x, emb, read.frames)
        return self.attend(index, x, read) if len(self.attentions) else x

    def attend(self, index: int, x: Tensor, read: _Read) -> Tensor:
        scales = (read.within((x.shape[-2], x.shape[-1])), read.scales)
        return self.attentions[index](x, read.frames, read.kept[self.first + index], scales, read.options)


class _Down(_Block):
    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], downsample: nn.Module | None):
        super().__init__(resnets, attentions)
        self.downsample = downsample

    def forward(self, x: Tensor, emb: Tensor, read: _Read) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, emb, read)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x, skips


class _Mid(_Block):
    def forward(self, x: Tensor, emb: Tensor, read: _Read) -> Tensor:
        x = self.attend(0, self.resnets[0](x, emb, read.frames), read)
        return self.resnets[1](x, emb, read.frames)


class _Up(_Block):
    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], upsample: nn.Module | None):
        super().__init__(resnets, attentions)
        self.upsample = upsample

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, read: _Read) -> Tensor:
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], dim=1), emb, read)
        if self.upsample is not None:
            height, width = skips[-1].shape[-2:]
            x = self.upsample(x, (height, width))
        return x


class VideoUNet(nn.Module):
    """See the module's docstring. ``options`` is ComfyUI's ``transformer_options``."""

    def __init__(self, config: VideoUNetConfig, build: Build):
        super().__init__()
        self.config = config
        widths, levels = config.block_widths, range(len(config.block_widths))
        self.conv_in = build.conv(config.channels_in, widths[0])
        self.time_embedding = TimeEmbedding(widths[0], config.time_width, build)
        self.add_embedding = TimeEmbedding(config.id_width, config.time_width, build, numbers=config.ids)

        def resnet(inputs: int, outputs: int, eps: float) -> nn.Module:
            return VideoResnetBlock(inputs, outputs, config.time_width, config.norm_groups, build, eps)

        def transformers(level: int, count: int) -> list[nn.Module]:
            one = (widths[level], config.heads[level], config.context_width, config.adapters, config.norm_groups, build)
            return [VideoTransformer(*one) for _ in range(count)] if config.attention_levels[level] else []

        downs: list[nn.Module] = []
        for level in levels:
            count, before = config.layers_per_block[level], widths[max(level - 1, 0)]
            eps = 1e-6 if config.attention_levels[level] else 1e-5
            resnets = [resnet(before if i == 0 else widths[level], widths[level], eps) for i in range(count)]
            last = level == levels[-1]
            down = None if last else Resample(widths[level], build, up=False)
            downs.append(_Down(resnets, transformers(level, count), down))
        self.down_blocks = nn.ModuleList(downs)
        deepest = levels[-1]
        middle = VideoTransformer(
            widths[-1], config.heads[deepest], config.context_width, config.adapters, config.norm_groups, build
        )
        self.mid_block = _Mid([resnet(widths[-1], widths[-1], 1e-5) for _ in range(2)], [middle])
        ups: list[nn.Module] = []
        for level in reversed(levels):
            count, width = config.layers_per_block[level] + 1, widths[level]
            below, above = widths[min(level + 1, deepest)], widths[max(level - 1, 0)]
            skips = [width] * (count - 1) + [above]
            resnets = [resnet((below if i == 0 else width) + skips[i], width, 1e-6) for i in range(count)]
            up = Resample(width, build, up=True) if level > 0 else None
            ups.append(_Up(resnets, transformers(level, count), up))
        self.up_blocks = nn.ModuleList(ups)
        self.conv_norm_out = build.group_norm(config.norm_groups, widths[0])
        self.conv_out = build.conv(widths[0], config.channels_out)
        number = 0
        for block in self._blocks():
            block.first = number
            number += len(block.attentions)

    def _blocks(self) -> list[_Block]:
        found = [*self.down_blocks, self.mid_block, *self.up_blocks]
        return [block for block in found if isinstance(block, _Block)]

    def attentions(self) -> list[tuple[AdaptedAttention, AdaptedAttention]]:
        """Of every transformer, in the order they run, the cross-attention within frames and the one along time."""
        found = [one for block in self._blocks() for one in block.attentions]
        return [one.attentions() for one in found if isinstance(one, VideoTransformer)]

    def kept(self, image_NSD: Tensor, adapted: Sequence[Tensor | None], frames: int) -> KeptContexts:
        """All contexts of a window as the layers read them, (N, S, D) each: the picture's, and one for each adapter,
        None for one that is off."""
        for index, context in enumerate(adapted):
            if context is not None and context.shape[0] != image_NSD.shape[0]:
                raise ValueError(
                    f"adapter {index} needs a context for each of {image_NSD.shape[0]} frames, got {context.shape[0]}"
                )

        def over_window(context_NSD: Tensor) -> Tensor:
            return context_NSD.unflatten(0, (-1, frames)).mean(dim=1)

        means = [None if one is None else over_window(one) for one in adapted]
        return tuple(
            (within.kept_contexts(image_NSD, adapted), along.kept_contexts(over_window(image_NSD), means))
            for within, along in self.attentions()
        )

    def forward(
        self,
        x_NZHW: Tensor,
        t_N: Tensor,
        *,
        frames: int,
        ids_BK: Tensor,
        kept: KeptContexts,
        scales: Sequence[float] | None = None,
        mask_RHW: Tensor | None = None,
        added_NCHW: Tensor | None = None,
        options: dict | None = None,
    ) -> Tensor:
        """``scales`` of the adapters, 1 each if not given. ``mask_RHW``: where adapters act within a frame, as large as
        the picture, one for all or one for each row of ``ids_BK``; None is everywhere. ``added_NCHW``: features added
        behind conv_in."""
        if x_NZHW.shape[0] != ids_BK.shape[0] * frames:
            raise ValueError(
                f"{x_NZHW.shape[0]} latents are not {frames} frames for each of {ids_BK.shape[0]} rows of ids_BK"
            )
        time = self.time_embedding(t_N, x_NZHW.dtype)
        emb = self.add_embedding(ids_BK, x_NZHW.dtype).repeat_interleave(frames, dim=0) + time
        read = _Read(
            frames=frames,
            kept=kept,
            scales=(1.0,) * self.config.adapters if scales is None else tuple(scales),
            maps={} if mask_RHW is None else self._maps(mask_RHW, x_NZHW, frames),
            options=options,
        )
        x = self.conv_in(x_NZHW)
        if added_NCHW is not None:
            x = added(added_NCHW, x)
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, emb, read)
            skips.extend(more)
        x = self.mid_block(x, emb, read)
        for block in self.up_blocks:
            x = block(x, skips, emb, read)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _maps(self, mask_RHW: Tensor, x_NZHW: Tensor, frames: int) -> dict[tuple[int, int], Tensor]:
        if len(mask_RHW) > 1:
            if len(mask_RHW) * frames != len(x_NZHW):
                raise ValueError(f"{len(mask_RHW)} masks are not one for each of {len(x_NZHW) // frames} rows")
            mask_RHW = mask_RHW.repeat_interleave(frames, dim=0)
        height, width = x_NZHW.shape[-2:]
        sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(len(self.config.block_widths))]
        return {size: mask_at(mask_RHW, size).to(x_NZHW) for size in sizes}


def mask_at(mask_RHW: Tensor, size: tuple[int, int]) -> Tensor:
    """(R, T, 1) the mask on a level's grid: bicubic without antialiasing, as the authors' adapters resize it, so that
    values may lie a little outside of [0, 1]."""
    return F.interpolate(mask_RHW[:, None].float(), size=size, mode="bicubic").flatten(2).transpose(1, 2)
