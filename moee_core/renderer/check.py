"""What makes a set of points a face: names, places inside the picture, and lines that do not cross.

Points are (x, y) pixels; tolerances are in eye distances, about twice what an unsteady hand misses by. Every function
raises ``PointsError`` with one line that names the point and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from ..errors import MoEEError
from ..motion.coefficients import FACE
from . import names
from .frame import FaceFrame

MIN_EYE_DISTANCE = 12.0
"""Pixels between the eyes' centres; with fewer a lid is thinner than a pixel."""
TOLERANCE = 0.06
MAX_STRENGTH = 1.5


class PointsError(MoEEError, ValueError):
    """Points that are not a face on this picture."""


def check_points(points: Mapping[str, tuple[float, float]], width: int, height: int) -> dict[str, tuple[float, float]]:
    """The points as plain floats, in the order of their names."""
    known = (*names.FULL, *names.IRIS)
    for name in points:
        if name not in known:
            raise PointsError(f"unknown point {str(name)[:30]!r}; the names are {', '.join(names.REDUCED[:4])}, ...")
    missing = [name for name in names.REDUCED if name not in points]
    if missing:
        raise PointsError(f"{len(missing)} of {len(names.REDUCED)} points are missing, for example {missing[0]!r}")
    checked: dict[str, tuple[float, float]] = {}
    for name in known:
        if name not in points:
            continue
        try:
            x, y = (float(v) for v in points[name])
        except (TypeError, ValueError) as error:
            raise PointsError(f"point {name!r} must be two numbers, got {str(points[name])[:40]}") from error
        if not (np.isfinite(x) and np.isfinite(y)):
            raise PointsError(f"point {name!r} is not finite: ({x}, {y})")
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise PointsError(f"point {name!r} at ({x:.1f}, {y:.1f}) is outside the {width}x{height} picture")
        checked[name] = (x, y)
    return checked


def check_source(source: Mapping[str, float]) -> dict[str, float]:
    """The expression in the picture: coefficients of ``FACE`` without the pose."""
    pose = set(FACE.pose_names)
    checked: dict[str, float] = {}
    for name, value in source.items():
        if name not in FACE.index or name in pose:
            raise PointsError(f"source: {str(name)[:20]!r} is not an expression; use names such as AU12L or open")
        low = -1.0 if name in ("width", "gaze_x", "gaze_y") else 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= MAX_STRENGTH:
            raise PointsError(f"source: {name} must be {low:g} to {MAX_STRENGTH:g}, got {str(value)[:20]}")
        checked[name] = float(value)
    return checked


def check_face(points: Mapping[str, tuple[float, float]], frame: FaceFrame) -> None:
    """The relations between the points: sides, order from brow to chin, lids and lips that do not cross."""
    if frame.distance < MIN_EYE_DISTANCE:
        raise PointsError(
            f"the eyes are {frame.distance:.1f} pixels apart; at least {MIN_EYE_DISTANCE:g} are needed: "
            "use a larger picture"
        )
    at = {name: frame.to_face(np.array(point)) for name, point in points.items()}
    mouth = 0.5 * (at["mouth_R"] + at["mouth_L"])
    if mouth[1] < 0:
        raise PointsError("left and right are swapped at the eyes: R is the person's right, on the picture's left")
    for part in ("brow_*_middle", "nose_*_ala", "mouth_*", "jaw_*_ear", "jaw_*_angle", "jaw_*_chin"):
        right, left = part.replace("*", "R"), part.replace("*", "L")
        if at[right][0] >= at[left][0]:
            raise PointsError(f"left and right are swapped: {right!r} lies to the right of {left!r} in the picture")
    for side in names.SIDES:
        for middle in ("upper", "upper_outer", "upper_inner"):
            lower = middle.replace("upper", "lower", 1)
            _order(at, f"eye_{side}_{middle}", f"eye_{side}_{lower}", "eyelids are crossed")
        _order(at, f"brow_{side}_middle", f"eye_{side}_upper", "the brow is under the eye")
        inner, outer = at[f"eye_{side}_inner"], at[f"eye_{side}_outer"]
        if abs(inner[0]) >= abs(outer[0]) or abs(outer[0] - inner[0]) < 0.15:
            raise PointsError(f"eye {side}: the corners are swapped or too close; 'inner' is the one at the nose")
    columns = [members[1:-1] for members in names.LIP_LINES.values()]
    for part in ("R", "R_half", "M", "L_half", "L"):
        stack = [next(name for name in column if name.endswith(f"er_{part}")) for column in columns]
        for upper, lower in pairwise(stack):
            _order(at, upper, lower, "lines of the lips are crossed")
    _order(at, "eye_R_lower", "nose_base", "the nose is above the eyes")
    _order(at, "nose_base", "lip_upper_outer_M", "the mouth is above the nose")
    _order(at, "lip_lower_outer_M", "chin", "the chin is above the mouth")


def _order(at: Mapping[str, np.ndarray], upper: str, lower: str, what: str) -> None:
    if at[upper][1] > at[lower][1] + TOLERANCE:
        below = at[upper][1] - at[lower][1]
        raise PointsError(f"{what}: {upper!r} lies {below:.2f} eye distances below {lower!r}")
