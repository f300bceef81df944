"""Which expression a portrait already shows, guessed from its points: a smile, lowered corners, parted lips.

Lengths in eye distances, y down. Lips at rest meet in a line whose middle lies about as high as its corners. Units move
the two against each other as ``mouth_shape.py`` says, an opening g sinks the corners, so that (ours)

    lift = middle of the upper lip's inner edge - corners + SINKING g
    AU12 = lift / 0.12  above,  AU15 = -lift / 0.12  below

Weak values say nothing, people differ by as much, and are left out. What parts the lips beyond a smile is speech.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .mouth_shape import MAX_GAP
from .points import FacePoints

LIFT = 0.12
"""Of unit 12 at full strength: corners up by 0.105, the middle down by 0.015; unit 15 does about the opposite."""
SINKING = 0.36
SMILE, FROWN = 0.3, 0.45
"""Weaker smiles and lowered corners are taken for the person's own mouth; resting corners hang more than they rise."""
PARTED = 0.03
"""Eye distances between lips that count as closed."""
CHEEKS = 0.5
"""Unit 6 in a smile."""


def shown(points: FacePoints) -> dict[str, float]:
    """Strengths of ``FACE`` for ``FacePoints.source``; empty for a face at rest."""
    frame = points.frame

    def height(name: str) -> float:
        return float(frame.to_face(np.array(points.full[name]))[1])

    middle = height("lip_upper_inner_M")
    gap = max(0.0, height("lip_lower_inner_M") - middle)
    gap = gap if gap > PARTED else 0.0
    sides = {side: middle - height(f"mouth_{side}") + SINKING * gap for side in "LR"}
    source: dict[str, float] = {}
    smile = float(np.clip(np.mean(list(sides.values())) / LIFT, -1.0, 1.0))
    if smile > SMILE:
        source |= {f"AU12{side}": round(min(max(lift / LIFT, 0.0), 1.0), 2) for side, lift in sides.items()}
        source["AU6"] = round(CHEEKS * smile, 2)
    elif smile < -FROWN:
        source["AU15"] = round(-smile, 2)
    if gap:
        asked = -MAX_GAP * math.log(1 - min(gap, 0.9 * MAX_GAP) / MAX_GAP)
        if smile > SMILE:
            by_smile = 0.085 * (1 + 0.6 * smile)
            source["AU25"] = round(min(1.0, asked / by_smile), 2)
            asked -= by_smile * source["AU25"]
        if asked > PARTED:
            source["open"] = round(min(1.0, asked / 0.40), 2)
    return source


def with_shown(points: FacePoints) -> FacePoints:
    """The points with their source noted, unless they have one."""
    return points if points.source else dataclasses.replace(points, source=shown(points))
