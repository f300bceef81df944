"""ReferenceNet: a UNet over the portrait whose attention features the denoiser reads at every site.

Shapes (legend for this file):
    R pictures (portraits and motion frames), Cz latent channels, H W latent grid, C_s, T_s width, tokens of site s
    latents_RZHW -> tuple over sites of (R, T_s, C_s): the normed tokens in front of each self-attention

It runs once for a portrait and once per window for the motion frames, at time-step 0, and has no output layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..ops import Build
from .backbone import Backbone, Place
from .blocks import SpatialTransformer, TimeEmbedding
from .config import PortraitUNetConfig


@dataclass(frozen=True, kw_only=True)
class ReferenceFeatures:
    """What the denoiser reads.

    ``sites``: per site (B, T_s, C_s) of the portrait, or (B * F, T_s, C_s) where every frame reads its own.
    ``rows_N`` says instead which row of ``sites`` each of the N frames reads, None where the rows' number tells.
    ``motion``: per site (B, k, T_s, C_s) of the last frames of the previous window, or None. ``latent`` (B, Cz, H, W):
    the portrait's own latent, used by the reference anchor.
    """

    sites: tuple[Tensor, ...]
    latent: Tensor
    motion: tuple[Tensor, ...] | None = None
    rows_N: Tensor | None = None

    def rounded(self, dtype: torch.dtype = torch.float16) -> ReferenceFeatures:
        """The features as they come out of another type's storage, in their own type: Hallo keeps them in half
        precision whatever the networks compute in."""

        def through(tokens: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(x.to(dtype).to(x.dtype) for x in tokens)

        return replace(self, sites=through(self.sites), motion=None if self.motion is None else through(self.motion))

    def batched(self, times: int) -> ReferenceFeatures:
        """The same reference for ``times`` guidance branches: the batch repeated."""

        def repeat(x: Tensor) -> Tensor:
            return x.repeat(times, *[1] * (x.ndim - 1))

        rows = self.rows_N
        return ReferenceFeatures(
            sites=tuple(repeat(x) for x in self.sites),
            latent=repeat(self.latent),
            motion=None if self.motion is None else tuple(repeat(x) for x in self.motion),
            rows_N=None if rows is None else torch.cat([rows + i * len(self.sites[0]) for i in range(times)]),
        )


class ReferenceNet(nn.Module):
    """Same backbone and widths as the denoiser; spatial transformers only."""

    def __init__(self, config: PortraitUNetConfig, build: Build):
        super().__init__()
        self.config = config

        def site(place: Place) -> nn.Module | None:
            if not place.attention:
                return None
            return SpatialTransformer(
                place.width, config.heads, config.identity_width, config.ff_multiple, config.norm_groups, build
            )

        self.time_embedding = TimeEmbedding(config.block_widths[0], config.time_width, build)
        self.backbone = Backbone(config, config.latent_channels, site, build, to_last_site=True)

    def forward(self, latents_RZHW: Tensor, identity_RKC: Tensor | None = None) -> tuple[Tensor, ...]:
        features: list[Tensor] = []

        def run(site: nn.Module, x: Tensor) -> Tensor:
            x, tokens = site(x, None, identity_RKC, None)
            features.append(tokens)
            return x

        zero = torch.zeros(latents_RZHW.shape[0], device=latents_RZHW.device)
        self.backbone(latents_RZHW, self.time_embedding(zero, latents_RZHW.dtype), run)
        return tuple(features)

    def reference(
        self, portrait_BZHW: Tensor, motion_BkZHW: Tensor | None = None, identity_BKC: Tensor | None = None
    ) -> ReferenceFeatures:
        """Portrait and motion frames through the network in one batch."""
        batch = portrait_BZHW.shape[0]
        pictures, identity = portrait_BZHW, identity_BKC
        if motion_BkZHW is not None:
            count = motion_BkZHW.shape[1]
            pictures = torch.cat([portrait_BZHW, motion_BkZHW.flatten(0, 1)])
            if identity_BKC is not None:
                identity = torch.cat([identity_BKC, identity_BKC.repeat_interleave(count, dim=0)])
        features = self(pictures, identity)
        return ReferenceFeatures(
            sites=tuple(x[:batch] for x in features),
            latent=portrait_BZHW,
            motion=None if motion_BkZHW is None else motion_features(features, batch),
        )


def motion_features(features: Sequence[Tensor], skip: int) -> tuple[Tensor, ...]:
    """(skip + skip * k, T, C) per site -> (skip, k, T, C): the part behind the first ``skip`` pictures."""
    return tuple(x[skip:].view(skip, -1, *x.shape[1:]) for x in features)
