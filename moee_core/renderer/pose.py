"""Turning the head: a depth for every place of the face, and where a rotation and shift puts it.

Shapes (legend for this file): h, w nodes of a grid; face units (eye distances), z towards the viewer.

Equations (ours): across the face the depth is that of an ellipse that fits between the jaw's sides, down the face it
follows a profile; the nose stands out and the eyes lie deep:

    z(x, y) = profile(y) (1 - (x / width(y))^2)^0.6 + nose - sockets

A place moves by  R (x, y, z) - (x, y)  about the head's middle for yaw and pitch and about the neck for roll, seen
with a weak perspective, times how much that place belongs to the head.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..motion.coefficients import FACE
from . import names
from .curves import monotone
from .field import Grid, smoothstep
from .points import FacePoints

FOCAL = 14.0
"""Distance of the viewer in eye distances."""
MAX_TURN = 0.42
"""Radians of yaw and pitch that are approached, not passed: beyond, the picture has nothing to show."""
MAX_SHIFT = 0.45
EAR_WIDTH = 1.16
"""The head's half width at the ears over that of the marked jaw."""


def soft_limit(value: float, limit: float) -> float:
    """About ``value`` while small, never beyond ``limit``."""
    return float(limit * np.tanh(value / limit)) if abs(value) > 1e-9 else 0.0


