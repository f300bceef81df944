"""Who a person of the face world is: every trait of a face, its clothes and its background.

Lengths are in face units (half the height of an average face), colours are (red, green, blue) floats in 0..255,
shares are 0..1. An `Identity` is made of floats, ints and tuples only, so that it pickles and compares by value.

`sample_identity` draws a person. How strongly a person shows emotions follows visible traits (ours):

    expressiveness = 1 + 0.07 (lip - 1) / 0.3 - 0.06 (2 age - 1) + 0.04 (brow - 0.052) / 0.012 + N(0, 0.03)

clipped to 0.85..1.15, so that most of it can be read off a portrait.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from training.face_world.shapes import Color, luminance, mix, scaled


class HairStyle(IntEnum):
    """Shape of the hair."""

    BALD = 0
    CROP = 1
    SIDE_PART = 2
    QUIFF = 3
    CURLY = 4
    AFRO = 5
    BOB = 6
    LONG = 7
    WAVY = 8
    BUN = 9
    RECEDING = 10
    BANGS = 11


class Glasses(IntEnum):
    """Shape of the frames."""

    NONE = 0
    ROUND = 1
    SQUARE = 2


class Beard(IntEnum):
    """Hair on the lower face; none of it ever covers the lips."""

    NONE = 0
    STUBBLE = 1
    MOUSTACHE = 2
    FULL = 3


class Collar(IntEnum):
    """Neckline of the clothes."""

    CREW = 0
    VEE = 1
    SHIRT = 2


class BackgroundKind(IntEnum):
    """How the two background colours meet."""

    RADIAL = 0
    VERTICAL = 1
    DIAGONAL = 2
    DISC = 3


LONG_HAIR = frozenset((HairStyle.BOB, HairStyle.LONG, HairStyle.WAVY, HairStyle.BANGS))

SKIN_TONES: tuple[Color, ...] = (
    (255, 226, 205), (250, 214, 186), (243, 200, 166), (232, 182, 142), (214, 158, 115), (190, 132, 92), (160, 106, 72),
    (130, 84, 58),
)  # fmt: skip
HAIR_COLORS: tuple[Color, ...] = (
    (42, 32, 32), (58, 42, 36), (84, 56, 40), (118, 76, 46), (158, 106, 62), (204, 156, 92), (236, 206, 140),
    (164, 74, 42),
)  # fmt: skip
UNUSUAL_HAIR_COLORS: tuple[Color, ...] = ((206, 92, 136), (84, 96, 178), (64, 144, 140), (140, 90, 170), (196, 60, 60))
IRIS_COLORS: tuple[Color, ...] = (
    (92, 58, 36), (122, 80, 42), (62, 108, 158), (84, 140, 176), (76, 128, 84), (112, 118, 122), (70, 46, 38),
)  # fmt: skip
GREY: Color = (206, 204, 204)

# Shares of the styles in the order of HairStyle; only bangs touch the brows.
_STYLE_SHARES = (0.06, 0.13, 0.12, 0.10, 0.09, 0.07, 0.10, 0.11, 0.09, 0.06, 0.04, 0.03)
_GLASSES_SHARES = (0.80, 0.10, 0.10)
_BEARD_SHARES = (0.84, 0.07, 0.05, 0.04)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person. Lengths in face units, colours (r, g, b) in 0..255, the rest as said."""

    face_width: float
    """Half the width at the cheekbones, 0.68..0.78."""
    jaw: float
    """0 narrow .. 1 square."""
    chin: float
    """Added to the length of the face."""
    cheek: float
    """Roundness of the cheeks, 0..1."""
    skin: Color
    hair_style: int
    hair_color: Color
    hair_part: float
    """Where the parting lies, -1 left edge of the picture .. 1."""
    iris_color: Color
    eye_size: float
    """Factor, about 1."""
    eye_distance: float
    """From the middle line to an eye."""
    eye_tilt: float
    """Height of the outer over the inner corner."""
    lashes: float
    """0..1."""
    brow_thickness: float
    brow_length: float
    """Factor, about 1."""
    brow_arch: float
    """Height of the arch."""
    brow_color: Color
    nose_width: float
    """Factor, about 1."""
    nose_length: float
    """Height of the base of the nose."""
    mouth_width: float
    """Half the width of the resting mouth."""
    mouth_height: float
    """Height of the mouth line."""
    lip_fullness: float
    """Factor, about 1."""
    lip_color: Color
    age: float
    """0 young .. 1 old: wrinkles and greying."""
    glasses: int
    glasses_color: Color
    beard: int
    clothes_color: Color
    collar: int
    background_kind: int
    background_colors: tuple[Color, Color]
    ear_size: float
    """Factor, about 1."""
    blush: float
    """0..1."""
    freckles: float
    """0 none .. 1 clear."""
    offset: tuple[float, float]
    """Placement, as a fraction of the picture."""
    scale: float
    """Factor on the size of the head, about 1."""
    light: float
    """Direction of the light, -1 from the left of the picture .. 1 from the right."""
    expressiveness: float
    """Personal gain of emotions, 0.85..1.15."""


