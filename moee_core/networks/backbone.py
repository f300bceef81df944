"""The UNet skeleton that ReferenceNet and the denoiser share: Stable Diffusion 1.5's down, mid and up path.

Shapes (legend for this file):
    N frames, C channels, H W latent grid, E time-embedding width; ``sites`` are the places where a spatial
    transformer sits, numbered in the order they run: down blocks, mid block, up blocks.

A subclass of ``Site`` decides what happens around each spatial transformer (audio, experts, temporal attention).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion.sampler import DeepFeatures
from ..ops import Build
from .blocks import Downsample, ResnetBlock, Upsample
from .config import PortraitUNetConfig


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a site stands: its channels, its level of the UNet, and the channels that enter its block.

    ``attention`` is False at levels without spatial attention, where a network may have sites of another kind or none.
    """

    width: int
    level: int
    entering: int
    attention: bool = True


MakeSite = Callable[[Place], nn.Module | None]
"""The site of a place, None for no site; all places of a block alike."""
RunSite = Callable[[nn.Module, Tensor], Tensor]


def _sites(places: list[Place], make_site: MakeSite) -> nn.ModuleList:
    return nn.ModuleList(site for site in map(make_site, places) if site is not None)


class DownBlock(nn.Module):
    """``layers_per_block`` times (residual block, site), then a downsampling except at the last level."""

    def __init__(self, config: PortraitUNetConfig, level: int, make_site: MakeSite, build: Build):
        super().__init__()
        widths = config.block_widths
        before = widths[max(level - 1, 0)]
        count, width = config.layers_per_block, widths[level]
        self.resnets = nn.ModuleList(
            ResnetBlock(before if i == 0 else width, width, config.time_width, config.norm_groups, build)
            for i in range(count)
        )
        attention = config.attention_levels[level]
        places = [
            Place(width=width, level=level, entering=before if i == 0 else width, attention=attention)
            for i in range(count)
        ]
        self.sites = _sites(places, make_site)
        self.downsample = Downsample(width, build) if level + 1 < len(widths) else None

    def forward(self, x: Tensor, emb: Tensor, run: RunSite, *, downsampled: bool = True) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for index, resnet in enumerate(self.resnets):
            x = resnet(x, emb)
            if index < len(self.sites):
                x = run(self.sites[index], x)
            skips.append(x)
        if self.downsample is not None and downsampled:
            x = self.downsample(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """Residual block, site, residual block."""

    def __init__(self, config: PortraitUNetConfig, make_site: MakeSite, build: Build):
        super().__init__()
        width = config.block_widths[-1]
        self.resnets = nn.ModuleList(
            ResnetBlock(width, width, config.time_width, config.norm_groups, build) for _ in range(2)
        )
        self.sites = _sites([Place(width=width, level=len(config.block_widths) - 1, entering=width)], make_site)

    def forward(self, x: Tensor, emb: Tensor, run: RunSite) -> Tensor:
        x = run(self.sites[0], self.resnets[0](x, emb))
        return self.resnets[1](x, emb)


class UpBlock(nn.Module):
    """``layers_per_block + 1`` times (join a skip, residual block, site), then an upsampling except at level 0."""

    def __init__(self, config: PortraitUNetConfig, level: int, make_site: MakeSite, build: Build):
        super().__init__()
        widths = config.block_widths
        width = widths[level]
        below = widths[min(level + 1, len(widths) - 1)]
        count = config.layers_per_block + 1
        above = widths[max(level - 1, 0)]
        skips = [width] * config.layers_per_block + [above]
        self.resnets = nn.ModuleList(
            ResnetBlock((below if i == 0 else width) + skips[i], width, config.time_width, config.norm_groups, build)
            for i in range(count)
        )
        # what enters an up block is counted by the skip that closes it, as the family's code does
        place = Place(width=width, level=level, entering=above, attention=config.attention_levels[level])
        self.sites = _sites([place] * count, make_site)
        self.upsample = Upsample(width, build) if level > 0 else None

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, run: RunSite) -> Tensor:
        for index, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            if index < len(self.sites):
                x = run(self.sites[index], x)
        if self.upsample is not None:
            height, width = skips[-1].shape[-2:]
            x = self.upsample(x, (height, width))
        return x


class Backbone(nn.Module):
    """conv_in - down blocks - mid block - up blocks. ``run`` is called with each site and its input, in order.

    ``to_last_site`` leaves out what would run behind the last site: a network whose only output is its sites.
    """

    def __init__(
        self, config: PortraitUNetConfig, inputs: int, make_site: MakeSite, build: Build, to_last_site: bool = False
    ):
        super().__init__()
        levels = range(len(config.block_widths))
        first = config.attention_levels.index(True) if to_last_site else 0
        self.conv_in = build.conv(inputs, config.block_widths[0])
        self.down_blocks = nn.ModuleList(DownBlock(config, level, make_site, build) for level in levels)
        self.mid_block = MidBlock(config, make_site, build)
        self.up_blocks = nn.ModuleList(UpBlock(config, level, make_site, build) for level in reversed(levels[first:]))

    def forward(
        self, x: Tensor, emb: Tensor, run: RunSite, added: Tensor | None = None, deep: DeepFeatures | None = None
    ) -> Tensor:
        """``added`` (N, C0, H, W): spatial features added after conv_in. ``deep`` keeps what the last up block reads
        from below; what it holds already is not worked out again."""
        x = self.conv_in(x)
        if added is not None:
            x = x + added
        skips = [x]
        if deep is not None and deep.entering is not None:
            skips += self.down_blocks[0](x, emb, run, downsampled=False)[1]
            return self.up_blocks[-1](deep.entering, skips, emb, run)
        for block in self.down_blocks:
            x, more = block(x, emb, run)
            skips.extend(more)
        x = self.mid_block(x, emb, run)
        *below, last = self.up_blocks
        for block in below:
            x = block(x, skips, emb, run)
        if deep is not None:
            deep.entering = x
        return last(x, skips, emb, run)
