"""What moves in a face: action units, mouth axes, head pose, gaze and blink.

Shapes: action units (21,) in the order of `AU_NAMES`, 0 absent, 1 full, up to 1.5 tolerated; viseme (4,) in the order
of `VISEME_AXES`; pose (5,) = roll, yaw, pitch in radians, then shifts dx, dy as fractions of the picture; gaze (2,)
x, y in -1..1; blink 0 open .. 1 closed.

Sides: L and R are the person's own. The picture is not mirrored, so the person's LEFT side is on the RIGHT of the
picture. Positive roll turns the head clockwise in the picture, positive yaw turns the nose to the right of the
picture, positive pitch lowers it; positive gaze looks to the right and down in the picture.

Names of the action units: Ekman, Friesen and Hager, Facial Action Coding System.

Raises ``ValueError`` for an unknown unit, a negative strength or a wrong shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

AU_NAMES: tuple[str, ...] = (
    "1", "2", "4", "5", "6", "7", "9", "10", "12L", "12R", "14L", "14R", "15", "17", "20", "23", "24", "25", "26", "27",
    "43",
)  # fmt: skip
VISEME_AXES: tuple[str, ...] = ("open", "width", "teeth", "press")
MAX_STRENGTH = 1.5
"""Strengths beyond this are drawn as this."""


@dataclass(frozen=True, kw_only=True)
class FaceState:
    """One frame of a face. Defaults are the neutral face: mouth closed, eyes open, looking ahead."""

    action_units: np.ndarray = field(default_factory=lambda: np.zeros(len(AU_NAMES), np.float32))
    viseme: np.ndarray = field(default_factory=lambda: np.zeros(len(VISEME_AXES), np.float32))
    pose: np.ndarray = field(default_factory=lambda: np.zeros(5, np.float32))
    gaze: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    blink: float = 0.0

    def __post_init__(self) -> None:
        for name, length in (("action_units", len(AU_NAMES)), ("viseme", len(VISEME_AXES)), ("pose", 5), ("gaze", 2)):
            if np.shape(getattr(self, name)) != (length,):
                raise ValueError(f"FaceState.{name} must have shape ({length},), got {np.shape(getattr(self, name))}")

    def strengths(self) -> dict[str, float]:
        """Unit name -> strength clipped to 0..`MAX_STRENGTH`."""
        clipped = np.clip(self.action_units, 0.0, MAX_STRENGTH).tolist()
        return dict(zip(AU_NAMES, clipped, strict=True))


def action_unit_vector(strengths: Mapping[str, float]) -> np.ndarray:
    """Unit name -> strength as a vector (21,) float32; a bare "12" or "14" sets both sides, what is absent is 0."""
    vector = np.zeros(len(AU_NAMES), np.float32)
    for name, strength in strengths.items():
        names = (name + "L", name + "R") if name in ("12", "14") else (name,)
        if names[0] not in AU_NAMES:
            raise ValueError(f"unknown action unit {str(name)[:20]!r}; choose one of: 12, 14, {', '.join(AU_NAMES)}")
        if not strength >= 0:
            raise ValueError(f"action unit {name} needs a strength of at least 0, got {strength}")
        for one in names:
            vector[AU_NAMES.index(one)] = strength
    return vector
