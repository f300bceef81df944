"""Named points on a portrait: where brows, lids, nose, lips and jaw are.

Shapes: a point is (x, y) in pixels of the picture, x to the right, y down; lines are (N, 2) float64.

A set holds at least the ``REDUCED`` names. What is missing of ``FULL`` is derived from its neighbours by monotone
curves, so that a person drags 38 points and the renderer sees 67. ``source`` says which expression the picture already
shows, as coefficients of the space ``FACE``: it is taken away before another one is put on.

JSON form::

    {"format": "moee-points-1", "width": 512, "height": 512, "points": {"chin": [255.0, 431.5], ...},
     "source": {"AU12L": 1.0, "AU12R": 1.0, "AU25": 0.8}}

Raises ``PointsError``, one line that names the point, for what cannot be a face.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

import numpy as np

from ..motion.coefficients import FACE
from . import names
from .check import PointsError, check_face, check_points, check_source
from .curves import arch, monotone
from .frame import FaceFrame

FORMAT = "moee-points-1"
MAX_BYTES = 1 << 20
"""A file of points is about two kilobytes; anything larger is something else."""
IRIS_RADIUS = 0.105
"""Of a person's iris in eye distances, when it was not marked."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class FacePoints:
    """Points of one face on a picture of ``width`` times ``height`` pixels; made valid or not at all."""

    width: int
    height: int
    points: Mapping[str, Point]
    source: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        points = check_points(self.points, self.width, self.height)
        object.__setattr__(self, "points", MappingProxyType(points))
        object.__setattr__(self, "source", MappingProxyType(check_source(self.source)))
        check_face(self.full, FaceFrame.of(self.full))

    # What a renderer asks.

    @cached_property
    def full(self) -> Mapping[str, Point]:
        """All 67 points: the given ones, and between them the derived ones."""
        given = {name: self.points[name] for name in names.FULL if name in self.points}
        return MappingProxyType(_completed(given))

    @cached_property
    def frame(self) -> FaceFrame:
        """Origin, axes and eye distance of this face."""
        return FaceFrame.of(self.full)

    def line(self, members: tuple[str, ...]) -> np.ndarray:
        """(N, 2) pixels of the points called ``members``."""
        return np.array([self.full[name] for name in members], np.float64)

    def iris(self, side: str) -> tuple[float, float, float]:
        """Centre and radius in pixels; from the shape of the eye when it was not marked."""
        distance = self.frame.distance
        if f"iris_{side}" in self.points:
            x, y = self.points[f"iris_{side}"]
            edge = self.points.get(f"iris_{side}_edge")
            radius = float(np.hypot(edge[0] - x, edge[1] - y)) if edge else IRIS_RADIUS * distance
            return x, y, max(radius, 1.0)
        corners = self.line((f"eye_{side}_outer", f"eye_{side}_inner"))
        upper, lower = self.line((f"eye_{side}_upper", f"eye_{side}_lower"))
        opening = abs(float((lower - upper) @ self.frame.down))
        middle = 0.5 * (upper + lower)
        along = (corners.mean(axis=0) - middle) @ self.frame.right
        x, y = middle + self.frame.right * along - self.frame.down * 0.04 * opening
        return float(x), float(y), max(IRIS_RADIUS * distance, min(0.5 * opening, 0.16 * distance), 1.0)

    def source_row(self) -> np.ndarray:
        """(34,) float32: the expression in the picture as a row of ``FACE``."""
        row = np.zeros(FACE.size, np.float32)
        for name, value in self.source.items():
            row[FACE.index[name]] = value
        return row

    # Other forms of the same points.

    def scaled(self, width: int, height: int) -> FacePoints:
        """The same points on the same picture at another size."""
        by_x, by_y = width / self.width, height / self.height
        points = {name: (x * by_x, y * by_y) for name, (x, y) in self.points.items()}
        return dataclasses.replace(self, width=width, height=height, points=points)

    def mirrored(self) -> FacePoints:
        """The points of the picture flipped left to right; sides change their names."""
        flipped = {_other_side(name): (self.width - 1 - x, y) for name, (x, y) in self.points.items()}
        source = {_other_side(name): value for name, value in self.source.items()}
        if "gaze_x" in source:
            source["gaze_x"] = -source["gaze_x"]
        return dataclasses.replace(self, points=flipped, source=source)

    def asymmetry(self) -> float:
        """How far the face is from its own mirror image: the largest distance in eye distances.

        A face seen from the front stays under about 0.25; more means a turned head or a misplaced point.
        """
        here = {name: self.frame.to_face(np.array(point)) for name, point in self.full.items()}
        middle = np.mean([here[name][0] for name in ("nose_base", "chin", "lip_upper_outer_M")])
        gaps = [
            np.hypot(here[name][0] - 2 * middle + here[other][0], here[name][1] - here[other][1])
            for name in names.FULL
            if (other := _other_side(name)) != name
        ]
        return float(max(gaps))

    def to_json(self) -> str:
        """The JSON form, one line."""
        data = {
            "format": FORMAT,
            "width": self.width,
            "height": self.height,
            "points": {name: [round(x, 2), round(y, 2)] for name, (x, y) in self.points.items()},
        }
        if self.source:
            data["source"] = {name: round(value, 4) for name, value in self.source.items()}
        return json.dumps(data)

    @classmethod
    def template(cls, width: int, height: int, box: Box | None = None) -> FacePoints:
        """An average face to start dragging from.

        ``box`` (x0, y0, x1, y1) in pixels reaches from the hairline to the chin and from ear to ear; None takes a box
        in the middle of the picture. Raises ``PointsError`` for a box that leaves the picture or is turned over.
        """
        if box is None:
            side = 0.5 * min(width, height)
            box = (
                width / 2 - side * 0.4,
                height * 0.47 - side * 0.55,
                width / 2 + side * 0.4,
                height * 0.47 + side * 0.45,
            )
        x0, y0, x1, y1 = (float(v) for v in box)
        if not (0 <= x0 < x1 <= width - 1 and 0 <= y0 < y1 <= height - 1):
            raise PointsError(f"the face box {tuple(round(v) for v in box)} is not inside the {width}x{height} picture")
        points: dict[str, Point] = {}
        for name, (x, y) in _TEMPLATE.items():
            for side, sign in (("R", -1), ("L", 1)):
                place = name.replace("*", side)
                points[place] = ((x0 + x1) / 2 + sign * x * (x1 - x0) / 2, y0 + y * (y1 - y0))
        return cls(width=width, height=height, points=points)


