"""The folds of a smile that a picture already shows, taken out of its skin.

Shapes (legend for this file): H, W pixels of the picture; face units (eye distances).

When a smiling portrait is made to look neutral, the lips move but their folds stay. So a second skin is made: around
nose, mouth and under the eyes, the light of a wide neighbourhood replaces that of a fold, channel by channel, while the
fine grain of the skin is kept:  skin' = skin (wide / narrow).  How much of it is shown follows how far the smile is
undone.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..motion.coefficients import FACE
from .field import smoothstep
from .points import FacePoints

NARROW, WIDE = 0.02, 0.20
"""Sizes of a fold and of the skin around it, in eye distances."""
LIMITS = (0.93, 1.7)
"""Folds are lightened much more than bright cheeks are dimmed."""
SMILE = ("AU12R", "AU12L")


def smile_of(row: np.ndarray) -> float:
    """Strength of a row's smile, 0..1."""
    return float(min(1.0, row[[FACE.index[name] for name in SMILE]].mean()))


def without_folds(picture: np.ndarray, points: FacePoints) -> np.ndarray:
    """(H, W, 3) uint8: the picture with the folds of its smile evened out."""
    frame, reach = points.frame, 1.35
    at = {name: frame.to_face(np.array(point)) for name, point in points.full.items()}
    middle = frame.to_image(np.array([0.0, 0.75]))
    size = reach * frame.distance
    x0, y0 = np.maximum(np.floor(middle - size).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(middle + size).astype(int) + 1, [points.width, points.height])
    part = np.s_[y0:y1, x0:x1]
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    face = frame.to_face(np.stack([x, y], axis=-1))
    skin = np.ascontiguousarray(picture[part]).astype(np.float32) + 4

    region, features = _regions(face, at)
    known = (1 - features)[..., None].astype(np.float32) + 1e-4

    def mean(sigma: float) -> np.ndarray:
        radius = sigma * frame.distance
        return cv2.GaussianBlur(skin * known, (0, 0), radius) / cv2.GaussianBlur(known, (0, 0), radius)[..., None]

    factor = np.clip(mean(WIDE) / mean(NARROW), *LIMITS)
    share = (region * (1 - features))[..., None]
    result = picture.copy()
    result[part] = np.rint(np.clip(skin * (1 + share * (factor - 1)) - 4, 0, 255)).astype(np.uint8)
    return result


def _regions(face: np.ndarray, at: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) 0..1 twice: where folds are, and the features whose shading must stay."""
    region, features = np.zeros(face.shape[:2]), np.zeros(face.shape[:2])

    def blob(place: np.ndarray, radii: tuple[float, float], power: float = 2.0) -> np.ndarray:
        return np.exp(-((((face - place) / radii) ** 2).sum(axis=-1) ** power))

    for side, sign in (("R", -1.0), ("L", 1.0)):
        ala, corner, lower = at[f"nose_{side}_ala"], at[f"mouth_{side}"], at[f"eye_{side}_lower"]
        for place, radii in (
            (0.5 * (ala + corner) + np.array([sign * 0.10, 0.0]), (0.24, 0.27)),
            (corner + np.array([sign * 0.10, 0.03]), (0.17, 0.22)),
            (lower + np.array([0, 0.17]), (0.27, 0.09)),
        ):
            region = np.maximum(region, blob(place, radii))
        features = np.maximum(features, blob(ala + np.array([-sign * 0.03, 0.0]), (0.10, 0.11), 3.0))
    lips = np.array([at["mouth_R"], at["lip_upper_outer_M"], at["mouth_L"], at["lip_lower_outer_M"]])
    middle = lips.mean(axis=0)
    radii = np.array([0.5 * (lips[2, 0] - lips[0, 0]) + 0.02, 0.5 * np.ptp(lips[:, 1]) + 0.03])
    lips_share = smoothstep(np.linalg.norm((face - middle) / radii, axis=-1), 1.2, 0.95)
    return region, np.clip(np.maximum(features, lips_share), 0, 1)
