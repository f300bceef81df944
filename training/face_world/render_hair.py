"""Hair: what lies behind the head and what frames the face, for each `HairStyle`.

Shapes: outlines (N, 2) float32 in face units. Every front but bangs stays above y = -0.5 between the temples, so that
the brows are seen even when raised. All geometry is ours.
"""

from __future__ import annotations

import math

import numpy as np

from training.face_world.identity import LONG_HAIR, HairStyle, Identity
from training.face_world.shapes import Canvas, curve, ellipse, mix, scaled

BACK_DEPTH = -0.12
FRONT_DEPTH = 0.13

# Hair line from the right temple over the middle to the left one: x in half face widths, y in face units.
_HAIR_LINES: dict[int, tuple[tuple[float, float], ...]] = {
    HairStyle.CROP: (
        (0.98, -0.18),
        (0.90, -0.48),
        (0.62, -0.64),
        (0.0, -0.67),
        (-0.62, -0.64),
        (-0.90, -0.48),
        (-0.98, -0.18),
    ),
    HairStyle.QUIFF: (
        (0.98, -0.16),
        (0.88, -0.50),
        (0.55, -0.72),
        (0.0, -0.78),
        (-0.55, -0.72),
        (-0.88, -0.50),
        (-0.98, -0.16),
    ),
    HairStyle.CURLY: (
        (0.97, -0.10),
        (0.88, -0.46),
        (0.50, -0.62),
        (0.0, -0.66),
        (-0.50, -0.62),
        (-0.88, -0.46),
        (-0.97, -0.10),
    ),
    HairStyle.AFRO: (
        (0.97, -0.16),
        (0.86, -0.50),
        (0.50, -0.68),
        (0.0, -0.72),
        (-0.50, -0.68),
        (-0.86, -0.50),
        (-0.97, -0.16),
    ),
    HairStyle.BUN: (
        (0.97, -0.10),
        (0.86, -0.52),
        (0.46, -0.75),
        (0.0, -0.82),
        (-0.46, -0.75),
        (-0.86, -0.52),
        (-0.97, -0.10),
    ),
    HairStyle.BANGS: (
        (0.92, 0.05),
        (0.86, -0.28),
        (0.50, -0.37),
        (0.0, -0.38),
        (-0.50, -0.37),
        (-0.86, -0.28),
        (-0.92, 0.05),
    ),
}


def _hair_line(identity: Identity) -> np.ndarray:
    w, style, part = identity.face_width, identity.hair_style, 0.45 * identity.hair_part
    if style == HairStyle.SIDE_PART:
        side = 1.0 if part >= 0 else -1.0
        points = [
            (0.98, -0.16),
            (0.90, -0.46),
            (0.70, -0.60),
            (0.46, -0.80),
            (-0.10, -0.66),
            (-0.60, -0.54),
            (-0.90, -0.44),
            (-0.98, -0.16),
        ]
        points = points if side > 0 else [(-x, y) for x, y in reversed(points)]
    elif style in (HairStyle.LONG, HairStyle.WAVY, HairStyle.BOB):
        points = [
            (0.90, 0.08),
            (0.88, -0.36),
            (0.52 + 0.2 * part, -0.66),
            (part, -0.86),
            (-0.52 + 0.2 * part, -0.66),
            (-0.88, -0.36),
            (-0.90, 0.08),
        ]
    else:
        points = list(_HAIR_LINES[style])
    return curve([(x * w, y) for x, y in points], 5)


def _crown(identity: Identity) -> np.ndarray:
    """Outer edge from the left to the right temple."""
    w, style = identity.face_width, identity.hair_style
    low = 0.10 if style in LONG_HAIR else -0.10
    side, top, lift = 1.07, -1.12, 0.0
    if style in (HairStyle.CROP, HairStyle.BUN):
        side, top = 1.045, -1.08
    elif style == HairStyle.QUIFF:
        lift = -0.08 if identity.hair_part >= 0 else 0.08
        side, top = 1.04, -1.12
    points = [(-side, low), (-side - 0.04, -0.42), (-0.94, -0.82), (-0.50, top + 0.07 + lift), (0.0, top)]
    points += [(0.50, top + 0.07 - lift), (0.94, -0.82), (side + 0.04, -0.42), (side, low)]
    return curve([(x * w, y) for x, y in points], 5)


def _curls(
    canvas: Canvas,
    identity: Identity,
    radius_x: float,
    radius_y: float,
    bump: float,
    count: int,
    color: tuple[float, float, float],
) -> None:
    """A cloud of hair: a scalloped disc behind or above the head."""
    angle = np.linspace(0, 2 * math.pi, 6 * count, endpoint=False, dtype=np.float32)
    ripple = 1 + bump * np.abs(np.sin(angle * count / 2))
    outline = np.stack([radius_x * ripple * np.cos(angle), -0.36 + radius_y * ripple * np.sin(angle)], axis=1)
    canvas.fill(outline.astype(np.float32), color, depth=BACK_DEPTH * 0.4)


