"""Eyes, brows and glasses: geometry from action units, and how they are painted.

Shapes: lid lines are (17, 2) float32 in face units, from the inner to the outer corner. ``side`` is -1 for the left of
the picture (the person's right) and +1 for the right.

Equations (ours), t from -1 at the inner to 1 at the outer corner:

    upper(t) = corner line - up (1 - t^2)^0.75        lower(t) = corner line + low (1 - t^2)^0.85,  up + low >= 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.face_world.identity import Glasses, Identity
from training.face_world.rig import FaceState
from training.face_world.shapes import Canvas, curve, ellipse, fill_ring, mix, rounded_box, scaled, stroke

EYE_HEIGHT = -0.02
EYE_HALF_WIDTH = 0.198
BROW_GAP = 0.285
"""From the eyes up to the brows."""
_T = np.sin(np.linspace(-math.pi / 2, math.pi / 2, 17)).astype(np.float32)
_UPPER = np.maximum(1.0 - _T * _T, 0.0) ** 0.75
_LOWER = np.maximum(1.0 - _T * _T, 0.0) ** 0.85
SCLERA = (250.0, 248.0, 246.0)


@dataclass(frozen=True, kw_only=True)
class Eye:
    """One eye in face units."""

    upper: np.ndarray
    lower: np.ndarray
    crease: np.ndarray
    center: tuple[float, float]
    opening: float


def shape_eye(identity: Identity, state: FaceState, side: int) -> Eye:
    """The lids of one eye."""
    au = state.strengths()
    size = identity.eye_size
    shut = min(1.0, max(0.0, state.blink) + 0.95 * au["43"])
    up, low = 0.130 * size, 0.074 * size
    open_up = up * (1 + 0.42 * au["5"]) * math.exp(-0.42 * au["7"] - 0.16 * au["6"] - 0.16 * au["9"])
    open_low = low * math.exp(-0.75 * au["7"] - 0.95 * au["6"] - 0.45 * au["9"]) * (1 + 0.16 * au["5"])
    raised = 0.045 * au["6"] + 0.02 * au["7"]  # a pushed up cheek bends the closed eye upwards
    low_now = open_low * (1 - shut) + (0.035 - raised) * shut
    up_now = open_up * (1 - shut) + (-0.035 + raised) * shut
    up_now = max(up_now, -low_now)
    x = side * identity.eye_distance + side * EYE_HALF_WIDTH * size * _T
    sad = au["1"] * (1 - 0.5 * min(1.0, au["2"]))
    inner_y, outer_y = EYE_HEIGHT + 0.014 - 0.012 * sad + 0.014 * au["4"], EYE_HEIGHT - identity.eye_tilt + 0.022 * sad
    corners = inner_y + (outer_y - inner_y) * (_T + 1) * 0.5
    # Sad brows lift the inner half of the lid, angry ones press on it.
    slant = (0.20 * min(sad, 1.2) - 0.34 * min(au["4"], 1.2) * (1 - 0.8 * min(1.0, sad))) * (1 - shut)
    profile = _UPPER * (1 - np.float32(slant) * _T * 0.9 - (0.0 if slant > 0 else -0.35 * slant))
    upper = np.stack([x, corners - up_now * profile], axis=1)
    lower = np.stack([x, corners + low_now * _LOWER], axis=1)
    lift = 0.050 + 0.02 * au["5"] - 0.012 * min(1.0, au["4"])
    crease = np.stack([x, corners - (open_up * (1 - 0.35 * shut) * profile + lift * (0.35 + 0.65 * _UPPER))], axis=1)
    return Eye(
        upper=upper.astype(np.float32),
        lower=np.maximum(lower, upper).astype(np.float32),
        crease=crease.astype(np.float32),
        center=(side * identity.eye_distance, EYE_HEIGHT),
        opening=up_now + low_now,
    )


def paint_eye(canvas: Canvas, identity: Identity, state: FaceState, eye: Eye, side: int) -> None:
    """Lid, eyeball within the lids, lashes."""
    skin, project = identity.skin, canvas.camera.project
    lid, line = scaled(skin, 0.90), mix(scaled(skin, 0.30), (34.0, 22.0, 22.0), 0.72)
    canvas.fill(np.concatenate([eye.crease, eye.lower[::-1]]), lid)
    canvas.stroke(eye.crease[2:-1], 0.024, scaled(skin, 0.66), ends=(0.2, 0.5))
    if eye.opening > 0.012:
        inset = canvas.inside(project(np.concatenate([eye.upper, eye.lower[::-1]])))
        if inset is not None:
            inset.paint[:] = SCLERA
            gaze_x, gaze_y = (min(1.0, max(-1.0, float(v))) for v in state.gaze)
            x, y = eye.center[0] + 0.075 * gaze_x, eye.center[1] - 0.014 + 0.045 * gaze_y
            radius = 0.098 * math.sqrt(identity.eye_size)
            iris = identity.iris_color
            inset.fill(project(ellipse(x, y, radius, radius)), scaled(iris, 0.55))
            inset.fill(project(ellipse(x, y + 0.01, radius * 0.78, radius * 0.78)), scaled(iris, 1.12, 8))
            inset.fill(project(ellipse(x, y, radius * 0.46, radius * 0.46)), (16.0, 12.0, 14.0))
            inset.fill(project(ellipse(x - 0.034, y - 0.038, 0.027, 0.027, 12)), (255.0, 255.0, 255.0))
            shadow = eye.upper + np.array((0, 0.012), np.float32)
            inset.fill(project(stroke(shadow, 0.03, 0.7, 0.7)), (176.0, 164.0, 164.0))
            inset.commit()
    canvas.stroke(eye.lower[3:], 0.022, mix(line, skin, 0.45), ends=(0.3, 0.9))
    lash = eye.upper
    if identity.lashes > 0.4:
        tip = lash[-1] + np.array((side * 0.045, -0.028), np.float32) * np.float32(identity.lashes)
        lash = np.concatenate([lash, tip[None]])
    canvas.stroke(lash, 0.036 + 0.014 * identity.lashes, line, ends=(0.35, 0.45))


def shape_brow(identity: Identity, state: FaceState, side: int) -> np.ndarray:
    """(N, 2) middle line of one brow, from the nose outwards."""
    au = state.strengths()
    y, length = EYE_HEIGHT - BROW_GAP, identity.brow_length
    frown = au["4"] * (1 - 0.9 * min(1.0, 1.4 * au["1"]))  # both at once: the oblique brows of sorrow
    sorrow = min(1.0, au["1"]) * min(1.0, au["4"])
    arch = identity.brow_arch
    inner = y - 0.010 - 0.155 * au["1"] - 0.05 * au["2"] + 0.125 * frown + 0.035 * au["9"] - 0.15 * sorrow
    middle = (
        y - 0.020 - 0.8 * arch - 0.055 * au["1"] - 0.110 * au["2"] + 0.070 * frown + 0.012 * au["9"] + 0.03 * sorrow
    )
    outer = y + 0.030 + 0.040 * au["1"] * (1 - min(1.0, au["2"])) - 0.120 * au["2"] + 0.005 * au["4"] + 0.07 * sorrow
    ceiling, floor = y - 0.21, y + 0.150  # stays below the hair and above the eye
    inner, middle, outer = (min(floor, max(ceiling, v)) for v in (inner, middle, outer))
    near = identity.eye_distance - 0.195 * length - 0.045 * min(au["4"], 1.2)
    far = identity.eye_distance + 0.235 * length
    points = [(near, inner), (near * 0.5 + far * 0.2 + 0.11, 0.5 * (inner + middle) - 0.008)]
    points += [(near * 0.3 + far * 0.7, middle), (far, outer)]
    return curve(points, 5) * np.array((side, 1), np.float32)


def paint_brow(canvas: Canvas, identity: Identity, state: FaceState, side: int) -> None:
    """A brush stroke that tapers outwards."""
    canvas.stroke(
        shape_brow(identity, state, side), 1.9 * identity.brow_thickness, identity.brow_color, ends=(0.75, 0.22)
    )


def paint_glasses(canvas: Canvas, identity: Identity) -> None:
    """Frames without lenses: rims, bridge and temples."""
    if identity.glasses == Glasses.NONE:
        return
    color, distance, y = identity.glasses_color, identity.eye_distance + 0.012, EYE_HEIGHT + 0.02
    box = ellipse if identity.glasses == Glasses.ROUND else rounded_box
    radius_x, radius_y = (0.250, 0.235) if identity.glasses == Glasses.ROUND else (0.262, 0.205)
    for side in (-1, 1):
        outer = canvas.camera.project(box(side * distance, y, radius_x, radius_y))
        inner = canvas.camera.project(box(side * distance, y, radius_x - 0.034, radius_y - 0.034))
        fill_ring(canvas.image, outer, inner, color)
        temple = curve(
            [(side * (distance + radius_x - 0.01), y - 0.05), (side * (identity.face_width + 0.02), y - 0.07)], 3
        )
        canvas.stroke(temple, 0.034, color, ends=(1.0, 1.0), depth=0.2)
    inner_edge = distance - radius_x + 0.012
    canvas.stroke(curve([(-inner_edge, y), (0, y - 0.035), (inner_edge, y)], 4), 0.036, color, ends=(1.0, 1.0))