class Head:
    """Depth and motion of one portrait's head on a grid."""

    def __init__(self, points: FacePoints, grid: Grid, top: float) -> None:
        """``top`` is the height of the hair's top in face units (negative)."""
        frame = points.frame
        self._frame = frame
        face = frame.to_face(grid.nodes.reshape(-1, 2))
        x, y = face[:, 0], face[:, 1]
        jaw = frame.to_face(points.line(names.JAW))
        chin = jaw[5]
        self.chin, self.jaw = chin, jaw
        self.centre_x = 0.5 * (jaw[0, 0] + jaw[-1, 0])
        self.half = 0.5 * (jaw[-1, 0] - jaw[0, 0])
        self.ear_y = ear_y = float(0.5 * (jaw[0, 1] + jaw[-1, 1]))
        order = np.argsort(jaw[:, 0], kind="stable")
        knots = np.maximum.accumulate(jaw[order, 0] + np.arange(len(order)) * 1e-5)
        self._jaw_x = np.linspace(knots[0], knots[-1], 400)
        self._jaw_y = monotone(knots, jaw[order, 1], self._jaw_x)

        # Half width of the head at each height: hair, ears, then in along the jaw, but never to nothing at the chin.
        heights = np.array([top - 0.3, top * 0.6, ear_y - 0.3, ear_y + 0.1])
        widths = np.array([0.8, 1.3, 1.3, EAR_WIDTH]) * self.half
        low_y = np.array([0.5 * (jaw[i, 1] + jaw[10 - i, 1]) for i in (2, 3, 4)] + [chin[1] + 0.1])
        low_w = np.array([0.5 * (jaw[10 - i, 0] - jaw[i, 0]) for i in (2, 3, 4)] + [0.0])
        low_w = np.maximum(1.12 * low_w + 0.06, 0.62 * self.half)
        knots, values = np.r_[heights, low_y], np.r_[widths, low_w]
        knots = np.maximum.accumulate(knots + np.arange(len(knots)) * 1e-4)
        width = monotone(knots, values, y)
        middle = self.centre_x + (chin[0] - self.centre_x) * smoothstep(y, ear_y, chin[1])

        brow = float(np.mean([frame.to_face(np.array(points.full[f"brow_{s}_middle"]))[1] for s in "RL"]))
        mouth = float(np.mean([frame.to_face(np.array(points.full[f"mouth_{s}"]))[1] for s in "RL"]))
        profile_y = np.array([top - 0.1, 0.5 * (top + brow), brow, 0.0, mouth, chin[1], chin[1] + 0.6])
        profile_z = np.array([0.15, 0.80, 0.98, 0.93, 1.02, 0.95, 0.5])
        profile_y = np.maximum.accumulate(profile_y + np.arange(7) * 1e-4)
        profile = monotone(profile_y, profile_z, y)
        share = np.clip(1 - ((x - middle) / width) ** 2, 0, None)
        depth = profile * share**0.6
        tip = frame.to_face(np.array(points.full["nose_tip"]))
        depth += 0.30 * np.exp(-(((x - tip[0]) / 0.20) ** 2)) * _ridge(y, tip[1])
        for side in names.SIDES:
            eye = frame.to_face(points.line((f"eye_{side}_outer", f"eye_{side}_inner"))).mean(axis=0)
            depth -= 0.07 * np.exp(-(((x - eye[0]) / 0.30) ** 2) - ((y - eye[1]) / 0.17) ** 2)
        self.depth = _blurred(depth.reshape(grid.rows, grid.columns), grid, 0.07 * frame.distance)
        self.face = face.reshape(grid.rows, grid.columns, 2).astype(np.float32)
        self.belongs = self.membership(x, y).reshape(grid.rows, grid.columns).astype(np.float32)
        self.neck = self._neck_membership(x, y).reshape(grid.rows, grid.columns).astype(np.float32)

    def jaw_height(self, x: np.ndarray) -> np.ndarray:
        """Height of the jaw's edge at ``x``, in face units; beyond the ears that of the ears."""
        return np.interp(x, self._jaw_x, self._jaw_y).astype(np.float32)

    def membership(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """1 on the head, falling to 0 on what hangs down beside the neck, and on the shoulders."""
        below = np.maximum(y - np.maximum(self.jaw_height(x), self.ear_y + 0.25), 0.0)
        beside = np.abs(x - self.centre_x) / self.half
        reach = 0.35 + 0.45 * smoothstep(beside, 0.5, 1.0)
        return 1 - smoothstep(below / reach, 0.0, 1.0)

    def _neck_membership(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far the skin under the jaw goes with it: half at the chin, nothing at the collar."""
        near = smoothstep(np.abs(x - self.centre_x) / self.half, 1.8, 1.1)
        return 0.5 * (1 - smoothstep(y - self.jaw_height(x), -0.1, 0.75)) * near

    def moves(self, row: np.ndarray) -> np.ndarray | None:
        """(h, w, 2) displacement in pixels of the whole picture as if it all were head; None without any pose."""
        roll, yaw, pitch, shift_x, shift_y, shift_z = (float(row[FACE.index[name]]) for name in FACE.pose_names)
        if not any((roll, yaw, pitch, shift_x, shift_y, shift_z)):
            return None
        yaw, pitch = soft_limit(yaw, MAX_TURN), soft_limit(pitch, MAX_TURN)
        roll = soft_limit(roll, 0.6)
        x = self.face[..., 0] - np.float32(self.centre_x)
        pivot = np.float32(0.35 * self.chin[1])
        y, z = self.face[..., 1] - pivot, self.depth
        turned_x = x * np.cos(yaw) + z * np.sin(yaw)
        turned_z = z * np.cos(yaw) - x * np.sin(yaw)
        turned_y = y * np.cos(pitch) + turned_z * np.sin(pitch)
        turned_z = turned_z * np.cos(pitch) - y * np.sin(pitch)
        scale = (FOCAL - z) / (FOCAL - turned_z - soft_limit(shift_z, 2 * MAX_SHIFT))
        turned_x, turned_y = turned_x * scale, turned_y * scale
        low = np.float32(self.chin[1] + 0.15) - pivot
        turned_y = turned_y - low
        cosine, sine = np.cos(roll), np.sin(roll)
        move_x = turned_x * cosine - turned_y * sine - x + soft_limit(shift_x, MAX_SHIFT)
        move_y = turned_x * sine + turned_y * cosine + low - y + soft_limit(shift_y, MAX_SHIFT)
        moved = np.stack([move_x, move_y], axis=-1).astype(np.float32)
        return cv2.transform(moved, self._frame.axes.T.astype(np.float32))


def _ridge(y: np.ndarray, tip: float) -> np.ndarray:
    """The nose's profile: rises from the bridge to the tip, ends soon under it."""
    return np.where(y < tip, np.exp(-(((y - tip) / 0.36) ** 2)), np.exp(-(((y - tip) / 0.16) ** 2)))


def _blurred(values: np.ndarray, grid: Grid, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(values.astype(np.float32), (0, 0), max(0.5, sigma / float(grid.steps.mean())))
