"""Coefficients of a face from where its points are: the instant renderer's own rig, turned around.

Shapes (legend for this file): F frames, P observed numbers, K solved coefficients; frontal faces as 67 named points
(F, 2) in eye distances from between the eyes, y down.

For every frame the row r of ``FACE`` is sought whose predicted change of brows, nose, lips and chin is closest to the
seen one (ours):

    min_r  sum_p w_p^2 (predicted_p(r) - seen_p)^2 + sum_k (r_k / s_k)^2,    low_k <= r_k <= high_k

by Gauss-Newton steps, each solved inside the bounds by coordinate descent. The prediction is that of ``renderer/rig``
and ``renderer/mouth_shape`` on the person's own calm face, so a motion read from a video and put on a portrait moves
its points as far as the video's. s_k says how much evidence a coefficient needs; it settles what two coefficients
could explain alike (an open mouth is speech rather than unit 26).

Lids and gaze are read off directly: how far the gap between the lids has closed, and where the iris is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..motion.coefficients import FACE, MotionError
from ..renderer import names
from ..renderer.eyes import GAZE, LOWER_LID, MOST_SQUINT, WIDENING
from ..renderer.mouth_shape import STATIONS, MouthShape
from ..renderer.points import FacePoints
from ..renderer.rig import FEATURES, MOVES, features

Named = Mapping[str, np.ndarray]
"""Name of a point -> (F, 2), or (2,) of one face."""

SOLVED: Mapping[str, float] = {  # coefficient -> s_k
    "AU1": 4.0, "AU2": 4.0, "AU4": 4.0, "AU6": 2.0, "AU9": 3.0, "AU10": 3.0, "AU12L": 5.0, "AU12R": 5.0, "AU15": 5.0,
    "AU17": 3.0, "AU20": 1.2, "AU27": 1.2, "open": 8.0, "width": 6.0, "press": 1.5,
}  # fmt: skip
LOWEST = {"width": -1.0}
HIGHEST = {"open": 1.2, "width": 1.0, "press": 1.0}
HIGHEST_UNIT = 1.5
STEP = 0.02
ROUNDS = 3
SWEEPS = 25
PRECISION = 0.012
"""Eye distances by which a detector's points tremble."""
HELD = 0.8
"""Eyes less open than this share of their calm gap are shut by their lids; above, it is the eye's own play."""
CANVAS = 900
"""Pixels of the picture on which the calm face is laid out; 180 are one eye distance."""

_U = np.linspace(-0.75, 0.75, 7)
_AT = np.linspace(-1, 1, STATIONS)
_PARTS = (
    *((f"brow_{part}", side, axis) for side in names.SIDES for part in names.BROW for axis in (0, 1)),
    *(("ala", side, axis) for side in names.SIDES for axis in (0, 1)),
    *(("bag", side, 1) for side in names.SIDES),
)


def calm_points(calm: Named) -> FacePoints:
    """A calm face (2,) per name as points on an empty canvas. Raises ``PointsError`` where it is no face."""
    unit = CANVAS / 5.0
    middle = np.array([0.5, 0.4]) * CANVAS
    pixels = {name: place * unit + middle for name, place in calm.items()}
    return FacePoints(width=CANVAS, height=CANVAS, points={n: (float(x), float(y)) for n, (x, y) in pixels.items()})


def _lip_line(face: Named, line: str) -> np.ndarray:
    """Heights of a line of the lips at ``_U`` between the corners, for faces (F, 2)."""
    members = names.LIP_LINES[line]
    path = np.stack([face[name] for name in members])  # N, F, 2
    left, right = path[0, :, 0], path[-1, :, 0]
    along = 2 * (path[..., 0] - left) / np.maximum(right - left, 1e-6) - 1
    out = np.empty((path.shape[1], len(_U)))
    for frame in range(path.shape[1]):
        knots = np.maximum.accumulate(along[:, frame] + np.arange(len(members)) * 1e-6)
        out[frame] = np.interp(_U, knots, path[:, frame, 1])
    return out


