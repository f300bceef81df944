"""Twice as many frames: DICE-Talk draws 12.5 a second, and a network draws one between every two.

Shapes (legend for this file):
    H height, W width, pixels; N frames

    frame_HW3   uint8 RGB

N frames become 2 N - 1: there is nothing behind the last. So a clip is drawn with as many frames as ``count_before``
says, and what is too much is cut off by who asked. The authors of DICE-Talk cut the recording instead.

Raises ``ValueError`` for frames of another shape or type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks.frame_interpolation import FrameInterpolator

SAMPLES_PER_FRAME = 640
"""DICE-Talk's: 16 kHz at 25 frames a second."""
HEARD_PER_DRAWN = 2
"""Frames a second that are heard, for each that is drawn."""


def heard_frames(samples: int) -> int:
    """Frames at 25 a second that DICE-Talk hears in so many samples at 16 kHz; what is left over is not heard."""
    return samples // SAMPLES_PER_FRAME


def drawn_frames(samples: int) -> int:
    """Frames at 12.5 a second that DICE-Talk draws for so many samples at 16 kHz."""
    return heard_frames(samples) // HEARD_PER_DRAWN


def count_before(frames: int, factor: int = 2) -> int:
    """How many frames have to be drawn, so that there are at least ``frames`` when every gap between two has been
    filled with ``factor`` - 1 more; doubled once, that is ceil((frames + 1) / 2). A factor of 4 is doubling twice."""
    if frames < 1 or factor < 1:
        raise ValueError(f"need at least 1 frame and a factor of at least 1, got {frames} and {factor}")
    return -(-(frames - 1) // factor) + 1


def doubled(
    frames: Iterable[np.ndarray],
    network: FrameInterpolator,
    on_pair: Callable[[int], None] | None = None,
    *,
    device: Any = None,
) -> Iterator[np.ndarray]:
    """N frames (H, W, 3) uint8 as 2 N - 1, one by one, with no more than two in memory; those that came go out as they
    are.

    ``on_pair`` is told how many pairs are done; what it raises ends the work. ``device`` is where the network computes;
    None is where its weights are.
    """
    weight = next(network.parameters())
    before: tuple[np.ndarray, Tensor] | None = None
    for index, frame in enumerate(frames):
        first = frame if before is None else before[0]
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape != first.shape:
            raise ValueError(
                f"frame {index} must be (H, W, 3) uint8 and as large as the others, got {frame.shape} {frame.dtype} "
                f"after {first.shape}"
            )
        picture = torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        picture = picture.to(weight.device if device is None else device, weight.dtype)
        if before is not None:
            middle = _middle(network, before[1], picture)
            if on_pair is not None:
                on_pair(index)
            yield before[0]
            yield middle
        before = frame, picture
    if before is not None:
        yield before[0]


def _middle(network: FrameInterpolator, a_13HW: Tensor, b_13HW: Tensor) -> np.ndarray:
    # not around the generator's loop: gradients would stay off for whoever takes the frames
    with torch.no_grad():
        middle = network.middle(a_13HW, b_13HW)[0]
    return (middle.float() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
