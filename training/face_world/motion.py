"""A performance of the face world as motion coefficients of the space ``FACE``.

Shapes: F frames; performance (see ``performance.py``) -> Motion (F, 34) at its 25 frames per second.
"""

from __future__ import annotations

import numpy as np

from moee_core.motion.coefficients import FACE, MOUTH, UNITS, Motion
from training.face_world.performance import FPS, Performance
from training.face_world.rig import AU_NAMES, VISEME_AXES

EYE_DISTANCE = 0.245
"""Between the eyes of an average person, as a fraction of the picture: FACE measures shifts in it."""


def face_motion(performance: Performance) -> Motion:
    """The same movement in names of FACE. A blink and unit 43 (eyes closed) both shut the lids; depth does not move."""
    values = np.zeros((performance.num_frames, FACE.size), np.float32)

    def put(name: str, curve: np.ndarray) -> None:
        values[:, FACE.index[name]] = curve

    for unit in UNITS:
        put(f"AU{unit}", performance.action_units[:, AU_NAMES.index(unit)])
    for axis in MOUTH:
        put(axis, performance.viseme[:, VISEME_AXES.index(axis)])
    shut = np.minimum(1.0, performance.blink + performance.action_units[:, AU_NAMES.index("43")])
    for name in ("lidL", "lidR"):
        put(name, shut)
    put("gaze_x", performance.gaze[:, 0])
    put("gaze_y", performance.gaze[:, 1])
    for number, name in enumerate(("roll", "yaw", "pitch")):
        put(name, performance.pose[:, number])
    put("x", performance.pose[:, 3] / EYE_DISTANCE)
    put("y", performance.pose[:, 4] / EYE_DISTANCE)
    return Motion(values=values, fps=FPS, space=FACE, about="face world")
