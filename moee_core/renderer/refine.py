"""Marked lines brought onto the lines that a picture really shows: lids and the line between closed lips.

Shapes (legend for this file): N columns of a line, M offsets tried at each, face units (eye distances).

A hand misses a lid by a pixel or two, and then a strip of white stays on the closed eye. So each line may shift up or
down by a small way to where the picture has its edge; the path through all columns is the cheapest one for

    sum evidence(column, offset) + stiffness |change of offset| + (offset / reach)^2

found by dynamic programming. Without evidence the line stays where it was marked.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from .frame import FaceFrame
from .sampling import looked_up

Kind = Literal["dark line", "dark above", "dark below"]

STEPS = 12
"""Offsets tried on either side of the marked line."""
STIFFNESS = 0.22
STAY = 0.35
"""Price of the largest offset; evidence goes from -1 to 1."""
MIN_CONTRAST = 10.0
"""Of grey levels along the whole line; with less, nothing is moved."""


def brought_to(
    grey: np.ndarray, frame: FaceFrame, x: np.ndarray, y: np.ndarray, kind: Kind, reach: float
) -> np.ndarray:
    """(N,) heights near ``y`` at columns ``x`` where ``grey`` (H, W) shows a line of this ``kind``."""
    offsets = np.linspace(-reach, reach, 2 * STEPS + 1)
    places = np.stack(np.broadcast_arrays(x[:, None], y[:, None] + offsets), axis=-1)
    pixels = frame.to_image(places).astype(np.float32)
    seen = looked_up(grey.astype(np.float32), pixels)
    seen = cv2.GaussianBlur(seen, (0, 0), sigmaX=1.2, sigmaY=1.5)
    if kind == "dark line":
        evidence = seen - seen.mean(axis=1, keepdims=True)
    else:
        slope = np.gradient(seen, axis=1)
        evidence = -slope if kind == "dark above" else slope
    contrast = float(np.ptp(seen, axis=1).mean())
    if contrast < MIN_CONTRAST:
        return y
    evidence = evidence / max(float(np.abs(evidence).max()), 1e-6) + STAY * (offsets / reach) ** 2
    evidence[[0, -1]] += 4.0 * (offsets / reach) ** 2  # corners are marked well, and belong to both lines
    path = _cheapest(evidence)
    shift = offsets[path]
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 3.5) ** 2)
    shift = np.convolve(np.pad(shift, 8, mode="edge"), kernel / kernel.sum(), "valid")
    return y + shift


def _cheapest(cost: np.ndarray) -> np.ndarray:
    """(N,) index per column of the path through cost (N, M) that is cheapest with its changes."""
    count = cost.shape[1]
    change = STIFFNESS * np.abs(np.arange(count)[:, None] - np.arange(count))
    total = cost[0]
    came_from = np.zeros(cost.shape, np.int64)
    for i in range(1, len(cost)):
        choices = total[None, :] + change
        came_from[i] = choices.argmin(axis=1)
        total = choices.min(axis=1) + cost[i]
    path = np.empty(len(cost), np.int64)
    path[-1] = int(total.argmin())
    for i in range(len(cost) - 1, 0, -1):
        path[i - 1] = came_from[i, path[i]]
    return path