def observe(faces: Named) -> np.ndarray:
    """(F, P) numbers that the rig predicts, of faces (F, 2) per name."""
    columns = []
    for label, side, axis in _PARTS:
        if label == "bag":
            rim = [faces[f"eye_{side}_{part}"] for part in ("lower_outer", "lower", "lower_inner")]
            columns.append(np.mean(rim, axis=0)[:, 1])
            continue
        name = f"nose_{side}_ala" if label == "ala" else f"brow_{side}_{label[5:]}"
        columns.append(faces[name][:, axis])
    columns.append(faces["nose_base"][:, 1])
    for side in names.SIDES:
        columns.extend(faces[f"mouth_{side}"].T)
    columns.append(faces["chin"][:, 1])
    lines = [_lip_line(faces, line) for line in names.LIP_LINES]
    return np.concatenate([np.stack(columns, axis=1), *lines], axis=1)


WEIGHTS = np.concatenate([
    [2.0 if label == "bag" else 1.0 for label, _, _ in _PARTS],
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
    np.full(4 * len(_U), 0.5),
])  # fmt: skip


class Prediction:
    """Change of every observed number for a row, on one person's calm face."""

    def __init__(self, calm: Named) -> None:
        points = calm_points(calm)
        frame = points.frame
        self._mouth = MouthShape(points)
        self._open_eyes = {
            side: float(frame.to_face(points.line((f"eye_{side}_lower", f"eye_{side}_upper")))[:, 1] @ [1, -1])
            for side in names.SIDES
        }
        table = np.zeros((len(_PARTS), len(names.SIDES), len(FEATURES)))
        for i, (label, side, axis) in enumerate(_PARTS):
            sign = 1.0 if axis or side == "L" else -1.0
            if label == "bag":
                continue
            for k, feature in enumerate(FEATURES):
                if label in MOVES[feature]:
                    table[i, names.SIDES.index(side), k] = sign * MOVES[feature][label][axis]
        self._table = table.reshape(len(_PARTS), -1)
        self._base = np.array([0.5 * MOVES[f].get("base", (0, 0))[1] for f in FEATURES] * 2)
        self._rest = self._absolute(np.zeros(FACE.size))

    def __call__(self, row: np.ndarray) -> np.ndarray:
        return self._absolute(row) - self._rest

    def _absolute(self, row: np.ndarray) -> np.ndarray:
        given = features(row).reshape(-1)
        parts = self._table @ given
        squint = sum(share * row[FACE.index[unit]] for unit, share in LOWER_LID.items())
        for i, (label, side, _) in enumerate(_PARTS):
            if label == "bag":
                parts[i] = -self._open_eyes[side] * min(squint, MOST_SQUINT)
        lips = self._mouth(row)
        at = np.array([np.interp(_U, _AT, line) for line in lips.lines])
        rest = [float(self._base @ given), *lips.corners.reshape(-1), lips.drop]
        return np.concatenate([parts, rest, at.reshape(-1)])