_TEMPLATE: dict[str, Point] = {  # x from the middle line to an ear 0..1, y from the hairline 0 to the chin 1
    "brow_*_outer": (0.74, 0.30), "brow_*_middle": (0.50, 0.25), "brow_*_inner": (0.19, 0.285),
    "eye_*_outer": (0.63, 0.395), "eye_*_upper": (0.44, 0.362), "eye_*_inner": (0.24, 0.402),
    "eye_*_lower": (0.44, 0.418), "nose_*_ala": (0.22, 0.625), "nose_base": (0.0, 0.66),
    "mouth_*": (0.35, 0.772), "lip_upper_outer_*": (0.175, 0.742), "lip_upper_outer_M": (0.0, 0.746),
    "lip_upper_inner_*": (0.175, 0.770), "lip_upper_inner_M": (0.0, 0.772), "lip_lower_inner_*": (0.175, 0.771),
    "lip_lower_inner_M": (0.0, 0.774), "lip_lower_outer_*": (0.175, 0.818), "lip_lower_outer_M": (0.0, 0.827),
    "jaw_*_ear": (0.99, 0.47), "jaw_*_angle": (0.89, 0.76), "jaw_*_chin": (0.42, 0.96), "chin": (0.0, 1.0),
}  # fmt: skip


def _other_side(name: str) -> str:
    """The name of the mirrored point or coefficient."""
    swap = {"R": "L", "L": "R"}
    if name.startswith(("AU12", "AU14", "lid")):
        return name[:-1] + swap.get(name[-1], name[-1])
    return "_".join(swap.get(part, part) for part in name.split("_"))


