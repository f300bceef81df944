"""Emotions as action units: what a face of average expressiveness shows.

Shapes: emotion vectors (F, 8) in the order of ``LABELS``; action units (F, 20) in the order of ``UNITS``.

A label's prototype times its intensity; two labels that form a compound pass smoothly from the sum of their
prototypes to the compound's own prototype as their shares become equal. (Ours.)
"""

from __future__ import annotations

import numpy as np

from ..emotion.action_units import PROTOTYPES
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
