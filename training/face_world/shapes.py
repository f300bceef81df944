"""Geometry and paint of the face world: smooth curves, tapered strokes, the camera, anti-aliased filling.

Shapes (legend for this file): N points; every outline is (N, 2) float32, x to the right and y down.

    face units   origin between the eyes, y = -1 at the top of the skull, y = 1 at the chin of an average face
    pixels       of the supersampled canvas, origin at its upper left corner

Equations (ours): curves are uniform Catmull-Rom splines written as one matrix per number of points; the camera turns
points of a dome  z = 0.62 sqrt(1 - x^2 - (y / 1.25)^2)  by yaw and pitch and projects them in parallel, then rolls
them about the neck.

Colours are (red, green, blue) floats in 0..255. Raises ``ValueError`` from numpy when an outline is not (N, 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Color = tuple[float, float, float]
Points = np.ndarray | Sequence[tuple[float, float]]

SUBPIXEL_BITS = 4
SUBPIXEL = 1 << SUBPIXEL_BITS
NECK_PIVOT = 0.9
"""Height in face units about which the head rolls."""


@lru_cache(maxsize=64)
def _spline(count: int, steps: int, closed: bool) -> np.ndarray:
    """(M, count) matrix from control points to points of the Catmull-Rom curve, ``steps`` per segment."""
    segments = count if closed else count - 1
    t = np.arange(steps) / steps
    cubic = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1
    )
    matrix = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        rows = matrix[segment * steps : (segment + 1) * steps]
        for offset in range(4):
            index = segment - 1 + offset
            if closed:
                rows[:, index % count] += cubic[:, offset]
            elif index < 0:  # an end is prolonged by mirroring its neighbour
                rows[:, 0] += 2 * cubic[:, offset]
                rows[:, 1] -= cubic[:, offset]
            elif index >= count:
                rows[:, count - 1] += 2 * cubic[:, offset]
                rows[:, count - 2] -= cubic[:, offset]
            else:
                rows[:, index] += cubic[:, offset]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix.astype(np.float32)


def curve(points: Points, steps: int = 6, closed: bool = False) -> np.ndarray:
    """A smooth line through control points (n, 2) -> (M, 2), ``steps`` points per segment."""
    points = np.asarray(points, np.float32)
    return _spline(len(points), steps, closed) @ points


@lru_cache(maxsize=8)
def unit_circle(count: int) -> np.ndarray:
    """(count, 2) points of the unit circle, not to be written to."""
    angle = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, count: int = 20) -> np.ndarray:
    """(count, 2) outline of an upright ellipse."""
    return unit_circle(count) * np.array((radius_x, radius_y), np.float32) + np.array((x, y), np.float32)


def rounded_box(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """(28, 2) outline of a superellipse of order four."""
    circle = unit_circle(28)
    corner = np.sign(circle) * np.sqrt(np.abs(circle))
    return corner * np.array((radius_x, radius_y), np.float32) + np.array((x, y), np.float32)


def mirror(half: Points) -> np.ndarray:
    """Control points of the right half, top to bottom, completed to a closed symmetric outline.

    First and last point lie on the axis x = 0 and are not doubled.
    """
    half = np.asarray(half, np.float32)
    return np.concatenate([half, half[-2:0:-1] * np.array((-1, 1), np.float32)])


@lru_cache(maxsize=64)
def _taper(count: int, start: float, end: float) -> np.ndarray:
    """(count, 1) stroke profile: full in the middle, ``start`` and ``end`` of the width at the ends."""
    t = np.linspace(0.0, 1.0, count)
    edge = start * (1 - t) ** 2 + end * t**2
    swell = 1 - (2 * t - 1) ** 2
    return (edge + (1 - edge) * swell).astype(np.float32)[:, None]


def stroke(line: np.ndarray, width: float, start: float = 0.3, end: float = 0.3) -> np.ndarray:
    """Outline (2N, 2) of a brush stroke along ``line`` (N, 2): ``width`` in the middle, shares of it at the ends."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0] = line[1] - line[0]
    along[-1] = line[-1] - line[-2]
    length = np.sqrt(along[:, :1] ** 2 + along[:, 1:] ** 2) + 1e-6
    across = along[:, ::-1] * np.array((-0.5, 0.5), np.float32) / length * (width * _taper(len(line), start, end))
    return np.concatenate([line - across, (line + across)[::-1]])


def mix(first: Color, second: Color, share: float) -> Color:
    """``share`` of the second colour in the first."""
    keep = 1.0 - share
    return (
        first[0] * keep + second[0] * share,
        first[1] * keep + second[1] * share,
        first[2] * keep + second[2] * share,
    )


