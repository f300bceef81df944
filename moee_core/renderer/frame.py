"""The frame of a face: origin between the eyes, one eye distance as the unit, axes along and across the eyes.

Shapes: points (..., 2); pixels of the picture or face units (eye distances), x to the picture's right, y to the chin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceFrame:
    """Where a face is: ``origin`` (2,) pixels, ``right`` and ``down`` unit vectors (2,), ``distance`` pixels."""

    origin: np.ndarray
    right: np.ndarray
    down: np.ndarray
    distance: float

    @classmethod
    def of(cls, points: Mapping[str, tuple[float, float]]) -> FaceFrame:
        """From the four corners of the eyes."""
        corners = [[points[f"eye_{side}_{end}"] for end in ("outer", "inner")] for side in ("R", "L")]
        eyes = np.array(corners, np.float64).mean(axis=1)
        across = eyes[1] - eyes[0]
        distance = max(float(np.hypot(*across)), 1e-6)
        right = across / distance
        return cls(
            origin=0.5 * (eyes[0] + eyes[1]), right=right, down=np.array([-right[1], right[0]]), distance=distance
        )

    @property
    def axes(self) -> np.ndarray:
        """(2, 2): a vector in face units times this is the vector in pixels."""
        return np.stack([self.right, self.down]) * self.distance

    def to_face(self, pixels: np.ndarray) -> np.ndarray:
        return (np.asarray(pixels, np.float64) - self.origin) @ np.stack([self.right, self.down]).T / self.distance

    def to_image(self, units: np.ndarray) -> np.ndarray:
        return np.asarray(units, np.float64) @ self.axes + self.origin
