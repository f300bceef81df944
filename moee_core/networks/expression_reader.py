"""A small network that reads action units off a picture: a stand-in for a detector such as OpenGraphAU.

Shapes (legend for this file): N pictures, s = 64 pixels of a side
    picture_N3ss in [-1, 1], a face that fills the frame
    -> units (N, 20) in the order of ``coefficients.UNITS``; mouth (N, 4) in that of ``coefficients.MOUTH``; lids (N,)

It tells what speech does to a mouth from what an expression does, as far as one picture tells, and closed lids from
lowered brows. It has only ever seen drawn faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..motion.coefficients import MOUTH, UNITS
from ..ops import Build

SIDE = 64
OUTPUTS = len(UNITS) + len(MOUTH) + 1


@dataclass(frozen=True, kw_only=True)
class ExpressionReaderConfig:
    """``widths`` of the four halvings, ``hidden`` of the layer that sees the whole face."""

    widths: tuple[int, int, int, int] = (24, 48, 64, 96)
    blocks: int = 2
    hidden: int = 160

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise ValueError(f"ExpressionReaderConfig.widths are four counts of channels, got {self.widths}")
        for name in ("blocks", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"ExpressionReaderConfig.{name} must be at least 1, got {getattr(self, name)}")


class _Residual(nn.Module):
    def __init__(self, width: int, build: Build):
        super().__init__()
        self.norm = build.group_norm(8 if width % 8 == 0 else 1, width)
        self.conv_1 = build.conv(width, width)
        self.conv_2 = build.conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_2(F.silu(self.conv_1(F.silu(self.norm(x)))))


class ExpressionReader(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: ExpressionReaderConfig, build: Build):
        super().__init__()
        self.config = config
        inputs = (3, *config.widths[:3])
        self.halvings = nn.ModuleList(build.conv(a, b, stride=2) for a, b in zip(inputs, config.widths, strict=True))
        self.blocks = nn.ModuleList(_Residual(config.widths[2], build) for _ in range(config.blocks))
        self.whole = build.linear(config.widths[3] * (SIDE // 16) ** 2, config.hidden)
        self.head = build.linear(config.hidden, OUTPUTS)

    def forward(self, picture_N3ss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if picture_N3ss.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"pictures are (N, 3, {SIDE}, {SIDE}), got {tuple(picture_N3ss.shape)}")
        x = picture_N3ss
        for number, halving in enumerate(self.halvings):
            x = F.silu(halving(x))
            if number == 2:
                for block in self.blocks:
                    x = block(x)
        out = self.head(F.silu(self.whole(x.flatten(1))))
        return out[:, : len(UNITS)], out[:, len(UNITS) : -1], out[:, -1]