def scaled(color: Color, factor: float, add: float = 0.0) -> Color:
    """The colour times a factor plus a constant, clipped to 0..255."""
    red, green, blue = (min(255.0, max(0.0, value * factor + add)) for value in color)
    return red, green, blue


def luminance(color: Color) -> float:
    """Brightness 0..255 (Rec. 601 weights)."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """From face units to canvas pixels. ``unit`` is pixels per face unit, ``center`` the pixel of the origin."""

    unit: float
    center: tuple[float, float]
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def project(self, points: Points, depth: float | None = None) -> np.ndarray:
        """(N, 2) face units -> (N, 2) pixels; ``depth`` is z in face units, None puts the points on the dome."""
        points = np.asarray(points, np.float32)
        if depth is None:
            square = points * points
            z = 0.62 * np.sqrt(np.maximum(1.0 - square[:, 0] - square[:, 1] * 0.64, 0.0))
            x = points[:, 0] * math.cos(self.yaw) + z * math.sin(self.yaw)
            y = points[:, 1] * math.cos(self.pitch) + z * math.sin(self.pitch)
        else:
            x = points[:, 0] * math.cos(self.yaw) + depth * math.sin(self.yaw)
            y = points[:, 1] * math.cos(self.pitch) + depth * math.sin(self.pitch)
        y = y - NECK_PIVOT
        cosine, sine = math.cos(self.roll) * self.unit, math.sin(self.roll) * self.unit
        out = np.empty_like(points)
        out[:, 0] = x * cosine - y * sine + self.center[0]
        out[:, 1] = x * sine + y * cosine + self.center[1] + NECK_PIVOT * self.unit
        return out


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixel positions as the integer sub-pixel coordinates OpenCV fills."""
    return np.rint(pixels * SUBPIXEL).astype(np.int32)


def fill(image: np.ndarray, pixels: np.ndarray, color: Color) -> None:
    """Fill an outline (N, 2) in pixels, anti-aliased, in place."""
    cv2.fillPoly(image, [fixed_point(pixels)], color, cv2.LINE_AA, SUBPIXEL_BITS)


def fill_ring(image: np.ndarray, outer: np.ndarray, inner: np.ndarray, color: Color) -> None:
    """Fill what lies between two outlines, anti-aliased, in place."""
    cv2.fillPoly(image, [fixed_point(outer), fixed_point(inner)], color, cv2.LINE_AA, SUBPIXEL_BITS)


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """An image (S, S, 3) uint8 that is painted on, and the camera that sees the head."""

    image: np.ndarray
    camera: Camera

    def fill(self, points: Points, color: Color, depth: float | None = None) -> None:
        """Fill an outline given in face units."""
        fill(self.image, self.camera.project(points, depth), color)

    def stroke(
        self,
        line: np.ndarray,
        width: float,
        color: Color,
        *,
        ends: tuple[float, float] = (0.3, 0.3),
        depth: float | None = None,
    ) -> None:
        """Draw a tapered stroke; ``width`` in face units."""
        fill(self.image, self.camera.project(stroke(line, width, *ends), depth), color)

    def inside(self, pixels: np.ndarray) -> Inset | None:
        """A patch to paint on that will show only inside the outline (N, 2) in pixels; None when out of sight."""
        height, width = self.image.shape[:2]
        left, top = (max(0, int(v) - 1) for v in pixels.min(axis=0))
        right, bottom = int(pixels[:, 0].max()) + 3, int(pixels[:, 1].max()) + 3
        view = self.image[top : min(bottom, height), left : min(right, width)]
        if view.size == 0:
            return None
        return Inset(
            view=view, paint=np.empty(view.shape, np.uint8), outline=pixels, corner=np.array((left, top), np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class Inset:
    """A patch of the canvas: paint on ``paint``, then `commit` shows it inside ``outline``."""

    view: np.ndarray
    paint: np.ndarray
    outline: np.ndarray
    corner: np.ndarray

    def fill(self, pixels: np.ndarray, color: Color) -> None:
        """Fill an outline in canvas pixels."""
        fill(self.paint, pixels - self.corner, color)

    def commit(self) -> None:
        """Blend the patch into the canvas where the outline covers it."""
        mask = np.zeros(self.view.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed_point(self.outline - self.corner)], (255.0,), cv2.LINE_AA, SUBPIXEL_BITS)
        share = mask.astype(np.uint16)[..., None]
        self.view[:] = ((self.view * (255 - share) + self.paint * share + 127) // 255).astype(np.uint8)
