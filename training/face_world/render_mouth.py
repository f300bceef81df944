"""The mouth: its geometry from action units and visemes, and how it is painted.

Shapes: lines are (29, 2) float32 in face units, from the left to the right corner in the picture.

Equations (ours), with t from -1 to 1 between the corners and w(t) = (1 - t^2)^e, e = 1 almond .. 0.5 ellipse:

    base(t)   = height + corner_side t^2          the line along which closed lips meet
    upper(t)  = base(t) - gap_upper w(t)
    lower(t)  = base(t) + gap_lower w(t)          both gaps are at least 0, so the mouth never turns inside out
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.face_world.identity import Identity
from training.face_world.rig import FaceState
from training.face_world.shapes import Canvas, curve, mix, scaled

_T = np.sin(np.linspace(-math.pi / 2, math.pi / 2, 29)).astype(np.float32)
_ROUND = np.maximum(1.0 - _T * _T, 0.0)
_UPPER_LIP = _ROUND**0.75 * (
    1.0 - 0.26 * np.exp(-((_T / 0.13) ** 2)) + 0.10 * np.exp(-(((np.abs(_T) - 0.32) / 0.2) ** 2))
)
_LOWER_LIP = _ROUND**0.8
_TEETH = _ROUND**0.35
CAVITY = (66.0, 16.0, 26.0)
TEETH = (252.0, 250.0, 245.0)
TONGUE = (214.0, 98.0, 104.0)


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """Geometry of one mouth in face units; see the module for the lines."""

    upper: np.ndarray
    lower: np.ndarray
    upper_outer: np.ndarray
    lower_outer: np.ndarray
    gap: float
    jaw: float
    """How far the chin has come down."""
    teeth_upper: float
    teeth_lower: float
    tongue: float


def jaw_drop(state: FaceState) -> float:
    """How far the chin comes down, 0..0.26 face units."""
    units = state.strengths()
    opening = min(max(float(state.viseme[0]), 0.0), 1.2)
    drop = 0.15 * opening + 0.11 * units["26"] + 0.19 * units["27"]
    return 0.26 * (1.0 - math.exp(-drop / 0.22)) - 0.02 * min(units["17"], 1.0)


def shape_mouth(identity: Identity, state: FaceState) -> Mouth:
    """The mouth of a person in a state."""
    au = state.strengths()
    opening, width, teeth, press = (float(v) for v in state.viseme)
    opening, width = min(max(opening, 0.0), 1.2), min(max(width, -1.0), 1.0)
    teeth, press = min(max(teeth, 0.0), 1.0), min(max(press, 0.0), 1.0)
    smile = 0.5 * (au["12L"] + au["12R"])
    rounding = max(0.0, -width)

    # How wide and how open.
    grin = min(1.0, smile)
    spread = 0.22 * au["20"] + 0.03 * au["10"] - 0.10 * au["17"] - 0.16 * au["23"] - 0.02 * au["24"] + 0.04 * au["15"]
    spread += (0.16 if width > 0 else 0.46) * width - 0.04 * opening - 0.07 * au["27"]
    spread -= 0.13 * au["26"] * max(0.0, 1 - grin - au["20"])
    half = [identity.mouth_width * max(0.42, 1 + spread + 0.24 * au["12" + s] + 0.07 * au["14" + s]) for s in "RL"]
    limit = 0.56 * (0.70 + 0.12 * identity.jaw) + 0.03  # stays on the face
    half = [limit * math.tanh(h / limit * 1.12) if h > 0.3 else h for h in half]
    gap = 0.37 * opening + 0.19 * au["26"] + 0.30 * au["27"] + 0.035 * teeth * (1 - rounding)
    gap += (0.055 + 0.035 * grin + 0.02 * au["20"]) * au["25"]
    gap += 0.045 * au["10"] * (1 - 0.75 * min(au["17"], 1.0))
    gap = 0.50 * (1.0 - math.exp(-gap / 0.46))
    gap *= (
        (1 - press) * (1 - 0.55 * min(au["24"], 1.0)) * (1 - 0.25 * min(au["23"], 1.0)) * (1 - 0.2 * min(au["17"], 1.0))
    )

    # Where the corners and the middle are; negative is up.
    corner = []
    for side in "RL":
        lift = 0.135 * au["12" + side] + 0.05 * au["14" + side] + 0.02 * opening * rounding
        corner.append(
            -lift
            + 0.115 * au["15"] * (1 - 0.35 * min(1.0, gap / 0.25))
            + 0.02 * au["20"]
            + 0.03 * au["17"] * (1 - 0.5 * min(smile, 1.0))
        )
    mid = (
        identity.mouth_height + 0.02 * smile - 0.025 * au["15"] - 0.050 * au["17"] - 0.045 * au["10"] - 0.012 * au["9"]
    )
    opened_by_upper = 0.22 + 0.45 * min(1.0, au["10"]) * math.exp(-gap / 0.2) + 0.12 * smile / (1 + smile)
    gap_upper, gap_lower = gap * opened_by_upper, gap * (1 - opened_by_upper)
    corner_fall = 0.25 * gap  # corners sink with the jaw

    round_power = 1.0 - 0.5 * max(rounding, 0.45 * min(1.0, au["27"] + 0.6 * au["26"] + 0.6 * opening))
    round_power = max(0.5, round_power - 0.2 * min(1.0, au["20"] + au["10"]))
    side_half = np.where(_T < 0, half[0], half[1]).astype(np.float32)
    side_corner = np.where(_T < 0, corner[0], corner[1]).astype(np.float32) + corner_fall
    x = _T * side_half
    bend = 2.0 - 0.35 * min(1.0, au["15"])  # a frown is a rounder arch than a smile
    base = mid + side_corner * np.abs(_T) ** bend
    weight = _ROUND**round_power
    upper = np.stack([x, base - gap_upper * weight], axis=1)
    lower = np.stack([x, base + gap_lower * weight], axis=1)

    # Lips: thinner when stretched, tightened or pressed, fuller when rounded.
    thin = math.exp(-(0.55 * au["23"] + 0.75 * au["24"] + 1.15 * press + 0.12 * smile + 0.22 * au["20"]))
    tuck = teeth * max(0.0, 1 - opening / 0.35) * max(0.0, 1 - abs(width) / 0.35)  # f and v: lip under the teeth
    pucker = 1 + 0.35 * rounding
    curl = 0.045 * au["10"] * np.exp(-(((np.abs(_T) - 0.42) / 0.25) ** 2)) * _ROUND
    lip_upper = (0.056 * identity.lip_fullness * thin * pucker + 0.008) * (1 - 0.2 * min(1.0, au["10"]))
    lip_lower = (0.078 * identity.lip_fullness * thin * pucker + 0.008) * (1 - 0.55 * tuck) * (1 + 0.18 * au["17"])
    rim = np.float32(1.0 + 0.05 + 0.30 * rounding)
    around = np.float32(0.02 * rounding)
    upper_outer = np.stack([x * rim, upper[:, 1] - curl - lip_upper * _UPPER_LIP - around * _ROUND], axis=1)
    lower_outer = np.stack([x * rim, lower[:, 1] + lip_lower * _LOWER_LIP + around * _ROUND], axis=1)

    bared = max(teeth, 0.95 * min(1.0, smile), 0.9 * min(1.0, au["20"]), min(1.0, au["10"]))
    both = max(
        teeth * max(0.0, min(1.0, (width - 0.1) * 3.0)) * (1 - tuck),
        0.9 * min(1.0, au["20"]),
        0.5 * min(1.0, smile * au["27"]),
    )
    reach = 0.155 * max(0.0, bared - 0.08)
    return Mouth(
        upper=upper,
        lower=lower,
        upper_outer=upper_outer,
        lower_outer=lower_outer,
        gap=gap,
        jaw=jaw_drop(state),
        teeth_upper=min(reach * (1 - 0.7 * rounding * (1 - teeth)), gap * (0.55 + 0.5 * max(tuck, bared * 0.6))),
        teeth_lower=min(0.075 * both, gap * 0.42),
        tongue=min(1.0, gap / 0.14),
    )


def paint_mouth(canvas: Canvas, identity: Identity, mouth: Mouth) -> None:
    """Lips, then what shows between them."""
    lips = identity.lip_color
    upper_color, lower_color = scaled(lips, 0.84), lips
    line_color = mix(scaled(lips, 0.42), (50.0, 20.0, 24.0), 0.3)
    whole = np.concatenate([mouth.upper_outer, mouth.lower_outer[::-1]])
    canvas.fill(whole, lower_color)
    canvas.fill(np.concatenate([mouth.upper_outer, mouth.upper[::-1]]), upper_color)
    shine = mouth.lower[9:20] * np.float32(0.45) + mouth.lower_outer[9:20] * np.float32(0.55)
    thickness = float(mouth.lower_outer[14, 1] - mouth.lower[14, 1])
    canvas.stroke(shine, 0.32 * thickness, mix(lower_color, (255.0, 235.0, 230.0), 0.28), ends=(0.1, 0.1))
    opening = canvas.camera.project(np.concatenate([mouth.upper, mouth.lower[::-1]]))
    if mouth.gap > 0.004:
        inset = canvas.inside(opening)
        if inset is not None:
            inset.paint[:] = CAVITY
            project = canvas.camera.project
            if mouth.tongue > 0.2:
                bottom, reach = mouth.lower[14, 1], mouth.gap * 0.42
                wide = float(mouth.lower[-1, 0]) * 0.62
                hump = [(-wide, bottom + 0.05), (-wide * 0.6, bottom - reach * 0.8), (0, bottom - reach)]
                hump += [(wide * 0.6, bottom - reach * 0.8), (wide, bottom + 0.05)]
                inset.fill(project(curve(hump, 4)), mix(CAVITY, TONGUE, mouth.tongue))
            if mouth.teeth_lower > 0.004:
                edge = mouth.lower - np.stack([np.zeros_like(_T), mouth.teeth_lower * _TEETH], axis=1)
                inset.fill(project(np.concatenate([mouth.lower_outer, edge[::-1]])), scaled(TEETH, 0.94))
            edge = mouth.upper + np.stack([np.zeros_like(_T), mouth.teeth_upper * _TEETH], axis=1)
            inset.fill(project(np.concatenate([mouth.upper_outer, edge[::-1]])), TEETH)
            inset.commit()
    canvas.stroke(mouth.upper, 0.025, line_color, ends=(0.7, 0.7))
