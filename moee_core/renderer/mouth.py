"""Draws the mouth: the lips' own pixels moved strip by strip, and between them teeth, tongue and the dark behind.

Shapes (legend for this file): h, w pixels of the patch around the mouth; face units (eye distances), y down.

For a pixel of the moved mouth, its column and its place between the four lines of the lips say where in the picture it
comes from, so lips can neither tear nor double, whatever the lines do. Around the lips the strips pass into the field
that moves the rest of the face. What is between the inner lines is painted, or taken from the picture when that already
shows teeth; the edge is computed from the lines and thus smooth at any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .field import Grid, smoothstep
from .fill import filled_in
from .inside import InsideMouth
from .mouth_shape import STATIONS, Lips, MouthShape
from .points import FacePoints
from .sampling import looked_up, table_at

OPEN = 0.03
"""From this mean gap between the lips on, in eye distances, a picture shows the inside of the mouth.

Closed lips that are marked a little off have a gap, too."""
FRINGE = 0.016
"""Of the inside's colours on the lips' edges, in eye distances."""
SEAM = 0.02
"""Half the height of the line between drawn lips that are closed; when they part it stays with the upper one."""
BLEND = 0.13
"""Width of the passage from the lips into the skin around, in eye distances."""
END_BLEND = 0.14


def parted(lips: Lips) -> bool:
    """Whether a portrait's lips are open."""
    return float((lips.lines[2] - lips.lines[1]).mean()) >= OPEN


