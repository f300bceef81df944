"""Exact points of a person of the face world in a state: what a careful hand would mark on the picture.

Points come from the same lines that are painted, through the same camera, so they hold for every pose and expression.
A full set of 67 names and the irises is given; pixels are those of the picture of the size asked for.

Raises ``ValueError`` for a size under 48 pixels and ``PointsError`` when a pose hides part of the face.
"""

from __future__ import annotations

import math

import numpy as np

from moee_core.motion.coefficients import FACE
from moee_core.renderer import names
from moee_core.renderer.points import FacePoints
from training.face_world.identity import Identity
from training.face_world.render import OUTLINE_DEPTH, SUPERSAMPLING, _camera, _check_size
from training.face_world.render_eyes import shape_brow, shape_eye
from training.face_world.render_head import face_outline
from training.face_world.render_mouth import shape_mouth
from training.face_world.rig import AU_NAMES, VISEME_AXES, FaceState

_JAW_PLACES = (18, 22, 25, 28, 31)
"""Points of the outline from the person's left ear to the chin, which is number 35 of 70."""
_CHIN, _OUTLINE = 35, 70
_LIP_PLACES = {"outer": (5, 9, 14, 19, 23), "inner": (3, 6, 10, 14, 18, 22, 25)}
"""Points of a line of 29 from the right to the left corner."""


def face_points(
    identity: Identity, state: FaceState | None = None, size: int = 128, *, with_source: bool = True
) -> FacePoints:
    """The points of ``render(identity, state, size)``; ``with_source`` notes the state's expression in them."""
    _check_size(size)
    state = FaceState() if state is None else state
    camera = _camera(identity, state, size * SUPERSAMPLING, head=True)
    found: dict[str, tuple[float, float]] = {}

    def mark(members: tuple[str, ...], points: np.ndarray, depth: float | None = None) -> None:
        pixels = (camera.project(points, depth) + 0.5) / SUPERSAMPLING - 0.5  # the picture is the canvas's average
        found.update({name: (float(x), float(y)) for name, (x, y) in zip(members, pixels, strict=True)})

    mouth, au = shape_mouth(identity, state), state.strengths()
    lines = {
        "upper_outer": mouth.upper_outer, "upper_inner": mouth.upper,
        "lower_inner": mouth.lower, "lower_outer": mouth.lower_outer,
    }  # fmt: skip
    for line, points in lines.items():
        members = names.LIP_LINES[line]
        mark(members[1:-1], points[list(_LIP_PLACES[line.split("_")[1]])])
    mark(("mouth_R", "mouth_L"), mouth.upper[[0, -1]])
    for side, sign in (("R", -1), ("L", 1)):
        mark(names.brow(side), shape_brow(identity, state, sign)[[15, 12, 8, 4, 0]])
        eye = shape_eye(identity, state, sign)
        mark(names.lid(side, "upper"), eye.upper[[16, 12, 8, 4, 0]])
        mark(names.lid(side, "lower")[1:-1], eye.lower[[12, 8, 4]])
        x = eye.center[0] + 0.075 * float(state.gaze[0])
        y = eye.center[1] - 0.014 + 0.045 * float(state.gaze[1])
        radius = 0.098 * math.sqrt(identity.eye_size)
        mark((f"iris_{side}", f"iris_{side}_edge"), np.array([(x, y), (x + sign * radius, y)], np.float32))
    half = 0.132 * identity.nose_width * (1 + 0.20 * au["9"] + 0.10 * au["10"])
    base = identity.nose_length - 0.050 * au["9"] - 0.018 * au["10"]
    nose = [(-half, base - 0.02), (0.0, base - 0.055), (0.0, base + 0.058), (half, base - 0.02)]
    mark(names.NOSE, np.array(nose, np.float32))
    outline = face_outline(identity, mouth, max(au["6"], 0.5 * (au["12L"] + au["12R"])))
    places = [*(_OUTLINE - place for place in _JAW_PLACES), _CHIN, *reversed(_JAW_PLACES)]
    mark(names.JAW, outline[places], OUTLINE_DEPTH)
    limit = size - 0.5
    inside = {name: (min(max(x, -0.5), limit), min(max(y, -0.5), limit)) for name, (x, y) in found.items()}
    return FacePoints(width=size, height=size, points=inside, source=_source(state) if with_source else {})


def _source(state: FaceState) -> dict[str, float]:
    """The expression of a state in the names of ``FACE``, without what is zero."""
    values = {f"AU{name}": value for name, value in zip(AU_NAMES, state.action_units.tolist(), strict=True)}
    shut = min(1.0, float(state.blink) + values.pop("AU43"))
    values |= dict(zip(VISEME_AXES, state.viseme.tolist(), strict=True))
    values |= {"lidL": shut, "lidR": shut, "gaze_x": float(state.gaze[0]), "gaze_y": float(state.gaze[1])}
    return {name: float(values[name]) for name in FACE.names if values.get(name)}
