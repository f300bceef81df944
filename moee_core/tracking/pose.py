"""How a head is held in every frame of a track, and the face as it would be seen from the front.

Shapes (legend for this file): F frames, M vertices; meshes (F, M, 3) with z pointing away from the viewer, as the
detector gives it. Results use the axes of ``FACE``: x right, y down, z towards the viewer.

Equations: the still vertices of every frame are laid on those of a reference by the best similarity,
min_{s,R,t} sum |s R q_i + t - p_i|^2 (Kabsch 1976, Umeyama 1991); the reference is the mean of the frames so laid,
found in a few rounds, and turned so that its two halves mirror each other and forehead and chin are equally far. With
R = R_z(roll) R_x(pitch) R_y(yaw), as ``renderer/pose.py`` turns a head,

    pitch = asin(-R_32),  yaw = atan2(-R_31, R_33),  roll = atan2(-R_12, R_22)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..renderer.mesh import CHIN, FOREHEAD, STILL_MIDDLE, STILL_SIDES
from ..renderer.pose import FOCAL

ROUNDS = 4
BELOW_CHIN = 0.15
"""Eye distances under the chin around which a head rolls (``renderer/pose.py``)."""
DEPTH_OF_EYES = 0.9
"""Eye distances from the axis a head turns about to its eyes."""

_STILL = np.array([*STILL_MIDDLE, *(i for pair in STILL_SIDES for i in pair)])
_PAIRS = np.array(STILL_SIDES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """``pose`` (F, 6) as ``FACE`` names it; ``faces`` (F, M, 3) from the front, in eye distances from between the eyes.

    ``distance`` (F,) is the eye distance in pixels, had the head not been turned.
    """

    pose: np.ndarray
    faces: np.ndarray
    distance: np.ndarray


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """(s, R (3, 3), t (3,)) that bring ``source`` (n, 3) closest to ``target`` (n, 3)."""
    middle_s, middle_t = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle_s, target - middle_t
    u, values, v = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    turn = (u * sign) @ v
    scale = float((values * sign).sum() / max(float((a * a).sum()), 1e-12))
    return scale, turn, middle_t - scale * turn @ middle_s


def _upright(reference: np.ndarray) -> np.ndarray:
    """Turned to the front and measured in eye distances from between the eyes; z towards the viewer."""
    right = (reference[_PAIRS[:, 1]] - reference[_PAIRS[:, 0]]).sum(axis=0)
    right /= np.linalg.norm(right)
    down = reference[CHIN] - reference[FOREHEAD]
    down -= right * (down @ right)
    down /= np.linalg.norm(down)
    turned = reference @ np.stack([right, down, np.cross(right, down)]).T
    eyes = turned[[[33, 133], [263, 362]]].mean(axis=1)
    return (turned - eyes.mean(axis=0)) / max(float(np.hypot(*(eyes[1] - eyes[0])[:2])), 1e-9)


def _from_the_front(
    seen: np.ndarray, reference: np.ndarray
) -> tuple[list[tuple[float, np.ndarray, np.ndarray]], np.ndarray]:
    """How each frame's head lies on the reference, and the frames' faces (F, M, 3) in the reference's place."""
    fits = [similarity(reference[_STILL], frame[_STILL]) for frame in seen]
    return fits, np.stack([(frame - t) @ turn / s for frame, (s, turn, t) in zip(seen, fits, strict=True)])


def heads(meshes: np.ndarray) -> Heads:
    """Pose and frontal face of every frame. ``meshes`` (F, M, 3) finite."""
    seen = np.asarray(meshes, np.float64) * [1.0, 1.0, -1.0]
    reference = _upright(seen[len(seen) // 2])
    for _ in range(ROUNDS - 1):
        reference = _upright(_from_the_front(seen, reference)[1].mean(axis=0))
    fits, faces = _from_the_front(seen, reference)
    scale = np.array([s for s, _, _ in fits])
    turns = np.stack([turn for _, turn, _ in fits])
    yaw = np.arctan2(-turns[:, 2, 0], turns[:, 2, 2])
    pitch = np.arcsin(np.clip(-turns[:, 2, 1], -1, 1))
    roll = np.arctan2(-turns[:, 0, 1], turns[:, 1, 1])
    pivot = np.array([0.0, reference[CHIN, 1] + BELOW_CHIN, reference[_STILL, 2].mean() - DEPTH_OF_EYES])
    places = np.stack([s * turn @ pivot + t for s, turn, t in fits])
    usual = float(np.median(scale))
    shift = (places[:, :2] - np.median(places[:, :2], axis=0)) / usual
    nearer = FOCAL * (1 - usual / scale)
    pose = np.stack([roll, yaw, pitch, shift[:, 0], shift[:, 1], nearer], axis=1)
    return Heads(pose=pose, faces=faces, distance=scale)
