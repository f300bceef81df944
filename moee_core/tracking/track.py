"""From the meshes of a video to a ``Motion``.

Shapes (legend for this file): F frames, M vertices; meshes (F, M, 3) in pixels, NaN where no face was found.

Frames without a face are bridged from their neighbours. What the person looks like at rest is taken from the calmest
of the frames (lips together, eyes open, nothing raised), or from the moment the user names; expression is what goes
beyond it. A video that smiles from beginning to end has no calm frame, and its smile is then taken for the person's
face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..motion.coefficients import FACE, Motion, MotionError
from ..renderer import names
from ..renderer.mesh import IRIS, VERTICES, named
from .pose import heads
from .solve import Named, expressions, gaze, lid_gaps, lids

CALM_SHARE = 0.15
CALM_SECONDS = 0.2
"""Around a named moment."""
MOST_MISSING = 0.5
SMOOTHING = (0.25, 0.5, 0.25)
"""Over three frames: a detector's tremble is of one frame, a blink of five."""
NEARING_SECONDS = 0.6
"""Over which coming nearer is smoothed: a detector's face shrinks by 3 % when the eyes shut."""


def bridged(meshes: np.ndarray) -> np.ndarray:
    """Frames without a face filled in between their neighbours. Raises ``MotionError`` when most have none."""
    meshes = np.asarray(meshes, np.float64)
    if meshes.ndim != 3 or meshes.shape[2] != 3 or not len(meshes):
        raise MotionError(f"a track has shape (frames, vertices, 3), got {meshes.shape}")
    known = np.flatnonzero(np.isfinite(meshes).all(axis=(1, 2)))
    missing = len(meshes) - len(known)
    if missing > MOST_MISSING * len(meshes):
        raise MotionError(
            f"no face was found in {missing} of {len(meshes)} frames; use a video of one face seen from the front, at "
            "least 100 pixels wide"
        )
    if not missing:
        return meshes
    at = np.arange(len(meshes))
    after = np.clip(np.searchsorted(known, at), 0, len(known) - 1)
    before = np.clip(np.searchsorted(known, at, side="right") - 1, 0, len(known) - 1)
    first, last = known[before], known[after]
    share = (at - first) / np.maximum(last - first, 1)
    share = np.clip(share, 0, 1)[:, None, None]
    return meshes[first] * (1 - share) + meshes[last] * share


def calm_frames(faces: Named, fps: float, at: float | None = None) -> np.ndarray:
    """Numbers of the frames that show the face at rest; ``at`` is a moment in seconds. Raises ``MotionError``."""
    count = len(faces["chin"])
    if at is not None:
        if not 0 <= at <= count / fps:
            raise MotionError(f"the calm moment must be 0 to {count / fps:.2f} s into the video, got {at:g}")
        near = np.abs((np.arange(count) + 0.5) / fps - at)
        return np.flatnonzero(near <= max(CALM_SECONDS, near.min()))
    lips = faces["lip_lower_inner_M"][:, 1] - faces["lip_upper_inner_M"][:, 1]
    open_eyes = lid_gaps(faces).mean(axis=1)
    brows = np.mean([faces[f"brow_{side}_{part}"][:, 1] for side in names.SIDES for part in names.BROW], axis=0)
    wide = faces["mouth_L"][:, 0] - faces["mouth_R"][:, 0]
    unrest = np.clip(lips, 0, None)
    usual = np.median(open_eyes)
    unrest += np.clip(0.9 * usual - open_eyes, 0, None) + np.clip(open_eyes - 1.1 * usual, 0, None)
    unrest += 0.5 * np.abs(brows - np.median(brows)) + 0.5 * np.abs(wide - np.median(wide))
    return np.argsort(unrest, kind="stable")[: max(1, math.ceil(CALM_SHARE * count))]


def motion_of_meshes(
    meshes: np.ndarray,
    fps: float,
    *,
    calm_at: float | None = None,
    about: str = "video",
    progress: Callable[[int, int], None] | None = None,
) -> Motion:
    """What the face of a video does, in ``FACE``.

    ``meshes`` (F, 478 or 468, 3) pixels, NaN where no face was found; without irises the gaze is straight ahead.
    ``calm_at`` names a moment in seconds at which the person is at rest; None finds one. Head shifts are measured from
    the middle of the video. Raises ``MotionError`` and ``PointsError`` where no face can be followed.
    """
    meshes = bridged(meshes)
    found = heads(meshes)
    faces = {name: place[..., :2] for name, place in named(found.faces).items()}
    still = calm_frames(faces, fps, calm_at)
    calm = {name: np.median(place[still], axis=0) for name, place in faces.items()}
    rows = expressions(faces, calm, progress)
    lids(rows, faces, calm)
    if meshes.shape[1] == VERTICES:
        irises = np.stack([found.faces[:, IRIS[side][0], :2] - _eye(faces, side) for side in names.SIDES], axis=1)
        gaze(rows, irises, np.median(irises[still], axis=0))
    rows[:, FACE.indices("pose")] = found.pose
    rows = _smoothed(rows, SMOOTHING)
    nearer = FACE.index["z"]
    window = np.hanning(2 * max(1, round(0.5 * NEARING_SECONDS * fps)) + 3)[1:-1]
    rows[:, [nearer]] = _smoothed(rows[:, [nearer]], window / window.sum())
    return Motion(values=rows, fps=fps, about=about)


def _eye(faces: Named, side: str) -> np.ndarray:
    return 0.5 * (faces[f"eye_{side}_outer"] + faces[f"eye_{side}_inner"])


def _smoothed(rows: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """A weighted mean over as many frames as there are weights, an odd number; the ends are held."""
    padded = np.pad(rows, ((len(weights) // 2, len(weights) // 2), (0, 0)), mode="edge")
    return np.sum([weight * padded[i : i + len(rows)] for i, weight in enumerate(weights)], axis=0)
