"""Head and shoulders: background, clothes, neck, ears, shaded skin, nose, folds and beard.

Shapes: outlines (N, 2) float32 in face units. The shading of the skin is painted at a quarter of the canvas, blurred
and enlarged: soft volumes that cost little and that a small network can repeat. All geometry and colours are ours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from training.face_world.identity import BackgroundKind, Beard, Collar, Identity
from training.face_world.render_eyes import EYE_HEIGHT
from training.face_world.render_mouth import Mouth
from training.face_world.shapes import Canvas, Color, curve, ellipse, fill, fixed_point, mirror, mix, scaled

SHADE_REDUCTION = 4
"""Canvas pixels per pixel of the shading layer."""


@lru_cache(maxsize=32)
def background(kind: int, first: Color, second: Color, size: int) -> np.ndarray:
    """(size, size, 3) uint8 gradient from the first to the second colour; not to be written to."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if kind == BackgroundKind.RADIAL:
        share = ((x - 0.5) ** 2 + (y - 0.42) ** 2) * 2.2
    elif kind == BackgroundKind.VERTICAL:
        share = y
    elif kind == BackgroundKind.DIAGONAL:
        share = 0.5 * (x + y)
    else:
        radius = np.sqrt((x - 0.5) ** 2 + (y - 0.45) ** 2)
        share = np.clip((radius - 0.43) / 0.03 + 0.5, 0, 1) * 0.8
    share = np.clip(share, 0, 1)[..., None]
    pixels = np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share
    return np.rint(pixels).astype(np.uint8)


def face_outline(identity: Identity, mouth: Mouth, cheeks: float) -> np.ndarray:
    """(N, 2) closed outline of the face, clockwise from the top; ``cheeks`` 0..1.5 is how far they are raised."""
    w, jaw, drop = identity.face_width, identity.jaw, mouth.jaw
    full = 0.02 * identity.cheek + 0.012 * cheeks
    half = [
        (0.0, -1.0),
        (0.50 * w, -0.945),
        (0.88 * w, -0.66),
        (w, -0.18),
        (0.985 * w + 0.5 * full, 0.20),
        ((0.80 + 0.12 * jaw) * w + full, 0.56 + 0.3 * drop),
        ((0.42 + 0.17 * jaw) * w, 0.875 + 0.8 * drop + 0.6 * identity.chin),
        (0.0, 1.0 + drop + identity.chin),
    ]
    return curve(mirror(half), 5, closed=True)


def paint_body(canvas: Canvas, identity: Identity, jaw: float) -> None:
    """Shoulders, neck with the shadow of the chin, and the neckline; ``jaw`` is how far the chin has come down."""
    cloth, skin = identity.clothes_color, scaled(identity.skin, 0.86)
    shoulders = [
        (-1.75, 1.9),
        (-1.45, 1.42),
        (-0.85, 1.22),
        (-0.36, 1.12),
        (0.36, 1.12),
        (0.85, 1.22),
        (1.45, 1.42),
        (1.75, 1.9),
    ]
    canvas.fill(curve(shoulders, 5), cloth, depth=0.0)
    if identity.collar == Collar.CREW:
        neckline = [(0.45, 1.13), (0.26, 1.27), (0.0, 1.33), (-0.26, 1.27), (-0.45, 1.13)]
    else:
        neckline = [(0.43, 1.12), (0.22, 1.32), (0.0, 1.52), (-0.22, 1.32), (-0.43, 1.12)]
    edge = curve(neckline, 4)
    neck = np.concatenate([np.array([(-0.36, 0.6), (0.36, 0.6)], np.float32), edge])
    canvas.fill(neck, skin, depth=0.0)
    low = jaw + identity.chin
    shadow = [(-0.365, 0.8), (0.365, 0.8), (0.365, 1.0 + 0.5 * low), (0.0, 1.16 + 0.8 * low), (-0.365, 1.0 + 0.5 * low)]
    canvas.fill(np.array(shadow, np.float32), scaled(identity.skin, 0.70), depth=0.0)
    if identity.collar == Collar.SHIRT:
        for side in (-1, 1):
            flap = [(side * 0.40, 1.04), (side * 0.05, 1.50), (side * 0.34, 1.56), (side * 0.60, 1.20)]
            canvas.fill(np.array(flap, np.float32), scaled(cloth, 1.14, 12), depth=0.0)
    else:
        canvas.stroke(edge, 0.06, scaled(cloth, 0.78), ends=(1.0, 1.0), depth=0.0)