def bounded_least_squares(
    matrix: np.ndarray, target: np.ndarray, start: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """argmin |matrix x - target| with low <= x <= high, by coordinate descent from ``start``."""
    square, right = matrix.T @ matrix, matrix.T @ target
    x = np.clip(start, low, high)
    for _ in range(SWEEPS):
        before = x.copy()
        for k in range(len(x)):
            step = (right[k] - square[k] @ x) / max(square[k, k], 1e-12)
            x[k] = min(max(x[k] + step, low[k]), high[k])
        if np.abs(x - before).max() < 1e-4:
            break
    return x


def expressions(faces: Named, calm: Named, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """(F, 34) rows of faces (F, 2) per name, against the ``calm`` face (2,); lids, gaze and pose are left 0.

    Raises ``PointsError`` where the calm face is no face.
    """
    seen = observe(faces) - observe({name: place[None] for name, place in calm.items()})
    return solved(Prediction(calm), seen, progress)


def solved(
    predict: Callable[[np.ndarray], np.ndarray], seen: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """(F, 34) rows whose predicted changes are closest to those seen, (F, P); each starts from the one before."""
    columns = np.array([FACE.index[name] for name in SOLVED])
    low = np.array([LOWEST.get(name, 0.0) for name in SOLVED])
    high = np.array([HIGHEST.get(name, HIGHEST_UNIT) for name in SOLVED])
    prior = np.diag(1.0 / np.array(list(SOLVED.values())))
    weights = WEIGHTS / PRECISION / np.sqrt(len(WEIGHTS))
    rows = np.zeros((len(seen), FACE.size))
    x = np.zeros(len(columns))
    for frame, change in enumerate(seen):
        for _ in range(ROUNDS):
            row = np.zeros(FACE.size)
            row[columns] = x
            now = predict(row)
            slopes = np.empty((len(now), len(columns)))
            for k, column in enumerate(columns):
                step = -STEP if x[k] + STEP > high[k] else STEP
                beside = row.copy()
                beside[column] += step
                slopes[:, k] = (predict(beside) - now) / step
            left = np.concatenate([slopes * weights[:, None], prior])
            right = np.concatenate([(change - now + slopes @ x) * weights, np.zeros(len(x))])
            x = bounded_least_squares(left, right, x, low, high)
        rows[frame, columns] = x
        _share_squint(rows[frame])
        if progress:
            progress(frame + 1, len(seen))
    return rows


def _share_squint(row: np.ndarray) -> None:
    """A raised lower lid is unit 6 in a smile and unit 7 without one."""
    smile = min(1.0, row[FACE.index["AU12L"]] + row[FACE.index["AU12R"]])
    raised = row[FACE.index["AU6"]]
    row[FACE.index["AU6"]] = smile * raised
    row[FACE.index["AU7"]] = min(HIGHEST_UNIT, (1 - smile) * raised * LOWER_LID["AU6"] / LOWER_LID["AU7"])


def lid_gaps(faces: Named) -> np.ndarray:
    """(F, 2) mean gap between the lids of the right and the left eye, in eye distances."""
    parts = ("outer", "", "inner")

    def edge(side: str, which: str) -> np.ndarray:
        ends = [faces[f"eye_{side}_{which}{'_' + part if part else ''}"] for part in parts]
        return np.mean(ends, axis=0)[:, 1]

    return np.stack([edge(side, "lower") - edge(side, "upper") for side in names.SIDES], axis=1)


def lids(rows: np.ndarray, faces: Named, calm: Named) -> None:
    """Put closure of the lids and unit 5 into ``rows``."""
    rest = lid_gaps({name: place[None] for name, place in calm.items()})[0]
    if float(rest.min()) <= 0.0:
        raise MotionError("the eyes are shut in the calm frames; name a moment with open eyes")
    share = lid_gaps(faces) / rest
    shut = np.clip((HELD - share) / HELD, 0.0, 1.0)
    rows[:, FACE.index["lidR"]], rows[:, FACE.index["lidL"]] = shut[:, 0], shut[:, 1]
    wide = np.clip((share - 1.0) * rest / WIDENING, 0.0, HIGHEST_UNIT).mean(axis=1)
    rows[:, FACE.index["AU5"]] = wide * (1 - shut.max(axis=1))
    rows[:, FACE.index["AU7"]] *= 1 - shut.max(axis=1)  # a shutting eye lifts its lower lid as well


def gaze(rows: np.ndarray, irises: np.ndarray, calm: np.ndarray) -> None:
    """Put gaze into ``rows``: irises (F, 2, 2) and ``calm`` (2, 2) of the right and left eye, from its middle."""
    share = 1 - np.maximum(rows[:, FACE.index["lidR"]], rows[:, FACE.index["lidL"]])
    moved = (irises - calm).mean(axis=1) / GAZE
    held = np.where(share[:, None] > 0.5, np.clip(moved, -1.0, 1.0), np.nan)  # nothing is seen through shut lids
    for axis, name in enumerate(("gaze_x", "gaze_y")):
        known = np.flatnonzero(np.isfinite(held[:, axis]))
        if len(known):
            rows[:, FACE.index[name]] = np.interp(np.arange(len(rows)), known, held[known, axis])