def _completed(given: Mapping[str, Point]) -> dict[str, Point]:
    """The given points and all derived ones."""
    frame = FaceFrame.of(given)
    face = {name: frame.to_face(np.array(point)) for name, point in given.items()}
    derived: dict[str, np.ndarray] = {}

    def complete(line: tuple[str, ...], shares: tuple[float, ...], curve=monotone) -> None:
        """Missing points of a line lie at ``shares`` of the way between its known neighbours, on one curve."""
        known = [name for name in line if name in face]
        knots = np.array([face[name] for name in known])
        for name, share in zip(line, shares, strict=True):
            if name in face:
                continue
            place = line.index(name)
            before = max((one for one in known if line.index(one) < place), key=line.index)
            after = min((one for one in known if line.index(one) > place), key=line.index)
            x = (1 - share) * face[before][0] + share * face[after][0]
            if (np.diff(knots[:, 0]) > 0).all() or (np.diff(knots[:, 0]) < 0).all():
                order = np.argsort(knots[:, 0])
                y = float(curve(knots[order, 0], knots[order, 1], np.array(x)))
            else:  # a line that turns back, as a misplaced point makes it
                y = (1 - share) * face[before][1] + share * face[after][1]
            derived[name] = np.array([x, y])

    for side in names.SIDES:
        complete(names.brow(side), (0, 0.5, 0, 0.5, 0))
        complete(names.lid(side, "upper"), (0, 0.5, 0, 0.5, 0), arch)
        complete(names.lid(side, "lower"), (0, 0.5, 0, 0.5, 0), arch)
    for line, members in names.LIP_LINES.items():
        shares = (0, 0, 0.5, 0, 0.5, 0, 0) if line.endswith("outer") else (0, 0.45, 0, 0.5, 0, 0.5, 0, 0.55, 0)
        complete(members, shares, arch)
    if "nose_tip" not in face:
        eyes = 0.5 * (face["eye_R_inner"] + face["eye_L_inner"])
        derived["nose_tip"] = face["nose_base"] + 0.2 * (eyes - face["nose_base"])
    _complete_jaw(face, derived)
    back = {name: frame.to_image(point) for name, point in derived.items()}
    return {**given, **{name: (float(x), float(y)) for name, (x, y) in back.items()}}


def _complete_jaw(face: Mapping[str, np.ndarray], derived: dict[str, np.ndarray]) -> None:
    """The jaw turns under at the chin, so both coordinates are curves over the way along it."""
    known = [name for name in names.JAW if name in face]
    knots = np.array([face[name] for name in known])
    along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1) + 1e-6)]
    for name in names.JAW:
        if name in face:
            continue
        place = names.JAW.index(name)
        before = max(i for i, one in enumerate(known) if names.JAW.index(one) < place)
        at = np.array(0.5 * (along[before] + along[before + 1]))
        derived[name] = np.array([monotone(along, knots[:, axis], at) for axis in (0, 1)])


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def parse_points(text: str, width: int, height: int) -> FacePoints:
    """Points from their JSON form, for a picture of ``width`` times ``height`` pixels.

    Points noted on another size of the same picture are scaled; another aspect ratio is refused. Raises
    ``PointsError``.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PointsError(f"points are not JSON: {str(error).splitlines()[0][:100]}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise PointsError(f"points have the format {str(found)[:30]!r}, expected {FORMAT!r}")
    noted_width, noted_height = data.get("width"), data.get("height")
    if not (_is_count(noted_width) and _is_count(noted_height)):
        size = str([noted_width, noted_height])[:60]
        raise PointsError(f"points need the width and height of their picture in pixels, got {size}")
    if not isinstance(data.get("points"), dict) or not isinstance(data.get("source", {}), dict):
        raise PointsError('points need "points": {name: [x, y]}, and "source", when given, is {name: strength}')
    points = FacePoints(width=noted_width, height=noted_height, points=data["points"], source=data.get("source", {}))
    if (noted_width, noted_height) == (width, height):
        return points
    if abs(noted_width * height / (noted_height * width) - 1) > 0.01:
        raise PointsError(
            f"points are for a {noted_width}x{noted_height} picture, this one has {width}x{height} pixels: mark it anew"
        )
    return points.scaled(width, height)


def read_points(path: str | PathLike[str], width: int, height: int) -> FacePoints:
    """``parse_points`` of a UTF-8 file. Raises ``PointsError`` also for a file that is missing or no text."""
    place = Path(path)
    try:
        if place.stat().st_size > MAX_BYTES:
            raise PointsError(f"points {place.name!r}: {place.stat().st_size} bytes are too many for a file of points")
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise PointsError(f"points {place.name!r}: cannot be read ({reason})") from error
    try:
        return parse_points(text, width, height)
    except PointsError as error:
        raise PointsError(f"points {place.name!r}: {error}") from error