def paint_ears(canvas: Canvas, identity: Identity) -> None:
    """Both ears, behind the face."""
    for side in (-1, 1):
        x, y = side * (identity.face_width + 0.045), 0.07
        canvas.fill(
            ellipse(x, y, 0.105 * identity.ear_size, 0.20 * identity.ear_size), scaled(identity.skin, 0.92), depth=-0.08
        )
        canvas.fill(
            ellipse(x, y, 0.055 * identity.ear_size, 0.12 * identity.ear_size, 12),
            scaled(identity.skin, 0.74),
            depth=-0.08,
        )


def paint_skin(canvas: Canvas, identity: Identity, mouth: Mouth, au: dict[str, float], outline: np.ndarray) -> None:
    """The face with its soft shading; ``outline`` in canvas pixels."""
    skin, light, height = identity.skin, identity.light, mouth.lower[14, 1]
    rim, bright, dark = scaled(skin, 0.83), mix(skin, (255.0, 248.0, 238.0), 0.24), scaled(skin, 0.80)
    reduction = float(SHADE_REDUCTION)
    size = canvas.image.shape[0] // SHADE_REDUCTION
    layer = np.empty((size, size, 3), np.uint8)
    layer[:] = rim
    small = replace(
        canvas.camera,
        unit=canvas.camera.unit / reduction,
        center=(canvas.camera.center[0] / reduction, canvas.camera.center[1] / reduction),
    )
    shade = Canvas(image=layer, camera=small)
    middle = outline.mean(axis=0)
    core = (outline - middle) * np.array((0.885, 0.93), np.float32) + middle
    core += np.array((0.045 * light, -0.02), np.float32) * np.float32(canvas.camera.unit)
    fill(layer, core / np.float32(reduction), skin)
    shade.fill(ellipse(0.10 * light, -0.52, 0.38, 0.20), bright)

    rosy = mix(skin, (236.0, 96.0, 96.0), 0.10 + 0.16 * identity.blush)
    for side, key in ((-1, "R"), (1, "L")):
        shade.fill(ellipse(side * identity.eye_distance, EYE_HEIGHT - 0.03, 0.24, 0.17), scaled(skin, 0.93))
        lift = 0.05 * au["6"] + 0.03 * au["12" + key]
        flush = mix(rosy, (240.0, 110.0, 100.0), 0.10 * min(1.0, au["6"]))
        shade.fill(ellipse(side * 0.44, 0.30 - lift, 0.19 + 0.02 * identity.cheek, 0.13), flush)
        if lift > 0:
            share = min(0.6, 5.0 * lift)
            shade.fill(ellipse(side * 0.44, 0.25 - lift, 0.14, 0.06), mix(flush, bright, share))
    half = 0.115 * identity.nose_width
    shade.fill(
        np.array([(-0.07, -0.05), (0.07, -0.05), (half + 0.05, 0.33), (-half - 0.05, 0.33)], np.float32),
        mix(skin, dark, 0.35),
    )
    shade.fill(np.array([(-0.035, -0.25), (0.035, -0.25), (0.055, 0.27), (-0.055, 0.27)], np.float32), bright)
    if au["4"] > 0:
        share = min(0.65, 0.5 * au["4"])
        shade.fill(ellipse(0, -0.24, 0.12, 0.10), mix(skin, dark, share))
    below = float(mouth.lower_outer[14, 1]) + 0.075
    shade.fill(ellipse(0, below, 0.17, 0.045, 14), mix(skin, dark, 0.75))
    chin = 0.5 * (below + 1.0 + mouth.jaw + identity.chin) + 0.03
    shade.fill(ellipse(0.04 * light, chin, 0.14, 0.07, 14), mix(skin, bright, 0.7))
    if au["17"] > 0:
        share = min(1.0, au["17"])
        shade.fill(ellipse(0, chin - 0.02, 0.15, 0.085, 14), mix(skin, dark, 0.75 * share))
        shade.fill(ellipse(0, chin - 0.03, 0.07, 0.035, 12), mix(skin, bright, 0.6 * share))
    if au["24"] > 0:  # pressed lips bulge
        bulge = mix(skin, bright, 0.8 * min(1.0, au["24"]))
        shade.fill(ellipse(0, height + 0.06, 0.24, 0.03, 14), bulge)
        shade.fill(ellipse(0, identity.mouth_height - 0.095, 0.22, 0.03, 14), bulge)
    if identity.beard == Beard.STUBBLE:
        jaw = beard_outline(identity, mouth, 0.0)
        shade.fill(jaw, mix(skin, identity.hair_color, 0.34))
    layer = cv2.GaussianBlur(layer, (0, 0), max(0.6, size / 40.0))

    # Enlarge only what the face covers; a canvas pixel fully inside the outline takes the shaded colour.
    left, top = (max(0, int(v) // SHADE_REDUCTION - 1) for v in outline.min(axis=0))
    right, bottom = (min(size, int(v) // SHADE_REDUCTION + 2) for v in outline.max(axis=0))
    if right <= left or bottom <= top:
        return
    window = layer[top:bottom, left:right]
    big = cv2.resize(window, None, fx=SHADE_REDUCTION, fy=SHADE_REDUCTION, interpolation=cv2.INTER_LINEAR)
    corner = np.array((left, top), np.float32) * np.float32(reduction)
    mask = np.zeros(big.shape[:2], np.uint8)
    cv2.fillPoly(mask, [fixed_point(outline - corner)], (255.0,), cv2.LINE_AA, 4)
    fill(canvas.image, outline, rim)
    view = canvas.image[
        top * SHADE_REDUCTION : bottom * SHADE_REDUCTION, left * SHADE_REDUCTION : right * SHADE_REDUCTION
    ]
    cv2.copyTo(big, cv2.threshold(mask, 254, 255, cv2.THRESH_BINARY)[1], view)


def beard_outline(identity: Identity, mouth: Mouth, cheek_line: float) -> np.ndarray:
    """(N, 2) the part of the face a beard covers, from ear to ear under the cheeks."""
    w, jaw, drop = identity.face_width, identity.jaw, mouth.jaw
    outer = [
        (-0.985 * w, 0.16),
        (-0.975 * w, 0.28),
        (-(0.80 + 0.12 * jaw) * w - 0.01, 0.57 + 0.3 * drop),
        (-(0.42 + 0.17 * jaw) * w, 0.885 + 0.8 * drop + 0.6 * identity.chin),
        (0.0, 1.02 + drop + identity.chin),
    ]
    outer += [(-x, y) for x, y in outer[-2::-1]]
    inner = [
        (0.86 * w, 0.34 + cheek_line),
        (0.62 * w, 0.47 + cheek_line),
        (0.27, 0.43 + cheek_line),
        (0.0, 0.43 + cheek_line),
    ]
    inner += [(-x, y) for x, y in inner[-2::-1]]
    return np.concatenate([curve(outer, 4), curve(inner, 4)])


def paint_beard(canvas: Canvas, identity: Identity, mouth: Mouth) -> None:
    """Full beard or moustache, under the lips; both follow the mouth."""
    if identity.beard not in (Beard.FULL, Beard.MOUSTACHE):
        return
    color = scaled(identity.hair_color, 0.9)
    lip = mouth.upper_outer
    if identity.beard == Beard.FULL:
        canvas.fill(beard_outline(identity, mouth, 0.02), color, depth=0.12)
        skin = scaled(identity.skin, 0.95)
        canvas.fill(ellipse(0, float(mouth.lower_outer[14, 1]) + 0.045, 0.12, 0.03, 14), skin)
    bottom = lip[4:25] - np.array((0, 0.012), np.float32)
    left, right = bottom[0], bottom[-1]
    top = float(lip[14, 1]) - 0.135
    upper = [
        right,
        (right[0] * 0.62, top + 0.035),
        (0.05, top + 0.01),
        (-0.05, top + 0.01),
        (left[0] * 0.62, top + 0.035),
        left,
    ]
    canvas.fill(np.concatenate([bottom, curve(upper, 4)]), color)


def paint_nose(canvas: Canvas, identity: Identity, au: dict[str, float]) -> None:
    """Tip, wings and nostrils; unit 9 pulls them up and wrinkles the bridge."""
    skin = identity.skin
    line, half = scaled(skin, 0.58), 0.132 * identity.nose_width * (1 + 0.20 * au["9"] + 0.10 * au["10"])
    y = identity.nose_length - 0.050 * au["9"] - 0.018 * au["10"]
    base = [
        (-half, y - 0.055),
        (-half * 0.98, y + 0.012),
        (-half * 0.55, y + 0.022),
        (0, y + 0.058),
        (half * 0.55, y + 0.022),
    ]
    base += [(half * 0.98, y + 0.012), (half, y - 0.055)]
    canvas.stroke(curve(base, 4), 0.030, line, ends=(0.2, 0.2))
    for side in (-1, 1):
        canvas.fill(ellipse(side * half * 0.46, y + 0.010, 0.034 * identity.nose_width, 0.018, 12), scaled(skin, 0.36))
    canvas.fill(ellipse(0.02 * identity.light, y - 0.055, 0.045, 0.035, 14), mix(skin, (255.0, 250.0, 242.0), 0.42))


def paint_folds(canvas: Canvas, identity: Identity, mouth: Mouth, au: dict[str, float]) -> None:
    """Wrinkles that units bring out, on top of those of age."""
    skin, age = identity.skin, max(0.0, identity.age - 0.45) / 0.55
    deep = scaled(skin, 0.60)

    def fold(points: list[tuple[float, float]], strength: float, width: float = 0.030) -> None:
        if strength > 0.03:
            share = min(1.0, strength)
            canvas.stroke(curve(points, 4), width * (0.7 + 0.3 * share), mix(skin, deep, share), ends=(0.1, 0.1))

    raised = 0.10 * age + 0.75 * au["1"] * (1 - 0.45 * min(1.0, au["4"]))
    for y in (-0.585, -0.665):  # forehead: unit 1 in the middle, unit 2 at the sides
        lift = y - 0.02 * min(1.0, au["1"] + au["2"])
        fold([(-0.24, lift + 0.012), (-0.08, lift - 0.012), (0.08, lift - 0.012), (0.24, lift + 0.012)], raised)
        for side in (-1, 1):
            fold([(side * 0.28, lift + 0.0), (side * 0.38, lift - 0.018), (side * 0.50, lift + 0.012)], 0.75 * au["2"])
    for side, key in ((-1, "R"), (1, "L")):
        fold([(side * 0.05, -0.36), (side * 0.065, -0.28), (side * 0.05, -0.19)], 0.95 * au["4"], 0.034)
        fold([(side * 0.025, -0.10), (side * 0.085, -0.065), (side * 0.135, -0.005)], au["9"], 0.036)
        fold([(side * 0.03, 0.0), (side * 0.09, 0.03), (side * 0.13, 0.085)], au["9"], 0.034)
        smile = au["12" + key]
        crease = max(0.22 * age, 0.75 * smile, 0.95 * au["10"], 0.85 * au["9"], 0.30 * au["15"])
        corner = mouth.upper[-1 if side > 0 else 0]
        bottom_x = side * (abs(float(corner[0])) + 0.075)
        bottom_y = float(corner[1]) + 0.02 * au["15"] - 0.01
        top = identity.nose_length - 0.05 - 0.05 * au["10"] - 0.05 * au["9"]
        middle = (0.55 * bottom_x + side * 0.09 + side * 0.035 * au["10"], 0.55 * top + 0.45 * bottom_y)
        fold([(side * 0.17, top), middle, (bottom_x, bottom_y)], crease, 0.034)
        corner_eye = side * (identity.eye_distance + 0.225)
        strength = max(0.12 * age, 0.8 * au["6"])
        fold(
            [(corner_eye, EYE_HEIGHT - 0.0), (corner_eye + side * 0.05, -0.03), (corner_eye + side * 0.09, -0.055)],
            strength,
            0.024,
        )
        fold(
            [(corner_eye, EYE_HEIGHT + 0.045), (corner_eye + side * 0.05, 0.045), (corner_eye + side * 0.09, 0.05)],
            strength,
            0.024,
        )
        under = 0.165 - 0.03 * au["6"]
        fold(
            [(side * 0.20, under - 0.03), (side * 0.34, under + 0.015), (side * 0.50, under - 0.03)],
            max(0.25 * age, 0.75 * au["6"]),
            0.028,
        )
        fold([(side * 0.20, 0.085), (side * 0.34, 0.11), (side * 0.46, 0.085)], 0.6 * au["7"], 0.024)
        x, y = float(corner[0]), float(corner[1])
        dent = au["14" + key]
        fold(
            [(x + side * 0.045, y - 0.065), (x + side * 0.08, y - 0.005), (x + side * 0.04, y + 0.075)],
            1.15 * dent,
            0.046,
        )
        fold(
            [(x + side * 0.02, y + 0.01), (x + side * 0.045, y + 0.055), (x + side * 0.05, y + 0.12)],
            0.8 * au["15"],
            0.032,
        )
        fold([(x + side * 0.05, y - 0.07), (x + side * 0.075, y), (x + side * 0.05, y + 0.07)], 0.75 * au["20"], 0.032)
        fold([(x + side * 0.02, y - 0.045), (x + side * 0.035, y), (x + side * 0.02, y + 0.045)], 0.8 * au["23"], 0.03)
    if au["17"] > 0:
        chin = 0.5 * (float(mouth.lower_outer[14, 1]) + 1.0 + identity.chin)
        fold(
            [(-0.13, chin + 0.01), (-0.06, chin - 0.045), (0.06, chin - 0.045), (0.13, chin + 0.01)],
            0.8 * au["17"],
            0.034,
        )


def paint_freckles(canvas: Canvas, identity: Identity) -> None:
    """A few large, soft spots on the cheeks."""
    if identity.freckles <= 0:
        return
    color = mix(identity.skin, scaled(identity.skin, 0.72), identity.freckles)
    for side in (-1, 1):
        for x, y in ((0.26, 0.20), (0.36, 0.17), (0.47, 0.20), (0.31, 0.27), (0.42, 0.265)):
            canvas.fill(ellipse(side * x, y, 0.017, 0.015, 8), color)
