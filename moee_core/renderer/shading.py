"""Folds and hollows that come and go with an expression: soft factors on the brightness of the skin.

Shapes (legend for this file): h, w nodes of a grid over the face; K maps; face units (eye distances), y down.

Each map is a change of brightness at full strength, laid along a line of the face. Folds are only added here; those
that the picture already shows are taken out in ``retouch``.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..motion.coefficients import FACE
from .field import Grid
from .points import FacePoints

MAPS = ("1", "2", "4", "6", "7", "9", "10", "12R", "12L", "14R", "14L", "15", "17", "20")
DARKEST, LIGHTEST = 0.45, 1.3


def _by(x: float, y: float) -> np.ndarray:
    return np.array([x, y])


class Shading:
    """The maps of one portrait; ``grid`` covers the face."""

    def __init__(self, points: FacePoints, grid: Grid, strength: float, drawn: float = 0.0) -> None:
        """``drawn`` 0 is a photograph, 1 a drawing, whose folds are lines."""
        self._strength = strength
        fineness = 1 - 0.5 * drawn
        frame = points.frame
        face = frame.to_face(grid.nodes.reshape(-1, 2))
        at = {name: frame.to_face(np.array(point)) for name, point in points.full.items()}
        maps = {name: np.zeros(len(face)) for name in MAPS}

        def stroke(name: str, line: list[np.ndarray], width: float, depth: float) -> None:
            """A soft dark line with a light rim below it, fading at its ends."""
            points_ = np.array(line)
            nearest, along = np.full(len(face), np.inf), np.zeros(len(face))
            lengths = np.linalg.norm(np.diff(points_, axis=0), axis=1)
            total, passed = lengths.sum(), 0.0
            for start, end, length in zip(points_[:-1], points_[1:], lengths, strict=True):
                t = np.clip((face - start) @ (end - start) / max(length**2, 1e-9), 0, 1)
                gap = np.linalg.norm(face - start - t[:, None] * (end - start), axis=1)
                closer = gap < nearest
                nearest = np.where(closer, gap, nearest)
                along = np.where(closer, (passed + t * length) / total, along)
                passed += length
            fade = np.sin(np.pi * np.clip(0.08 + 0.84 * along, 0, 1)) ** 0.7
            maps[name] -= depth * np.exp(-((nearest / (fineness * width)) ** 2)) * fade

        def spot(name: str, place: np.ndarray, radii: tuple[float, float], depth: float) -> None:
            maps[name] -= depth * np.exp(-(((face - place) / radii) ** 2).sum(axis=1))

        brows = 0.5 * (at["brow_R_inner"] + at["brow_L_inner"])
        for height, depth in ((0.24, 0.22), (0.36, 0.18)):
            line = [brows + _by(x, -height - 0.02 * (1 - (x / 0.45) ** 2)) for x in np.linspace(-0.45, 0.45, 7)]
            stroke("1", line, 0.026, depth)
        for side, sign in (("R", -1.0), ("L", 1.0)):
            inner, middle = at[f"brow_{side}_inner"], at[f"brow_{side}_middle"]
            outer_eye, lower = at[f"eye_{side}_outer"], at[f"eye_{side}_lower"]
            ala, corner = at[f"nose_{side}_ala"], at[f"mouth_{side}"]
            stroke("2", [middle + _by(sign * d, -0.25 + 0.25 * (d - 0.05) ** 2) for d in (-0.2, 0.0, 0.2)], 0.028, 0.12)
            between = brows + _by(sign * 0.4 * abs(inner[0] - brows[0]), 0.04 * drawn)
            stroke(
                "4",
                [
                    between + _by(0, -0.09),
                    between + _by(sign * 0.015, 0.02),
                    between + _by(0, 0.10),
                ],
                0.026,
                0.38,
            )
            spot("4", inner + _by(0, 0.09), (0.14, 0.06), 0.16 * (1 - drawn))
            nose_side = 0.55 * at["nose_tip"] + 0.45 * brows
            for (x0, y0), (x1, y1), depth in (((0.05, -0.1), (0.13, 0.0), 0.42), ((0.07, 0.0), (0.15, 0.08), 0.34)):
                line = [nose_side + _by(sign * x0, y0), nose_side + _by(sign * x1, y1)]
                stroke("9", line, 0.024, depth * (1 - drawn))
            bridge = 0.5 * (at["eye_R_inner"] + at["eye_L_inner"])
            upper = ((0.036, -0.12), (0.12, -0.07), (0.19, 0.02))
            for wrinkle in (upper, ((0.043, 0.03), (0.13, 0.07), (0.185, 0.15))):
                stroke("9", [bridge + _by(sign * x, y) for x, y in wrinkle], 0.036, 0.4 * drawn)
            low = corner + _by(sign * 0.125, -0.01)
            bow = 0.5 * (ala + low) + _by(sign * (0.055 - 0.035 * drawn), -0.02)
            fold = [ala + _by(sign * 0.05, 0.04 * drawn - 0.05), bow, low]
            for name, depth in ((f"12{side}", 0.26), ("10", 0.20), ("9", 0.17)):
                stroke(name, fold, 0.032, depth)
            spot(f"12{side}", 0.5 * (lower + corner) + _by(sign * 0.13, -0.06), (0.16, 0.11), -0.06)
            dent = corner + _by(sign * 0.06, 0.0)
            stroke(
                f"14{side}",
                [dent + _by(-sign * 0.01, -0.06), dent + _by(sign * 0.01, 0.0), dent + _by(-sign * 0.01, 0.07)],
                0.028,
                0.20,
            )
            stroke("15", [corner + _by(sign * 0.03, 0.03), corner + _by(sign * 0.08, 0.15)], 0.036, 0.17)
            stroke(
                "20",
                [corner + _by(sign * 0.09, -0.07), corner + _by(sign * 0.12, 0.0), corner + _by(sign * 0.09, 0.08)],
                0.030,
                0.15,
            )
            bag = [lower + _by(sign * d, 0.10 - 0.6 * d * d) for d in (-0.17, 0.0, 0.17)]
            stroke("6", bag, 0.026, 0.34)
            spot("6", lower + _by(sign * 0.05, 0.24), (0.2, 0.08), -0.05)
            stroke("7", [point - [0, 0.03] for point in bag], 0.024, 0.18)
            for rise in (-0.05, 0.03):
                stroke(
                    "6",
                    [outer_eye + _by(sign * 0.05, rise * 0.4), outer_eye + _by(sign * 0.16, rise)],
                    0.018,
                    0.22,
                )
        boss = 0.5 * (at["lip_lower_outer_M"] + at["chin"])
        spot("17", boss + _by(0, -0.03), (0.17, 0.075), 0.13 * (1 - drawn))
        spot("17", boss + _by(0, 0.06), (0.12, 0.05), -0.05 * (1 - drawn))
        stroke("17", [boss + _by(x, -0.05 + 1.6 * x * x) for x in np.linspace(-0.17, 0.17, 7)], 0.03, 0.3 * drawn)
        stack = [maps[name].reshape(grid.rows, grid.columns) for name in MAPS]
        self._maps = np.stack(stack).astype(np.float32)
        self._columns = [FACE.index[f"AU{name}"] for name in MAPS]
        self._source = np.clip(points.source_row()[self._columns], 0, 1.5)

    def factors(self, row: np.ndarray) -> np.ndarray | None:
        """(h, w) float32 factors of brightness; None when all are one."""
        weights = np.clip(np.clip(row[self._columns], 0, 1.5) - self._source, 0, None) * self._strength
        if weights.max() < 0.01:
            return None
        factors = np.ones_like(self._maps[0])
        for weight, change in zip(weights.tolist(), self._maps, strict=True):
            if weight:
                cv2.scaleAdd(change, weight, factors, dst=factors)
        return np.clip(factors, DARKEST, LIGHTEST, out=factors)
