"""Draws a person of the face world in a state: a talking face with exact ground truth.

Shapes: pictures (size, size, 3) uint8 RGB. Everything is painted as anti-aliased outlines on a canvas of twice the
size and reduced by area; widths are in face units, so every size shows the same drawing. The same input gives the same
pixels: nothing here is random.

Raises ``ValueError`` for a size under 48 pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.face_world.identity import Identity
from training.face_world.render_eyes import paint_brow, paint_eye, paint_glasses, shape_brow, shape_eye
from training.face_world.render_hair import paint_hair_back, paint_hair_front
from training.face_world.render_head import (
    background,
    face_outline,
    paint_beard,
    paint_body,
    paint_ears,
    paint_folds,
    paint_freckles,
    paint_nose,
    paint_skin,
)
from training.face_world.render_mouth import paint_mouth, shape_mouth
from training.face_world.rig import FaceState
from training.face_world.shapes import Camera, Canvas

SUPERSAMPLING = 2
MIN_SIZE = 48
FACE_UNIT = 0.365
"""Half the height of a face as a fraction of the picture."""
ORIGIN_HEIGHT = 0.448
"""Height of the eyes' line as a fraction of the picture."""
BODY_SHARE = 0.5
"""How much of a shift of the head the shoulders follow."""
OUTLINE_DEPTH = 0.10

Box = tuple[float, float, float, float]


def _camera(identity: Identity, state: FaceState, pixels: float, *, head: bool) -> Camera:
    roll, yaw, pitch, shift_x, shift_y = (float(v) for v in state.pose)
    share = 1.0 if head else BODY_SHARE
    x = 0.5 + identity.offset[0] + shift_x * share
    y = ORIGIN_HEIGHT + identity.offset[1] + shift_y * share
    turn = (roll, yaw, pitch) if head else (0.0, 0.0, 0.0)
    roll, yaw, pitch = (min(0.8, max(-0.8, angle)) for angle in turn)
    return Camera(
        unit=pixels * FACE_UNIT * identity.scale, center=(x * pixels, y * pixels), roll=roll, yaw=yaw, pitch=pitch
    )


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels, got {size}")


def render(identity: Identity, state: FaceState, size: int = 128) -> np.ndarray:
    """The picture of a person in a state: (size, size, 3) uint8 RGB."""
    _check_size(size)
    pixels = size * SUPERSAMPLING
    image = background(identity.background_kind, *identity.background_colors, pixels).copy()
    head = Canvas(image=image, camera=_camera(identity, state, pixels, head=True))
    body = Canvas(image=image, camera=_camera(identity, state, pixels, head=False))
    units = state.strengths()
    mouth = shape_mouth(identity, state)
    cheeks = max(units["6"], 0.5 * (units["12L"] + units["12R"]))
    outline = head.camera.project(face_outline(identity, mouth, cheeks), OUTLINE_DEPTH)

    paint_hair_back(head, identity)
    paint_body(body, identity, mouth.jaw)
    paint_ears(head, identity)
    paint_skin(head, identity, mouth, units, outline)
    paint_freckles(head, identity)
    paint_folds(head, identity, mouth, units)
    paint_beard(head, identity, mouth)
    paint_nose(head, identity, units)
    for side in (-1, 1):
        paint_eye(head, identity, state, shape_eye(identity, state, side), side)
        paint_brow(head, identity, state, side)
    paint_mouth(head, identity, mouth)
    paint_glasses(head, identity)
    paint_hair_front(head, identity)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _box(points: np.ndarray, size: int, margin: float) -> Box:
    left, top = (min(max(float(v) - margin, 0.0), size - 2.0) for v in points.min(axis=0))
    right, bottom = (float(v) + margin for v in points.max(axis=0))
    return left, top, min(max(right, left + 1.0), float(size)), min(max(bottom, top + 1.0), float(size))


def face_regions(identity: Identity, state: FaceState, size: int = 128) -> dict[str, Box]:
    """Boxes (x0, y0, x1, y1) in pixels of "face", "mouth", "left_eye", "right_eye" and "brows", inside the picture.

    The person's left eye is the one on the right of the picture. Mouth, eyes and brows have a margin of two pixels
    in 128.
    """
    _check_size(size)
    camera, margin = _camera(identity, state, size, head=True), size / 64
    mouth = shape_mouth(identity, state)
    lips = np.concatenate([mouth.upper_outer, mouth.lower_outer])
    boxes = {
        "face": _box(camera.project(face_outline(identity, mouth, 0.0), OUTLINE_DEPTH), size, 0.0),
        "mouth": _box(camera.project(lips), size, margin),
    }
    for name, side in (("left_eye", 1), ("right_eye", -1)):
        eye = shape_eye(identity, state, side)
        boxes[name] = _box(camera.project(np.concatenate([eye.upper, eye.lower])), size, margin)
    brows = np.concatenate([shape_brow(identity, state, side) for side in (-1, 1)])
    boxes["brows"] = _box(camera.project(brows), size, margin + camera.unit * identity.brow_thickness)
    return boxes