def paint_hair_back(canvas: Canvas, identity: Identity) -> None:
    """What lies behind head and shoulders; call before the body is painted."""
    w, style = identity.face_width, identity.hair_style
    dark = scaled(identity.hair_color, 0.74)
    if style == HairStyle.AFRO:
        _curls(canvas, identity, w + 0.22, 0.78, 0.05, 16, scaled(identity.hair_color, 0.9))
    elif style == HairStyle.CURLY:
        _curls(canvas, identity, w + 0.12, 0.76, 0.07, 13, dark)
    elif style == HairStyle.BUN:
        canvas.fill(ellipse(0, -1.06, 0.34, 0.22), dark, depth=BACK_DEPTH)
    elif style in LONG_HAIR:
        length = {HairStyle.BOB: 0.98, HairStyle.BANGS: 1.02}.get(HairStyle(style), 1.75)
        wide = w + (0.20 if style == HairStyle.WAVY else 0.15)
        side = [
            (0.0, -1.12),
            (0.60 * w, -1.06),
            (w + 0.08, -0.72),
            (wide, -0.1),
            (wide + 0.02, 0.45),
            (wide - 0.04, length),
        ]
        if style == HairStyle.WAVY:
            side[3:] = [
                (wide, -0.15),
                (wide - 0.05, 0.2),
                (wide + 0.05, 0.55),
                (wide - 0.02, 0.95),
                (wide + 0.06, 1.35),
                (wide, length),
            ]
        outline = curve(side, 5)
        canvas.fill(np.concatenate([outline, outline[::-1] * np.array((-1, 1), np.float32)]), dark, depth=BACK_DEPTH)


def paint_hair_front(canvas: Canvas, identity: Identity) -> None:
    """What frames the forehead; call last."""
    style, w, color = identity.hair_style, identity.face_width, identity.hair_color
    if style == HairStyle.BALD:
        return
    dark = scaled(color, 0.78)
    shine = mix(color, (255.0, 246.0, 230.0), 0.20)
    if style == HairStyle.RECEDING:
        for side in (-1, 1):
            patch = [
                (0.97, 0.0),
                (0.90, -0.30),
                (0.86, -0.58),
                (0.80, -0.78),
                (0.98, -0.66),
                (1.06, -0.35),
                (1.06, -0.02),
            ]
            canvas.fill(curve([(side * x * w, y) for x, y in patch], 4, closed=True), color, depth=FRONT_DEPTH)
        return
    crown, line = _crown(identity), _hair_line(identity)
    if style in (HairStyle.CURLY, HairStyle.AFRO):
        bumps = (1 + 0.035 * np.abs(np.sin(np.arange(len(crown)) * 0.85)))[:, None].astype(np.float32)
        crown = crown * bumps
        line = line + 0.022 * np.abs(np.sin(np.arange(len(line)) * 1.1))[:, None].astype(np.float32) * np.array(
            (0, 1), np.float32
        )
    canvas.fill(np.concatenate([crown, line]), color, depth=FRONT_DEPTH)
    if style in LONG_HAIR:
        end = {HairStyle.BOB: 0.92, HairStyle.BANGS: 0.96}.get(HairStyle(style), 1.45)
        wave = 0.05 if style == HairStyle.WAVY else 0.0
        for side in (-1, 1):
            lock = [
                (0.90 * w, -0.45),
                (0.90 * w, 0.0),
                (0.93 * w - wave, 0.40),
                (0.98 * w + wave, 0.75),
                (0.96 * w, end),
                (w + 0.15 + wave, end),
            ]
            lock += [(w + 0.19 - wave, 0.55), (w + 0.16 + wave, 0.05), (w + 0.06, -0.50)]
            canvas.fill(curve([(side * x, y) for x, y in lock], 4, closed=True), color, depth=0.02)
            strand = [(side * (w + 0.02), -0.2), (side * (w + 0.07), 0.3), (side * (w + 0.055), 0.8)]
            canvas.stroke(curve(strand, 5), 0.05, dark, depth=0.02)
    # Two broad strands that follow the head between crown and hair line: one lit, one dark.
    top, bottom = crown, line[::-1]
    bottom = bottom[np.linspace(0, len(bottom) - 1, len(top)).round().astype(int)]
    lit = 0.62 * top + 0.38 * bottom
    first = len(lit) // 2 + int(0.2 * len(lit) * identity.light)
    span = len(lit) // 5
    canvas.stroke(
        np.ascontiguousarray(lit[max(2, first - span) : first + span], np.float32),
        0.085,
        shine,
        ends=(0.1, 0.1),
        depth=FRONT_DEPTH,
    )
    shadow = (0.22 * top + 0.78 * bottom).astype(np.float32)
    canvas.stroke(shadow[5:-5], 0.04, dark, ends=(0.1, 0.1), depth=FRONT_DEPTH)