class MouthPainter:
    """The mouth of one portrait."""

    def __init__(
        self,
        picture: np.ndarray,
        points: FacePoints,
        shape: MouthShape,
        layer: np.ndarray,
        grid: Grid,
        drawn: float = 0.0,
    ) -> None:
        """``picture`` (H, W, 3) uint8, ``layer`` (height, width, 4) the head cut out of the grid's rectangle.

        ``drawn`` 0 is a photograph, 1 a drawing.
        """
        self._frame, self._points, self._grid = points.frame, points, grid
        self._axes = points.frame.axes.astype(np.float32)
        self._back = np.linalg.inv(points.frame.axes).astype(np.float32)
        self._origin = points.frame.origin.astype(np.float32)
        self._before = shape.source
        self._table = np.ascontiguousarray(self._before.lines.T, np.float32)
        aperture = self._aperture(points)
        self._hole = np.ascontiguousarray(aperture[grid.slices])
        self.skin = self.without_inside(layer)
        self._inside = InsideMouth(picture, points, shape, aperture, drawn)
        self._seam = 0.0 if parted(self._before) else SEAM * drawn

    def _aperture(self, points: FacePoints) -> np.ndarray:
        """(H, W) uint8: 1 where the picture shows the inside of the mouth."""
        aperture = np.zeros((points.height, points.width), np.uint8)
        lines, x = self._before.lines, self._before.x
        if parted(self._before):
            outline = np.concatenate([np.stack([x, lines[1]], 1), np.stack([x, lines[2]], 1)[::-1]])
            cv2.fillPoly(aperture, [np.rint(self._frame.to_image(outline) * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
        return aperture

    def without_inside(self, layer: np.ndarray) -> np.ndarray:
        """(height, width, 4) uint8: the head with the opening between its lips filled from them."""
        result = layer.copy()
        if not self._hole.any():
            return result
        radius = max(1, round(FRINGE * self._frame.distance))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        grown = cv2.dilate(self._hole, kernel)
        rows, columns = np.nonzero(grown)
        top, left = max(rows.min() - 4 * radius, 0), max(columns.min() - 4 * radius, 0)
        part = np.s_[top : rows.max() + 4 * radius, left : columns.max() + 4 * radius]
        result[part][..., :3] = filled_in(np.ascontiguousarray(layer[part][..., :3]), grown[part])
        return result

    def box(self, lips: Lips, grid: Grid, moved: np.ndarray | None) -> tuple[int, int, int, int]:
        """Pixels (x0, y0, x1, y1) that the mouth may touch; ``moved`` is the head's forward field."""
        left = min(lips.corners[0, 0], self._before.corners[0, 0]) - END_BLEND - 0.02
        right = max(lips.corners[1, 0], self._before.corners[1, 0]) + END_BLEND + 0.02
        top, bottom = float(lips.lines[0].min()) - BLEND - 0.04, float(lips.lines[3].max()) + BLEND + 0.04
        rim = np.array(
            [(a, b) for a in (left, 0.5 * (left + right), right) for b in (top, 0.5 * (top + bottom), bottom)]
        )
        pixels = self._frame.to_image(rim)
        if moved is not None:
            pixels = pixels + grid.at(moved, pixels)
        x0, y0 = np.floor(pixels.min(axis=0)).astype(int) - 2
        x1, y1 = np.ceil(pixels.max(axis=0)).astype(int) + 3
        return (
            max(x0, grid.left), max(y0, grid.top), min(x1, grid.left + grid.width), min(y1, grid.top + grid.height)
        )  # fmt: skip

    def paint(
        self, layer: np.ndarray, sources: np.ndarray, pose: tuple[np.ndarray, np.ndarray] | None, lips: Lips
    ) -> None:
        """Draw into ``layer`` (RGBA of the grid's rectangle), in place.

        ``sources`` (height, width, 2) is where each pixel of the rectangle comes from without the mouth, counted from
        the rectangle's corner; ``pose`` is the head's forward and backward field, None when it keeps still.
        """
        grid = self._grid
        box = self.box(lips, grid, None if pose is None else pose[0])
        x0, y0, x1, y1 = box
        if x1 - x0 < 4 or y1 - y0 < 4:
            return
        part = np.s_[y0 - grid.top : y1 - grid.top, x0 - grid.left : x1 - grid.left]
        places = grid.pixels[part]
        if pose is not None:
            places = places + grid.window(pose[1], box)
        offset = -(self._origin @ self._back)
        x, y = cv2.split(cv2.transform(places, np.column_stack([self._back.T, offset])))

        right, left = (float(v) for v in lips.corners[:, 0])
        station = (x - right) * ((STATIONS - 1) / (left - right))
        now_lines = table_at(np.ascontiguousarray(lips.lines.T, np.float32), station)
        now, then = list(cv2.split(now_lines)), list(cv2.split(table_at(self._table, station)))
        if self._seam:
            now_lines = self._with_seam(now, then, now_lines)
        beyond = np.maximum(right - x, x - left)  # past the corners
        weight = smoothstep(np.maximum(now[0] - y, y - now[3]), BLEND, 0.02)
        weight *= smoothstep(beyond, END_BLEND, 0.0)

        strip = np.stack([self._source_x(x, right, left), _strips(y, now, then)], axis=-1)
        corner = self._origin - np.array([grid.left, grid.top], np.float32)
        moved = cv2.transform(strip, np.column_stack([self._axes.T, corner]))
        field = sources[part]
        drawn = looked_up(self.skin, field + (moved - field) * cv2.merge([weight, weight]), border=cv2.BORDER_CONSTANT)
        closed = 1 - min(1.0, lips.opening / max(self._before.opening, 1e-6)) if parted(self._before) else 0.0
        if closed > 0:  # lips that the picture shows apart meet in a dark line when they close
            seam = np.exp(-(((y - 0.5 * (now[1] + now[2])) / np.float32(0.013)) ** 2)) * smoothstep(beyond, 0.0, -0.03)
            dark = np.rint(255 - np.float32(107 * closed) * seam).astype(np.uint8)
            whole = np.full_like(dark, 255)
            drawn = cv2.multiply(drawn, cv2.merge([dark, dark, dark, whole]), scale=1 / 255)
        if lips.opening > 0.004:
            opening = np.minimum(y - now[1], now[2] - y) * np.float32(self._frame.distance)
            opening = np.clip(opening, 0, 1) * (beyond < 0)
            if opening.any():
                self._inside.paint(drawn, opening, x, y, now_lines, places, lips)
        mask = np.minimum(weight * 6.0, 1.0) * np.float32(1 - self._alike(lips))
        layer[part] = cv2.blendLinear(drawn, np.ascontiguousarray(layer[part]), mask, 1 - mask)

    def _with_seam(self, now: list[np.ndarray], then: list[np.ndarray], now_lines: np.ndarray) -> np.ndarray:
        """Cut below the line between closed lips instead of through it: the inner lines (h, w), before and after, in
        place; returns ``now_lines`` (h, w, 4) with them."""
        half = np.float32(self._seam)
        apart = np.clip((now[2] - now[1]) / (2 * half), 0, 1)
        room = np.clip((then[3] - then[2]) / (3 * half), 0, 1) * half  # none in the corners
        then[1], then[2] = then[1] + room, then[2] + room
        now[1], now[2] = now[1] + room, now[2] + room * (1 - apart)
        now[2] = np.maximum(now[2], now[1])
        return cv2.merge(now)

    def _alike(self, lips: Lips) -> float:
        """1 while the lips are as the picture has them: then its own pixels are the best drawing of them."""
        change = max(np.abs(lips.lines - self._before.lines).max(), np.abs(lips.corners - self._before.corners).max())
        return float(np.clip(1 - change / 0.012, 0, 1))

    def _source_x(self, x: np.ndarray, right: float, left: float) -> np.ndarray:
        """Columns go with the corners: evenly between them, by the corner's own way beyond."""
        was_right, was_left = (float(v) for v in self._before.corners[:, 0])
        inside = np.clip((x - right) / (left - right), 0, 1) * (was_left - was_right) + was_right
        return inside + np.minimum(x - right, 0) + np.maximum(x - left, 0)


def _strips(y: np.ndarray, now: Sequence[np.ndarray], then: Sequence[np.ndarray]) -> np.ndarray:
    """Height in the picture for height ``y`` in the moved face; four lines (h, w) each, after and before."""
    tiny = 1e-4
    thick_up, thick_low = now[1] - now[0], now[3] - now[2]
    up = then[0] + np.minimum(y - now[0], 0)
    up += np.clip((y - now[0]) / np.maximum(thick_up, tiny), 0, 1) * (then[1] - then[0])
    low = then[3] + np.maximum(y - now[3], 0)
    low -= np.clip((now[3] - y) / np.maximum(thick_low, tiny), 0, 1) * (then[3] - then[2])
    return np.where(y < 0.5 * (now[1] + now[2]), up, low).astype(np.float32)
