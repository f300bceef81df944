"""Pixels looked up at fractional positions: OpenCV's ``remap`` with the defaults used here."""

from __future__ import annotations

import cv2
import numpy as np


def looked_up(
    image: np.ndarray,
    places: np.ndarray,
    *,
    out: np.ndarray | None = None,
    border: int = cv2.BORDER_REPLICATE,
    value: float = 0.0,
) -> np.ndarray:
    """(h, w, ...) of ``image`` at ``places`` (h, w, 2) float32 x, y, linearly interpolated, into ``out`` when given.

    Outside the image is its nearest edge, or ``value`` with ``cv2.BORDER_CONSTANT``. Four channels are faster than
    three.
    """
    nothing = None  # one map with both coordinates; OpenCV's type stubs do not know that the second may be absent
    return cv2.remap(
        image,
        places,
        nothing,  # pyright: ignore[reportArgumentType, reportCallIssue]
        cv2.INTER_LINEAR,
        dst=out,
        borderMode=border,
        borderValue=(value,) * 4,
    )


def table_at(table: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(h, w, c) rows of a ``table`` (n, c) float32 at fractional ``positions`` (h, w), clamped to its ends."""
    places = np.ascontiguousarray(positions, np.float32)
    zeros = np.zeros_like(places)
    return cv2.remap(table[None], places, zeros, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def planes(image: np.ndarray) -> np.ndarray:
    """(3, h, w) float32 of the first three channels: a mask (h, w) multiplies planes much faster than pixels."""
    return np.array(cv2.split(image)[:3], np.float32)


def pixels_of(colours: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 of planes (3, h, w) float32."""
    return cv2.merge(list(np.rint(np.clip(colours, 0, 255)).astype(np.uint8)))
