"""The frame between two: RIFE's flow network (Huang et al. 2022), in the form that DICE-Talk is published with.

Shapes (legend for this file):
    B pairs, C channels, H W pixels
    a_B3HW, b_B3HW in [0, 1] -> middle (B, 3, H, W) in [0, 1]

    flow_B4HW        pixels (x, y, x, y): from a place of the middle frame to where it is seen in a, and in b
    preference_B1HW  how much rather a is believed than b, a logit

Equations (section 3.2 of the paper, with the symmetry of Practical-RIFE's "v3 HD"): at a quarter, half and full size s
    (df, dp)   = N_s(a', b', p, f),   (df*, dp*) = N_s(b', a', -p, f*)      * exchanges the two halves of a flow
    f += (df + (df*)*) / 2,  p += (dp - dp*) / 2,  a' = a read at f_a,  b' = b read at f_b
    middle = sigmoid(p) a' + (1 - sigmoid(p)) b'

Exchanging a and b therefore gives the same middle frame. Sides are continued to a multiple of 32 at the right and
below, and cut back; where they are multiples already, these are the authors' numbers. Flow, preference and reading
places are float32 whatever the pictures are: half precision cannot name half a pixel beyond 1024.

Raises ``ValueError`` for pictures of other shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build

SCALES = (4, 2, 1)
"""How much smaller the pictures are looked at, one network each."""
MULTIPLE = 32  # pixels; the largest scale, two halvings inside of a network, and one to spare as in the authors' code
SEEN = 7
"""Channels a network reads besides the flow: both pictures as they are read so far, and the preference."""
FLOW = 4
RESIDUALS = 4


class Slopes(nn.Module):
    """PReLU: x where it is positive, elsewhere x times a number of its channel. The numbers are a table of one row in a
    leaf module, because no host streams a PReLU."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.below = build.embedding(1, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        row = self.below(torch.zeros(1, dtype=torch.long, device=x_BCHW.device))
        return F.prelu(x_BCHW, row.view(-1).to(x_BCHW.dtype))


class SlopedConv(nn.Module):
    """A 3x3 convolution, then slopes."""

    def __init__(self, inputs: int, outputs: int, build: Build, stride: int = 1):
        super().__init__()
        self.conv = build.conv(inputs, outputs, stride=stride)
        self.slopes = Slopes(outputs, build)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.slopes(self.conv(x_BCHW))


class Enlarger(nn.Module):
    """Two doublings of height and width, slopes between."""

    def __init__(self, width: int, outputs: int, build: Build):
        super().__init__()
        self.conv_in = build.conv_doubling(width, width // 2)
        self.slopes = Slopes(width // 2, build)
        self.conv_out = build.conv_doubling(width // 2, outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv_out(self.slopes(self.conv_in(x_BCHW)))


class FlowBlock(nn.Module):
    """N_s: what to add to flow and preference, seen at one size."""

    def __init__(self, seen: int, width: int, build: Build):
        super().__init__()
        shrinking = (SlopedConv(seen + FLOW, width // 2, build, 2), SlopedConv(width // 2, width, build, 2))
        self.shrinking = nn.ModuleList(shrinking)
        self.residuals = nn.ModuleList(
            nn.Sequential(SlopedConv(width, width, build), SlopedConv(width, width, build)) for _ in range(RESIDUALS)
        )
        self.to_flow = Enlarger(width, FLOW, build)
        self.to_preference = Enlarger(width, 1, build)

    def forward(self, seen_BCHW: Tensor, flow_B4HW: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        height, width = flow_B4HW.shape[-2:]
        small = (height // scale, width // scale)
        # a flow is in pixels, and those of a smaller picture are larger
        flow = _resized(flow_B4HW, small) / scale
        h = torch.cat([_resized(seen_BCHW, small), flow.to(seen_BCHW.dtype)], dim=1)
        for layer in self.shrinking:
            h = layer(h)
        for layer in self.residuals:
            h = layer(h) + h
        more = _resized(self.to_flow(h).float(), (height, width)) * scale
        return more, _resized(self.to_preference(h).float(), (height, width))


class FrameInterpolator(nn.Module):
    """See the module's docstring. ``width`` is that of a block's hidden state."""

    def __init__(self, width: int, build: Build):
        super().__init__()
        self.blocks = nn.ModuleList(FlowBlock(SEEN, width, build) for _ in SCALES)

    def middle(self, a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
        """The frame half-way from a to b. Pictures and weights are of one type and in one place."""
        shape = a_B3HW.shape
        if len(shape) != 4 or shape[1] != 3 or b_B3HW.shape != shape or 0 in shape:
            raise ValueError(
                f"a middle frame needs two pictures (B, 3, H, W) of one size, got {tuple(shape)} and "
                f"{tuple(b_B3HW.shape)}"
            )
        height, width = shape[-2:]
        beyond = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        a, b = (F.pad(one, beyond, mode="replicate") for one in (a_B3HW, b_B3HW))
        return self(a, b)[..., :height, :width].clamp(0, 1)

    def forward(self, a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
        """``middle`` of pictures whose sides are multiples of 32."""
        pairs, _, height, width = a_B3HW.shape
        seen_a, seen_b = a_B3HW, b_B3HW
        flow = torch.zeros(pairs, FLOW, height, width, device=a_B3HW.device)
        preference = flow[:, :1]
        for block, scale in zip(self.blocks, SCALES, strict=True):
            logit = preference.to(a_B3HW.dtype)
            # one direction after the other, as in the authors' code: together the sums come out in another order
            forth, preferred = block(torch.cat([seen_a, seen_b, logit], dim=1), flow, scale)
            back, opposed = block(torch.cat([seen_b, seen_a, -logit], dim=1), _exchanged(flow), scale)
            flow = flow + (forth + _exchanged(back)) / 2
            preference = preference + (preferred - opposed) / 2
            seen_a, seen_b = read_at(a_B3HW, flow[:, :2]), read_at(b_B3HW, flow[:, 2:])
        share = preference.sigmoid().to(a_B3HW.dtype)
        return seen_a * share + seen_b * (1 - share)


def read_at(picture_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """The picture at every place moved by the flow (x, y; pixels), bilinear; beyond an edge is the edge."""
    height, width = picture_BCHW.shape[-2:]
    # -1 and 1 are the middles of the first and the last pixel
    x = torch.linspace(-1, 1, width, device=flow_B2HW.device) + flow_B2HW[:, 0] / ((width - 1) / 2)
    y = torch.linspace(-1, 1, height, device=flow_B2HW.device)[:, None] + flow_B2HW[:, 1] / ((height - 1) / 2)
    places_BHW2 = torch.stack([x, y], dim=-1)
    found = F.grid_sample(picture_BCHW.float(), places_BHW2, padding_mode="border", align_corners=True)
    return found.to(picture_BCHW.dtype)


def _exchanged(flow_B4HW: Tensor) -> Tensor:
    return torch.cat([flow_B4HW[:, 2:], flow_B4HW[:, :2]], dim=1)


def _resized(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if x_BCHW.shape[-2:] == size:
        return x_BCHW
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False)
