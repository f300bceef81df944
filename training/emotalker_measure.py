"""Instruments for motion: which emotion a face shows by its action units, how strongly, and where its landmarks are.

Shapes (legend for this file): F frames, 20 action units of ``FACE``, P = 68 landmarks

``PrototypeReader`` reads the mean action units of a clip against the prototypes of the eight emotions: the strength of
emotion e is a_e = max(0, u . p_e / |p_e|^2), its misfit |u - a_e p_e|^2; the least misfit wins, and neutral wins where
the winner's strength is below half of the lowest level. It is a fixed formula: no network is trained.

Landmarks are points of the face world's own lines in the order of the 68-point convention; F-LMD is the mean absolute
difference per coordinate over all, M-LMD over the 20 of the mouth, in pixels of a 256-pixel picture, not aligned
(spec 4.6). They are computed from coefficients, not detected in pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import FACE, MOUTH, UNITS
from moee_core.motion.expression import prototype
from training.data.vocal_mood import LEVELS
from training.face_world.identity import Identity
from training.face_world.motion import EYE_DISTANCE
from training.face_world.render import FACE_UNIT, ORIGIN_HEIGHT, OUTLINE_DEPTH
from training.face_world.render_eyes import shape_brow, shape_eye
from training.face_world.render_head import face_outline
from training.face_world.render_mouth import shape_mouth
from training.face_world.rig import AU_NAMES, FaceState
from training.face_world.shapes import Camera

SIZE = 256
LEAST_STRENGTH = LEVELS[0] / 2
MOUTH_POINTS = slice(48, 68)


class PrototypeReader:
    """Reads emotions from action units (20,) of ``FACE``."""

    def __init__(self) -> None:
        self.prototypes = np.stack([prototype(label) for label in LABELS[1:]])

    def strengths(self, units: np.ndarray) -> np.ndarray:
        """(20,) -> (7,) strength of every emotion but neutral, in the order of ``LABELS[1:]``."""
        return np.maximum(0.0, self.prototypes @ units / (self.prototypes**2).sum(1))

    def read(self, units: np.ndarray) -> int:
        """(20,) -> number of the label shown."""
        strengths = self.strengths(units)
        misfit = ((units - strengths[:, None] * self.prototypes) ** 2).sum(1)
        best = int(misfit.argmin())
        return 0 if strengths[best] < LEAST_STRENGTH else best + 1


def mean_units(motion_FD: np.ndarray) -> np.ndarray:
    """(F, 34) -> (20,)."""
    return motion_FD[:, : len(UNITS)].mean(axis=0)


def landmarks(identity: Identity, motion_FD: np.ndarray, step: int = 1) -> np.ndarray:
    """(F / step, 68, 2) pixels of every ``step``-th frame."""
    return np.stack([_points(identity, frame) for frame in motion_FD[::step]])


def landmark_distances(made: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(F-LMD, M-LMD) of (F, 68, 2) each, in pixels."""
    difference = np.abs(made - truth)
    return float(difference.mean()), float(difference[:, MOUTH_POINTS].mean())


def _points(identity: Identity, frame: np.ndarray) -> np.ndarray:
    index = FACE.index
    units = np.zeros(len(AU_NAMES), np.float32)
    units[[AU_NAMES.index(unit) for unit in UNITS]] = np.maximum(frame[: len(UNITS)], 0.0)
    state = FaceState(
        action_units=units,
        viseme=np.array([frame[index[axis]] for axis in MOUTH], np.float32),
        gaze=np.array([frame[index["gaze_x"]], frame[index["gaze_y"]]], np.float32),
        blink=float(max(frame[index["lidL"]], frame[index["lidR"]])),
    )
    mouth, au = shape_mouth(identity, state), state.strengths()
    outline = face_outline(identity, mouth, max(au["6"], 0.5 * (au["12L"] + au["12R"])))
    x = 0.5 + identity.offset[0] + frame[index["x"]] * EYE_DISTANCE
    y = ORIGIN_HEIGHT + identity.offset[1] + frame[index["y"]] * EYE_DISTANCE
    roll, yaw, pitch = (float(frame[index[name]]) for name in ("roll", "yaw", "pitch"))
    camera = Camera(
        unit=SIZE * FACE_UNIT * identity.scale, center=(x * SIZE, y * SIZE), roll=roll, yaw=yaw, pitch=pitch
    )
    # from the ear on the left of the picture over the chin (number 35 of 70) to the other
    jaw = outline[np.linspace(52, 18, 17).round().astype(int)]
    brows = [_along(shape_brow(identity, state, side), 5)[::side] for side in (-1, 1)]
    half = 0.132 * identity.nose_width * (1 + 0.20 * au["9"] + 0.10 * au["10"])
    base = identity.nose_length - 0.050 * au["9"] - 0.018 * au["10"]
    bridge = np.stack([np.zeros(4), np.linspace(0.0, base - 0.055, 4)], axis=1)
    wings = np.stack([np.linspace(-half, half, 5), np.array([-0.02, 0.02, 0.058, 0.02, -0.02]) + base], axis=1)
    eyes = []
    for side in (-1, 1):
        eye = shape_eye(identity, state, side)
        upper, lower = _along(eye.upper, 4)[::side], _along(eye.lower, 4)[::side]
        eyes.append(np.concatenate([upper, lower[2:0:-1]]))
    outer = np.concatenate([_along(mouth.upper_outer, 7), _along(mouth.lower_outer, 7)[-2:0:-1]])
    inner = np.concatenate([_along(mouth.upper, 5), _along(mouth.lower, 5)[-2:0:-1]])
    inside = np.concatenate([*brows, bridge, wings, *eyes, outer, inner])
    return np.concatenate([camera.project(jaw, OUTLINE_DEPTH), camera.project(inside)])


def _along(line: np.ndarray, count: int) -> np.ndarray:
    """``count`` points of a line, evenly by number, ends included."""
    return line[np.linspace(0, len(line) - 1, count).round().astype(int)]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean over seeds and half the width of its 95 % interval by Student's t; no width from a single value."""

    mean: float
    half: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + (f" ± {self.half:.3f}" if len(self.values) > 1 else "")


_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(values: list[float]) -> Interval:
    """Of one value per seed."""
    count = len(values)
    if count < 2:
        return Interval(mean=float(np.mean(values)), half=0.0, values=tuple(values))
    student = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96
    half = student * float(np.std(values, ddof=1)) / count**0.5
    return Interval(mean=float(np.mean(values)), half=half, values=tuple(values))
