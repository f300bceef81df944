"""Emotions as action units: what a face of average expressiveness shows.

Shapes: emotion vectors (F, 8) in the order of ``LABELS``; action units (F, 20) in the order of ``UNITS``, or (F, 41)
in the order of ``ACTION_UNITS``, a detector's.

A label's prototype times its intensity; two labels that form a compound pass smoothly from the sum of their
prototypes to the compound's own prototype as their shares become equal. (Ours.)
"""

from __future__ import annotations

import numpy as np

from ..emotion.action_units import ACTION_UNITS, AU_INDEX, PROTOTYPES
from ..emotion.vocabulary import COMPOUNDS, LABELS
from .coefficients import UNITS

MAX_UNIT = 1.4


def prototype(name: str) -> np.ndarray:
    """(20,) float32: an emotion's or compound's units; FACS sides are written R12 there and 12R here."""
    out = np.zeros(len(UNITS), np.float32)
    for code, strength in PROTOTYPES[name].items():
        own = code[1:] + code[0] if code[0] in "LR" else code
        for unit in (own, own + "L", own + "R"):
            if unit in UNITS:
                out[UNITS.index(unit)] = strength
    return out


def expression(vectors_F8: np.ndarray) -> np.ndarray:
    """(F, 8) emotion vectors -> (F, 20) action units."""
    single = np.stack([prototype(label) for label in LABELS[1:]])
    weights = np.asarray(vectors_F8)[:, 1:]
    intensity = weights.sum(axis=1, keepdims=True)
    shares = weights / np.maximum(intensity, 1e-6)
    units = shares @ single
    for name, (first, second) in COMPOUNDS.items():
        a, b = shares[:, LABELS.index(first) - 1], shares[:, LABELS.index(second) - 1]
        equal = (4 * a * b)[:, None]  # 1 where both shares are a half, 0 where either is absent
        pair = a[:, None] * single[LABELS.index(first) - 1] + b[:, None] * single[LABELS.index(second) - 1]
        units = units + equal * ((a + b)[:, None] * prototype(name) - pair)
    return np.clip(units * intensity, 0.0, MAX_UNIT).astype(np.float32)


_NUMBERS = frozenset(unit.rstrip("LR") for unit in UNITS)
NOT_ON_FACES = tuple(unit.code for unit in ACTION_UNITS if unit.code.lstrip("LR") not in _NUMBERS)
"""Units of a detector that these faces do not have: nostrils, tongue, lips bitten, puckered or funnelled."""


def face_units(units_F41: np.ndarray) -> np.ndarray:
    """(F, 41) of a detector -> (F, 20) of a face. Of 12 and 14 each side is its own, and never weaker than the whole;
    a brow, cheek or lip raised on one side is raised as a whole, because a face here cannot do it on one; units that
    no face here has are lost (``NOT_ON_FACES``)."""
    given = np.asarray(units_F41, np.float32)
    out = np.zeros((len(given), len(UNITS)), np.float32)
    for column, unit in enumerate(UNITS):
        number = unit.rstrip("LR")
        whole = given[:, AU_INDEX[number]]
        if f"L{number}" not in AU_INDEX:
            out[:, column] = whole
            continue
        left, right = given[:, AU_INDEX[f"L{number}"]], given[:, AU_INDEX[f"R{number}"]]
        if unit == number:
            out[:, column] = np.maximum(whole, np.maximum(left, right))
        else:
            own = left if unit.endswith("L") else right
            out[:, column] = np.maximum(own, whole)
    return out


def detector_units(units_F20: np.ndarray) -> np.ndarray:
    """(F, 20) of a face -> (F, 41) as a detector reports them: a unit with sides as a whole, as strong as its weaker
    side, and on each side."""
    given = np.asarray(units_F20, np.float32)
    out = np.zeros((len(given), len(ACTION_UNITS)), np.float32)
    for code, index in AU_INDEX.items():
        side, number = (code[0], code[1:]) if code[0] in "LR" else ("", code)
        if number + side in UNITS:
            out[:, index] = given[:, UNITS.index(number + side)]
        elif number in UNITS:
            out[:, index] = given[:, UNITS.index(number)]
        elif number + "L" in UNITS:
            out[:, index] = given[:, [UNITS.index(number + "L"), UNITS.index(number + "R")]].min(axis=1)
    return out
