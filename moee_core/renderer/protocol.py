"""What every face renderer offers, whether it warps a picture or is a learned network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ..motion.coefficients import Motion


class FaceRenderer(Protocol):
    """Pictures of one portrait for rows of motion coefficients."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        ...

    def render(self, row: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one row (D,)."""
        ...

    def frames(self, motion: Motion) -> Iterator[np.ndarray]:
        """One picture per frame of the motion, made when it is asked for."""
        ...
