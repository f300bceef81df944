"""Is a portrait drawn or photographed? Drawn faces bear, and need, stronger expressions.

Shapes: portrait (H, W, 3) uint8.

Flat artwork has areas of one colour or of a smooth gradient; skin, canvas and film grain have texture everywhere. The
share of a face's pixels without curvature is above 0.49 on the face world's portraits and 0.11 on the photograph that
was measured, at the same size of face.
"""

from __future__ import annotations

import cv2
import numpy as np

from .field import smoothstep
from .points import FacePoints

EYE_PIXELS = 64
"""The face is measured at this many pixels between the eyes."""
SMOOTH = 1.0
"""Grey levels of curvature below which a pixel is flat."""
PHOTOGRAPH, DRAWN = 0.2, 0.45
"""Shares of flat pixels."""


def drawn_share(portrait: np.ndarray, points: FacePoints) -> float:
    """0 for a photograph, 1 for flat artwork, between them for what lies between."""
    frame = points.frame
    places = np.array(list(points.full.values()))
    x0, y0 = np.maximum(np.floor(places.min(axis=0)).astype(int), 0)
    x1, y1 = np.ceil(places.max(axis=0)).astype(int) + 1
    face = cv2.cvtColor(np.ascontiguousarray(portrait[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    scale = EYE_PIXELS / frame.distance
    size = (max(8, round(face.shape[1] * scale)), max(8, round(face.shape[0] * scale)))
    # enlarging would make any picture smooth
    face = cv2.resize(face, size, interpolation=cv2.INTER_AREA) if scale < 1 else face
    flat = float((np.abs(cv2.Laplacian(face, cv2.CV_32F)) < SMOOTH).mean())
    return float(smoothstep(np.array(flat), PHOTOGRAPH, DRAWN))
