"""Smooth displacement fields on a coarse grid over part of a picture.

Shapes (legend for this file): h, w nodes of the grid; n control points; everything float32

    A node (i, j) lies at pixel  left + (j + 0.5) step_x - 0.5,  top + (i + 0.5) step_y - 0.5, so that enlarging a
    grid with ``cv2.resize`` puts its values on the right pixels.

Equations: displacements at control points are spread by a Matern kernel of order 3/2,
phi(r) = (1 + sqrt(3) r / s) exp(-sqrt(3) r / s), which interpolates without ringing; a forward field F is turned into
the backward field B with  B(p) = -F(p + B(p))  by damped iteration, which holds also where F folds slightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from .sampling import looked_up

SMOOTHNESS = 1e-2
"""Added to the kernel's diagonal: control points that nearly coincide need not agree exactly."""
INVERSION_STEPS = 7
DAMPING = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Nodes over the rectangle ``left, top`` + ``width, height`` in whole pixels."""

    left: int
    top: int
    width: int
    height: int
    columns: int
    rows: int

    @classmethod
    def over(cls, box: tuple[int, int, int, int], spacing: float) -> Grid:
        """Over (x0, y0, x1, y1) with nodes about ``spacing`` pixels apart."""
        x0, y0, x1, y1 = box
        width, height = x1 - x0, y1 - y0
        return cls(
            left=x0, top=y0, width=width, height=height,
            columns=max(4, round(width / spacing)), rows=max(4, round(height / spacing)),
        )  # fmt: skip

    @property
    def steps(self) -> np.ndarray:
        """(2,) pixels between nodes along x and y."""
        return np.array([self.width / self.columns, self.height / self.rows], np.float32)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @cached_property
    def nodes(self) -> np.ndarray:
        """(h, w, 2) pixel positions of the nodes."""
        index = self.index + np.float32(0.5)
        return index * self.steps - np.float32(0.5) + np.array([self.left, self.top], np.float32)

    @cached_property
    def index(self) -> np.ndarray:
        """(h, w, 2) column and row of each node."""
        rows, columns = np.mgrid[0 : self.rows, 0 : self.columns].astype(np.float32)
        return np.stack([columns, rows], axis=-1)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(height, width, 2) absolute pixel positions."""
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        return np.stack([x + self.left, y + self.top], axis=-1)

    def enlarged(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(h, w, ...) values of the nodes for every pixel of the rectangle, into ``out`` when given."""
        size = (self.width, self.height)
        if out is None:
            return cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(values, size, dst=out, interpolation=cv2.INTER_LINEAR)

    def window(self, values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """Values for the pixels of ``box`` (x0, y0, x1, y1) only; the whole ``enlarged`` is faster for a large one."""
        x0, y0, x1, y1 = box
        step_x, step_y = (float(v) for v in self.steps)
        # From a pixel of the box to the node grid; the transform is given as its inverse.
        matrix = np.array(
            [
                [1 / step_x, 0, (x0 - self.left + 0.5) / step_x - 0.5],
                [0, 1 / step_y, (y0 - self.top + 0.5) / step_y - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def on(self, other: Grid, values: np.ndarray) -> np.ndarray:
        """Values of these nodes at the nodes of another grid."""
        (step_x, step_y), (other_x, other_y) = self.steps.tolist(), other.steps.tolist()
        matrix = np.array(
            [
                [other_x / step_x, 0, (other.left - self.left + 0.5 * other_x) / step_x - 0.5],
                [0, other_y / step_y, (other.top - self.top + 0.5 * other_y) / step_y - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values, matrix, (other.columns, other.rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def at(self, values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """(n, c) values at positions (n, 2) in pixels; n is below 32,768."""
        corner = np.array([self.left, self.top], np.float32)
        places = ((np.asarray(pixels, np.float32) - corner + 0.5) / self.steps - 0.5).astype(np.float32)
        return looked_up(values, places[None]).reshape(len(places), -1)

    def moved(self, values: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Values of each node looked up at node + ``by`` (h, w, 2) pixels."""
        places = self.index + by / self.steps
        return looked_up(values, places)

    def inverted(self, forward: np.ndarray, steps: int = INVERSION_STEPS) -> np.ndarray:
        """(h, w, 2) backward field of a forward field, both in pixels; a gentle field needs few steps."""
        forward = forward / self.steps  # in nodes: many short steps, so what each of them costs counts
        backward, places, there = -forward, np.empty_like(forward), np.empty_like(forward)
        for _ in range(steps):
            cv2.add(self.index, backward, dst=places)
            looked_up(forward, places, out=there)
            cv2.addWeighted(backward, 1 - DAMPING, there, -DAMPING, 0, dst=backward)
        return backward * self.steps


def _kernel(distance: np.ndarray, reach: float) -> np.ndarray:
    scaled = np.sqrt(3.0) / reach * distance
    return (1 + scaled) * np.exp(-scaled)


def spreading(controls: np.ndarray, targets: np.ndarray, reach: float) -> np.ndarray:
    """(m, n) matrix that turns displacements of controls (n, 2) into those of targets (m, 2)."""
    own = _kernel(np.linalg.norm(controls[:, None] - controls[None], axis=2), reach)
    own[np.diag_indices_from(own)] += SMOOTHNESS
    across = _kernel(np.linalg.norm(targets[:, None] - controls[None], axis=2), reach)
    return np.linalg.solve(own, across.T).T.astype(np.float32)


def smoothstep(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 up to ``start``, 1 from ``end`` on, smooth between; ``start`` may be the larger one."""
    t = np.clip((values - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
