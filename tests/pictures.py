"""Portraits made by rule for tests of the renderer, each with its points: a painting and a cartoon.

Both are drawn in a moment and are the same every time; neither is square, and the cartoon's face is tilted.
"""

from __future__ import annotations

import cv2
import numpy as np

from moee_core.renderer import names
from moee_core.renderer.points import FacePoints
from training.face_world.points import face_points
from training.face_world.render import render
from training.face_world.rig import FaceState
from training.face_world.splits import person

Picture = tuple[np.ndarray, FacePoints]


def painting(number: int = 19, width: int = 320) -> Picture:
    """A person of the face world in oils: (H, W, 3) uint8, higher than wide, with brush strokes on canvas."""
    rng = np.random.default_rng(5)
    who = person("train", number)
    plain = render(who, FaceState(), width)
    extra = width // 5
    plain = cv2.copyMakeBorder(plain, extra, 0, 0, 0, cv2.BORDER_REPLICATE)
    height = plain.shape[0]
    # Strokes: noise smeared along a direction that turns slowly over the picture.
    noise = rng.normal(0, 1, (height, width)).astype(np.float32)
    strokes = np.zeros_like(noise)
    for angle in (20, 65, 115, 160):
        line = np.zeros((15, 15), np.float32)
        x, y = np.cos(np.radians(angle)) * 7, np.sin(np.radians(angle)) * 7
        cv2.line(line, (round(7 - x), round(7 - y)), (round(7 + x), round(7 + y)), (1,), 1)
        where = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), width / 20)
        smeared = cv2.filter2D(noise, -1, line / line.sum())
        strokes += smeared * np.clip(where / where.std(), 0, 1)
    weave_x, weave_y = np.meshgrid(np.arange(width), np.arange(height))
    canvas = 1.6 * (np.sin(weave_x * 2.1) + np.sin(weave_y * 2.1))
    soft = cv2.bilateralFilter(plain, 7, 30, 5).astype(np.float32)
    warm = np.array([1.0, 0.96, 0.86], np.float32)
    painted = soft * warm + (9.0 * strokes / strokes.std() + canvas)[..., None]
    marked = face_points(who, FaceState(), width, with_source=False)
    points = {name: (x, y + extra) for name, (x, y) in marked.points.items()}
    picture = np.rint(np.clip(painted, 0, 255)).astype(np.uint8)
    return picture, FacePoints(width=width, height=height, points=points)


def cartoon(width: int = 400, height: int = 340, tilt: float = 6.0) -> Picture:
    """A drawn character with flat colours, black outlines and large eyes; the head leans by ``tilt`` degrees."""
    scale = height / 340
    middle = np.array([width * 0.5, height * 0.47])
    angle = np.radians(tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = (150, 205, 214)
    cv2.circle(picture, (width // 5, height // 4), height // 8, (250, 240, 170), -1, cv2.LINE_AA)

    def at(points: object) -> np.ndarray:
        return np.asarray(points, np.float64).reshape(-1, 2) @ turn.T + middle

    def shape(points: object, color: tuple[int, int, int], outline: float = 3.0, closed: bool = True) -> None:
        pixels = np.rint(at(points) * 16).astype(np.int32)
        if closed:
            cv2.fillPoly(picture, [pixels], color, cv2.LINE_AA, 4)
        if outline:
            ink = (40, 28, 36) if closed else color
            cv2.polylines(picture, [pixels], closed, ink, max(1, round(outline * scale)), cv2.LINE_AA, 4)

    def oval(x: float, y: float, a: float, b: float, start: float = 0, stop: float = 360) -> np.ndarray:
        t = np.radians(np.linspace(start, stop, 48))
        return np.stack([x + a * np.cos(t), y + b * np.sin(t)], axis=1)

    skin, hair, ink = (244, 196, 150), (92, 58, 140), (40, 28, 36)
    shape([(-130, 260), (-95, 150), (-30, 128), (30, 128), (95, 150), (130, 260)], (214, 84, 70))
    shape([(-28, 80), (28, 80), (30, 138), (0, 152), (-30, 138)], (226, 172, 128))
    shape(oval(0, -28, 108, 104), hair)
    half = [(-84, -20), (-82, 20), (-74, 52), (-54, 82), (-26, 102), (0, 108)]
    jaw = half + [(-x, y) for x, y in half[-2::-1]]
    shape([*jaw, *oval(0, -28, 84, 74, 0, -180)], skin)
    shape([*oval(0, -30, 88, 80, 180, 360), (60, -52), (20, -70), (-40, -50)], hair)
    points: dict[str, np.ndarray] = {}

    def mark(members: tuple[str, ...], places: object) -> None:
        points.update(zip(members, at(places), strict=True))

    for side, sign in (("R", -1), ("L", 1)):
        upper = oval(sign * 36, 2, 23, 21, 180, 360)[:: 1 if sign > 0 else -1]
        lower = oval(sign * 36, 2, 23, 14, 180, 0)[:: 1 if sign > 0 else -1]
        shape(np.concatenate([upper, lower[::-1]]), (255, 255, 255), 0)
        shape(oval(sign * 36, -1, 12, 12), (60, 130, 90), 0)
        shape(oval(sign * 36, -1, 6, 6), ink, 0)
        shape(oval(sign * 36 - 4, -6, 3, 3), (255, 255, 255), 0)
        shape(lower, ink, 2.0, closed=False)
        shape(upper, ink, 4.5, closed=False)
        mark((f"iris_{side}", f"iris_{side}_edge"), [(sign * 36, -1), (sign * 48, -1)])
        chosen = [47, 36, 24, 12, 0]  # from the outer to the inner corner
        mark(names.lid(side, "upper"), upper[chosen])
        mark(names.lid(side, "lower")[1:-1], lower[chosen[1:-1]])
        line = [(sign * x, y) for x, y in ((62, -28), (50, -36), (37, -38), (24, -36), (13, -31))]
        shape(line, ink, 5.0, closed=False)
        mark(names.brow(side), line)
    shape([(-9, 36), (-4, 42), (4, 42), (9, 36)], (190, 130, 96), 2.5, closed=False)
    mark(names.NOSE, [(-10, 36), (0, 32), (0, 43), (10, 36)])
    x = np.linspace(-28, 28, 25)
    bow = 66 + 1.5 * (1 - (x / 28) ** 2)
    thick = (1 - (x / 28) ** 2) ** 0.7
    shape(np.r_[np.c_[x, bow - 5 * thick], np.c_[x, bow + 7 * thick][::-1]], (205, 96, 92), 0)
    shape(np.c_[x, bow], ink, 2.5, closed=False)
    outer, inner = [5, 9, 12, 15, 19], [2, 5, 9, 12, 15, 19, 22]
    for name, line, chosen in (
        ("upper_outer", bow - 5 * thick, outer), ("upper_inner", bow, inner),
        ("lower_inner", bow, inner), ("lower_outer", bow + 7 * thick, outer),
    ):  # fmt: skip
        mark(names.LIP_LINES[name][1:-1], np.c_[x, line][chosen])
    mark(("mouth_R", "mouth_L"), [(-28, 66), (28, 66)])
    mark(names.JAW, jaw)
    plain = {name: (float(px), float(py)) for name, (px, py) in points.items()}
    return picture, FacePoints(width=width, height=height, points=plain)
