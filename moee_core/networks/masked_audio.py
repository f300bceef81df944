"""Hallo's audio module: three cross-attentions to the speech, each confined to a region of the picture.

Shapes (legend for this file):
    N frames, C width of the site, D width inside the module, H W grid of the level, T = H * W, S audio tokens,
    A audio width, R = 3 regions: around the face (where the head's pose shows), the face without the lips, the lips
    x_NCHW, audio_NSA, maps_NRHW in [0, 1] -> x'_NCHW

Equation (Xu et al. 2024, "Hallo", hierarchical audio-driven visual synthesis; order and places of the layers as in the
authors' published code): with h = W_in GN(x), h <- h + SelfAttn(LN h), then
    h <- h + sum_r a_r Z_r(M_r * CrossAttn_r(LN h, audio)),   h <- h + FF(LN h),   x' = x + W_out h
where M_r is the region's map at this level, Z_r a 1x1 convolution and a_r the region's strength (pose, face, lip). The
convolution's bias acts everywhere, inside the region and outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from .blocks import CrossAttention, FeedForward

REGIONS = ("pose", "face", "lip")


@dataclass(frozen=True, kw_only=True)
class SpeechRegions:
    """Where speech acts, and how strongly.

    ``levels``: for each level of the UNet (N, R, H_l, W_l) in [0, 1]. ``strengths``: of pose, face and lip, 1 is
    Hallo's own.
    """

    levels: tuple[Tensor, ...]
    strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for level, maps in enumerate(self.levels):
            if maps.ndim != 4 or maps.shape[1] != len(REGIONS):
                raise ValueError(
                    f"the maps of level {level} must be (frames, {len(REGIONS)}, height, width), "
                    f"got {tuple(maps.shape)}"
                )

    @staticmethod
    def of(maps_NRHW: Tensor, levels: int, strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SpeechRegions:
        """From maps of the latents' size; every further level is half as large, rounded up, as the UNet's are."""
        height, width = maps_NRHW.shape[-2:]
        sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels)]
        exact = maps_NRHW.float()  # a CPU does not resize in half precision
        smaller = [
            F.interpolate(exact, size, mode="bilinear", antialias=True).to(maps_NRHW.dtype) for size in sizes[1:]
        ]
        return SpeechRegions(levels=(maps_NRHW, *smaller), strengths=strengths)

    def frames(self, count: int) -> SpeechRegions:
        """The maps of one picture for each of ``count`` frames, without copying them."""
        return SpeechRegions(levels=tuple(x.expand(count, -1, -1, -1) for x in self.levels), strengths=self.strengths)

    def to(self, device: torch.device) -> SpeechRegions:
        return SpeechRegions(levels=tuple(x.to(device) for x in self.levels), strengths=self.strengths)


class MaskedAudioAttention(nn.Module):
    """See the module's docstring. ``inner`` is D, ``level`` the one of the UNet that the module stands in."""

    def __init__(
        self,
        width: int,
        inner: int,
        audio_width: int,
        heads: int,
        ff_multiple: int,
        groups: int,
        level: int,
        build: Build,
    ):
        super().__init__()
        self.level = level
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.conv(width, inner, kernel=1)
        self.norm1 = build.layer_norm(inner)
        self.attn1 = CrossAttention(inner, inner, heads, build)
        self.norm2 = build.layer_norm(inner)
        self.speech = nn.ModuleList(CrossAttention(inner, audio_width, heads, build) for _ in REGIONS)
        self.zero_convs = nn.ModuleList(build.conv(inner, inner, kernel=1) for _ in REGIONS)
        self.norm3 = build.layer_norm(inner)
        self.ff = FeedForward(inner, ff_multiple, build)
        self.proj_out = build.conv(inner, width, kernel=1)

    def forward(self, x_NCHW: Tensor, audio_NSA: Tensor, regions: SpeechRegions, options: dict | None = None) -> Tensor:
        n, _, height, width = x_NCHW.shape
        maps_NRHW = self._maps(regions.levels, n, height, width).to(x_NCHW.dtype)
        grid_NDHW = self.proj_in(self.norm(x_NCHW))
        tokens_NTD = grid_NDHW.flatten(2).transpose(1, 2)
        tokens_NTD = tokens_NTD + self.attn1(self.norm1(tokens_NTD), None, options)
        query_NTD = self.norm2(tokens_NTD)
        for index, (attention, zero_conv) in enumerate(zip(self.speech, self.zero_convs, strict=True)):
            heard_NDT = attention(query_NTD, audio_NSA, options).transpose(1, 2)
            heard_NDHW = heard_NDT.reshape(n, -1, height, width) * maps_NRHW[:, index : index + 1]
            update_NTD = zero_conv(heard_NDHW).flatten(2).transpose(1, 2)
            tokens_NTD = tokens_NTD + regions.strengths[index] * update_NTD
        tokens_NTD = tokens_NTD + self.ff(self.norm3(tokens_NTD))
        return x_NCHW + self.proj_out(tokens_NTD.transpose(1, 2).reshape(n, -1, height, width))

    def _maps(self, levels: Sequence[Tensor], frames: int, height: int, width: int) -> Tensor:
        if self.level >= len(levels):
            raise ValueError(f"speech regions are given for {len(levels)} levels, level {self.level} reads them too")
        maps = levels[self.level]
        if maps.shape[0] != frames or maps.shape[-2:] != (height, width):
            raise ValueError(
                f"the speech regions of level {self.level} are for {maps.shape[0]} frames of "
                f"{tuple(maps.shape[-2:])}, the hidden states are {frames} frames of {(height, width)}"
            )
        return maps
