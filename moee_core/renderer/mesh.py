"""MediaPipe's face mesh in our names: which of its 478 vertices is which point of a portrait.

Shapes (legend for this file): M = 478 vertices (468 without irises) of a mesh; x to the right and y down in pixels of
the picture, z in pixels of the same scale, smaller towards the viewer, as the detector gives them.

Where one vertex lies on a line's upper and another on its lower edge, or one outside and one inside a corner, the
point is their mean: our lines run through the middle of a brow and meet in the corner itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import names
from .check import PointsError
from .points import FacePoints
from .shown import with_shown

VERTICES = 478
WITHOUT_IRISES = 468

_MIDDLE: Mapping[str, tuple[int, ...]] = {
    "nose_tip": (4,), "nose_base": (2,), "lip_upper_outer_M": (0,), "lip_upper_inner_M": (13,),
    "lip_lower_inner_M": (14,), "lip_lower_outer_M": (17,), "chin": (152,),
}  # fmt: skip
_SIDES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # name with * -> the person's right, left
    "brow_*_outer": ((70, 46), (300, 276)),
    "brow_*_outer_half": ((63, 53), (293, 283)),
    "brow_*_middle": ((105, 52), (334, 282)),
    "brow_*_inner_half": ((66, 65), (296, 295)),
    "brow_*_inner": ((107, 55), (336, 285)),
    "eye_*_outer": ((33, 130), (263, 359)),
    "eye_*_upper_outer": ((161,), (388,)),
    "eye_*_upper": ((159,), (386,)),
    "eye_*_upper_inner": ((158,), (385,)),
    "eye_*_inner": ((133,), (362,)),
    "eye_*_lower_outer": ((163,), (390,)),
    "eye_*_lower": ((145,), (374,)),
    "eye_*_lower_inner": ((153,), (380,)),
    "nose_*_ala": ((218,), (438,)),
    "mouth_*": ((76,), (306,)),
    "lip_upper_outer_*": ((39,), (269,)),
    "lip_upper_outer_*_half": ((37,), (267,)),
    "lip_upper_inner_*_end": ((191,), (415,)),
    "lip_upper_inner_*": ((81,), (311,)),
    "lip_upper_inner_*_half": ((82,), (312,)),
    "lip_lower_inner_*_end": ((95,), (324,)),
    "lip_lower_inner_*": ((178,), (402,)),
    "lip_lower_inner_*_half": ((87,), (317,)),
    "lip_lower_outer_*": ((181,), (405,)),
    "lip_lower_outer_*_half": ((84,), (314,)),
    "jaw_*_ear": ((234,), (454,)),
    "jaw_*_cheek": ((93,), (323,)),
    "jaw_*_angle": ((58,), (288,)),
    "jaw_*_side": ((136,), (365,)),
    "jaw_*_chin": ((149,), (378,)),
}
VERTICES_OF: Mapping[str, tuple[int, ...]] = {
    **_MIDDLE,
    **{name.replace("*", side): pair[i] for name, pair in _SIDES.items() for i, side in enumerate(names.SIDES)},
}
"""Each of the 67 names -> the vertices whose mean it is."""
IRIS: Mapping[str, tuple[int, tuple[int, ...]]] = {"R": (468, (469, 470, 471, 472)), "L": (473, (474, 475, 476, 477))}
"""Centre and rim of an iris."""
STILL_MIDDLE = (10, 151, 168, 6, 197, 195, 5, 4, 1, 2)
STILL_SIDES = ((67, 297), (103, 332), (54, 284), (127, 356), (234, 454), (33, 263), (133, 362), (98, 327))
"""Vertices that expressions hardly move: forehead, temples, corners of the eyes, nose."""
FOREHEAD, CHIN = 10, 152


def check_mesh(mesh: np.ndarray) -> np.ndarray:
    """(M, 3) float64. Raises ``PointsError`` for another shape, a number that is not finite, or no size at all."""
    mesh = np.asarray(mesh, np.float64)
    if mesh.shape not in ((VERTICES, 3), (WITHOUT_IRISES, 3)):
        raise PointsError(
            f"a face mesh has {VERTICES} or {WITHOUT_IRISES} vertices of 3 numbers, got {mesh.shape}: only MediaPipe's "
            "face mesh is understood"
        )
    if not np.isfinite(mesh).all():
        raise PointsError(f"the face mesh's vertex {int(np.argwhere(~np.isfinite(mesh))[0, 0])} is not finite")
    if float(np.ptp(mesh[:, :2], axis=0).min()) < 1.0:
        raise PointsError("the face mesh is smaller than a pixel")
    return mesh


def named(mesh: np.ndarray) -> dict[str, np.ndarray]:
    """The 67 named points (3,) of a mesh (..., M, 3), each (..., 3)."""
    return {name: mesh[..., list(VERTICES_OF[name]), :].mean(axis=-2) for name in names.FULL}


def points_of_mesh(mesh: np.ndarray, width: int, height: int) -> FacePoints:
    """Points on the picture the mesh was found in, with the expression it shows; what lies outside comes to the edge.

    Raises ``PointsError`` for what is no mesh and for a face too small or too much turned to be one.
    """
    mesh = check_mesh(mesh)
    found = {name: place[:2] for name, place in named(mesh).items()}
    if len(mesh) == VERTICES:
        for side, (centre, rim) in IRIS.items():
            middle = mesh[centre, :2]
            radius = float(np.linalg.norm(mesh[list(rim), :2] - middle, axis=1).mean())
            found[f"iris_{side}"] = middle
            found[f"iris_{side}_edge"] = middle + np.array([radius if side == "L" else -radius, 0.0])
    low, high = np.array([-0.5, -0.5]), np.array([width - 0.5, height - 0.5])
    clipped = {name: np.clip(place, low, high) for name, place in found.items()}
    points = {name: (float(x), float(y)) for name, (x, y) in clipped.items()}
    return with_shown(FacePoints(width=width, height=height, points=points))
