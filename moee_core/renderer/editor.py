"""Points as a person sees and edits them: drawn on the picture, and the table that the editor in the browser reads.

Shapes: pictures (H, W, 3) uint8 RGB.

The editor knows no names, places or limits of its own; ``table_json`` is where it has them from, kept in
``nodes/web/face_points.json``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..motion.coefficients import FACE
from . import names
from .check import MAX_STRENGTH, MIN_EYE_DISTANCE, TOLERANCE
from .curves import ROUNDNESS
from .points import FORMAT, IRIS_RADIUS, FacePoints

COLOURS = {
    "brow": (255, 190, 70),
    "eye": (80, 210, 255),
    "iris": (170, 235, 255),
    "nose": (140, 225, 130),
    "mouth": (255, 120, 160),
    "jaw": (175, 175, 255),
}
"""RGB of each part, the same in the editor and in the drawn preview."""

SHARES = {
    "brow": (0, 0.5, 0, 0.5, 0),
    "lid": (0, 0.5, 0, 0.5, 0),
    "lip_outer": (0, 0, 0.5, 0, 0.5, 0, 0),
    "lip_inner": (0, 0.45, 0, 0.5, 0, 0.5, 0, 0.55, 0),
}
"""Where derived points lie between their neighbours; a test compares what follows with ``FacePoints.full``."""


def lines() -> list[dict[str, Any]]:
    """The lines of a face: members in order, how the derived ones among them follow, and which part they belong to."""
    made: list[dict[str, Any]] = []

    def add(part: str, members: tuple[str, ...], shares: tuple[float, ...], curve: str) -> None:
        made.append({"part": part, "members": list(members), "shares": list(shares), "curve": curve})

    for side in names.SIDES:
        add("brow", names.brow(side), SHARES["brow"], "monotone")
        add("eye", names.lid(side, "upper"), SHARES["lid"], "arch")
        add("eye", names.lid(side, "lower"), SHARES["lid"], "arch")
    for line, members in names.LIP_LINES.items():
        add("mouth", members, SHARES["lip_outer" if line.endswith("outer") else "lip_inner"], "arch")
    add("nose", ("nose_R_ala", "nose_base", "nose_L_ala"), (0, 0, 0), "monotone")
    add("jaw", names.JAW, (), "along")
    return made


def table() -> dict[str, Any]:
    """Everything about points that the editor needs to know."""
    side = 1000
    square = FacePoints.template(side + 1, side + 1, (0, 0, side, side)).points
    return {
        "format": FORMAT,
        "full": list(names.FULL),
        "reduced": list(names.REDUCED),
        "iris": list(names.IRIS),
        "lines": lines(),
        "colours": {part: "#{:02x}{:02x}{:02x}".format(*colour) for part, colour in COLOURS.items()},
        "template": {name: [round(2 * x / side - 1, 4), round(y / side, 4)] for name, (x, y) in square.items()},
        "tolerance": TOLERANCE,
        "min_eye_distance": MIN_EYE_DISTANCE,
        "roundness": ROUNDNESS,
        "iris_radius": IRIS_RADIUS,
        "max_strength": MAX_STRENGTH,
        "source": {
            name: -1.0 if name in ("width", "gaze_x", "gaze_y") else 0.0
            for name in FACE.index
            if name not in FACE.pose_names
        },
    }


def table_json() -> str:
    """``table`` as the text of the file beside the editor."""
    rows = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in table().items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def draw_points(picture: np.ndarray, points: FacePoints) -> np.ndarray:
    """A copy of the picture with the lines of the face, its irises and the dragged points on it."""
    import cv2

    drawn = np.ascontiguousarray(picture).copy()
    unit = points.frame.distance
    thin, radius, fine = max(1, round(unit / 90)), max(1, round(unit / 45)), 4

    def fixed(place: np.ndarray) -> np.ndarray:
        return np.round(np.asarray(place) * 2**fine).astype(np.int32)

    for line in lines():
        path = fixed(points.line(tuple(line["members"]))).reshape(-1, 1, 2)
        cv2.polylines(drawn, [path], False, COLOURS[line["part"]], thin, cv2.LINE_AA, fine)
    for side in names.SIDES:
        x, y, size = points.iris(side)
        centre, edge = fixed(np.array([x, y])).tolist(), int(fixed(np.array(size)))
        cv2.circle(drawn, centre, edge, COLOURS["iris"], thin, cv2.LINE_AA, fine)
    for name, place in points.points.items():
        if name in names.FULL:
            colour = COLOURS[part_of(name)]
            cv2.circle(drawn, fixed(np.array(place)).tolist(), radius << fine, colour, -1, cv2.LINE_AA, fine)
    return drawn


def part_of(name: str) -> str:
    """Which entry of ``COLOURS`` a point has."""
    first = name.split("_")[0]
    return {"lip": "mouth", "chin": "jaw"}.get(first, first)
