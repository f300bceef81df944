"""Closing a hole in a picture with what is around it.

Shapes: area (h, w, 3) uint8; hole (h, w), non-zero where a pixel is unknown. Works on a pyramid (ours, after Burt's
pull and push): unknown pixels take the average of the smallest neighbourhood that knows anything.
"""

from __future__ import annotations

import cv2
import numpy as np


def filled_in(area: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: the area with the hole (h, w) closed by averages of what is around it, near before far."""
    known = (1 - hole).astype(np.float32)
    if not known.any():
        return area.copy()
    colours: list[np.ndarray]
    weights: list[np.ndarray]
    colours, weights = [area.astype(np.float32) * known[..., None]], [known]
    while min(weights[-1].shape) > 2:
        height, width = weights[-1].shape
        size = ((width + 1) // 2, (height + 1) // 2)
        colours.append(cv2.resize(colours[-1], size, interpolation=cv2.INTER_AREA))
        weights.append(cv2.resize(weights[-1], size, interpolation=cv2.INTER_AREA))
    filled = colours[-1] / np.maximum(weights[-1], 1e-6)[..., None]
    for colour, weight in zip(colours[-2::-1], weights[-2::-1], strict=True):
        size = (weight.shape[1], weight.shape[0])
        rough = cv2.GaussianBlur(cv2.resize(filled, size, interpolation=cv2.INTER_LINEAR), (0, 0), 1.2)
        share = np.clip(weight * 1.5, 0, 1)[..., None]
        filled = share * colour / np.maximum(weight, 1e-6)[..., None] + (1 - share) * rough
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)