def _hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return red * 255, green * 255, blue * 255


def _jitter(rng: np.random.Generator, color: Color, gain: float, noise: float) -> Color:
    factor = rng.uniform(1 - gain, 1 + gain)
    red, green, blue = (float(np.clip(v * factor + rng.normal(0, noise), 12, 255)) for v in color)
    return red, green, blue


def _apart_from(skin: Color, color: Color, difference: float) -> Color:
    """The colour, darkened until it stands out from the skin by ``difference`` of brightness."""
    for _ in range(12):
        if luminance(skin) - luminance(color) >= difference:
            break
        color = scaled(color, 0.85)
    return color


def sample_identity(rng: np.random.Generator) -> Identity:
    """A random person. The same state of ``rng`` gives the same person."""
    age = float(rng.beta(1.3, 1.6))
    style = HairStyle(int(rng.choice(len(_STYLE_SHARES), p=_STYLE_SHARES)))
    if style == HairStyle.RECEDING:
        age = max(age, float(rng.uniform(0.5, 1.0)))
    skin = _jitter(rng, SKIN_TONES[rng.integers(len(SKIN_TONES))], 0.03, 2.5)
    if rng.random() < 0.07:
        hair = _jitter(rng, UNUSUAL_HAIR_COLORS[rng.integers(len(UNUSUAL_HAIR_COLORS))], 0.08, 4.0)
    else:
        fair = luminance(skin) > 170
        hair = _jitter(rng, HAIR_COLORS[rng.integers(len(HAIR_COLORS) if fair else 5)], 0.08, 3.0)
        hair = mix(hair, GREY, float(np.clip((age - 0.55) * 2.4 + rng.normal(0, 0.1), 0, 0.95)))
    brow = _apart_from(skin, scaled(mix(hair, (60, 44, 38), 0.35), 0.72), 75.0)
    beard = int(rng.choice(4, p=_BEARD_SHARES))
    if style in LONG_HAIR or style == HairStyle.BUN:
        beard = int(Beard.NONE)
    red = mix((188, 66, 78), (206, 104, 100), float(np.clip((170 - luminance(skin)) / 80, 0, 1)))
    lips = mix(scaled(skin, 0.84), red, float(rng.uniform(0.5, 0.9)))  # lighter than the skin where that is dark
    lip_fullness = float(rng.uniform(0.8, 1.3))
    brow_thickness = float(rng.uniform(0.038, 0.064))
    visible = 0.07 * (lip_fullness - 1) / 0.3 - 0.06 * (2 * age - 1) + 0.04 * (brow_thickness - 0.052) / 0.012
    backdrop = _hsv(rng, (0.08, 0.42), (0.60, 0.94))
    second = mix(_hsv(rng, (0.15, 0.5), (0.42, 0.85)), scaled(backdrop, 0.7), 0.5)
    return Identity(
        face_width=float(rng.uniform(0.68, 0.78)),
        jaw=float(rng.uniform(0.0, 1.0)),
        chin=float(rng.uniform(-0.04, 0.05)),
        cheek=float(rng.uniform(0.0, 1.0)),
        skin=skin,
        hair_style=int(style),
        hair_color=hair,
        hair_part=float(rng.uniform(-1.0, 1.0)),
        iris_color=_jitter(rng, IRIS_COLORS[rng.integers(len(IRIS_COLORS))], 0.08, 4.0),
        eye_size=float(rng.uniform(0.92, 1.14)),
        eye_distance=float(rng.uniform(0.315, 0.355)),
        eye_tilt=float(rng.uniform(-0.02, 0.035)),
        lashes=float(rng.uniform(0.0, 1.0)),
        brow_thickness=brow_thickness,
        brow_length=float(rng.uniform(0.92, 1.1)),
        brow_arch=float(rng.uniform(0.0, 0.05)),
        brow_color=brow,
        nose_width=float(rng.uniform(0.85, 1.25)),
        nose_length=float(rng.uniform(0.27, 0.335)),
        mouth_width=float(rng.uniform(0.275, 0.325)),
        mouth_height=float(rng.uniform(0.555, 0.59)),
        lip_fullness=lip_fullness,
        lip_color=lips,
        age=age,
        glasses=int(rng.choice(3, p=_GLASSES_SHARES)),
        glasses_color=_hsv(rng, (0.1, 0.6), (0.12, 0.42)),
        beard=beard,
        clothes_color=_hsv(rng, (0.2, 0.7), (0.28, 0.88)),
        collar=int(rng.integers(len(Collar))),
        background_kind=int(rng.integers(len(BackgroundKind))),
        background_colors=(backdrop, second),
        ear_size=float(rng.uniform(0.85, 1.15)),
        blush=float(rng.uniform(0.1, 0.7)),
        freckles=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.1 else 0.0,
        offset=(float(rng.uniform(-0.012, 0.012)), float(rng.uniform(-0.01, 0.01))),
        scale=float(rng.uniform(0.97, 1.03)),
        light=float(rng.uniform(-1.0, 1.0)),
        expressiveness=float(np.clip(1 + visible + rng.normal(0, 0.03), 0.85, 1.15)),
    )
