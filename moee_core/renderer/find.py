"""Where the face is on a picture nobody has marked yet.

Shapes: pictures (H, W, 3) uint8 RGB; boxes (x0, y0, x1, y1) pixels, from the hairline to the chin and from ear to ear.

A landmark detector that is installed (``detector.py``) marks it. Without one, OpenCV's frontal Haar cascade looks for a
box, where this OpenCV has one: version 5 and some builds carry none. Either is a start for a person's hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .detector import detected_points
from .points import Box, FacePoints

CASCADE = "haarcascade_frontalface_default.xml"
SMALLEST = 0.12
"""Of the picture's shorter side; smaller finds are mostly cloth and curtains."""
HAAR_TO_FACE = (0.08, 0.02, 0.92, 0.97)
"""Corners of the face as shares of the square the cascade finds; between photographs and drawings."""


def find_face_box(picture: np.ndarray) -> Box | None:
    """The box of the largest face, inside the picture; None where none is found or OpenCV has no cascade."""
    import cv2

    path = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / CASCADE
    classifier = getattr(cv2, "CascadeClassifier", None)
    if classifier is None or not path.is_file():
        return None
    cascade = classifier(str(path))
    height, width = picture.shape[:2]
    grey = cv2.equalizeHist(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY))
    least = max(24, round(SMALLEST * min(height, width)))
    found = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(least, least))
    if len(found) == 0:
        return None
    x, y, w, h = (float(v) for v in max(found, key=lambda one: one[2] * one[3]))
    x0, y0, x1, y1 = HAAR_TO_FACE
    return max(x + x0 * w, 0.0), max(y + y0 * h, 0.0), min(x + x1 * w, width - 1.0), min(y + y1 * h, height - 1.0)


def start_points(picture: np.ndarray) -> FacePoints:
    """The detector's points, or the average face in the found box, or in the middle of the picture.

    Raises ``PointsError`` for a tiny picture.
    """
    found = detected_points(picture)
    if found is not None:
        return found
    height, width = picture.shape[:2]
    return FacePoints.template(width, height, find_face_box(picture))
