"""Which way every part of a face moves for a row of coefficients: control points and their displacements.

Shapes (legend for this file): n control points, K features of a row; face units (eye distances), x to the right of the
picture, y down.

Brows, cheeks, nose and chin move in proportion to features of the row (``MOVES``, amplitudes measured against
photographs of posed units: a raised brow climbs 8 to 9 mm of the 63 mm between two eyes). The lips' outer edges and the
jaw follow ``MouthShape``. What the picture already shows is subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..motion.coefficients import FACE
from . import names
from .mouth_shape import STATIONS, Lips, MouthShape
from .points import FacePoints

LIP_STATIONS = tuple(range(0, STATIONS, 8))
"""Stations at which the lips pull on the skin around them."""

HIGHEST_BROW = 2.0
"""Units 1 and 2 together raise the brows no further: beyond, they bend and run into the hair."""
BROW_HALF = 0.04
"""Half the height of a brow."""

FEATURES = (
    "1",
    "2",
    "4",
    "frown",
    "sorrow",
    "6",
    "7",
    "9",
    "10",
    "12",
    "14",
    "15",
    "17",
    "20",
    "spread",
    "round",
    "drop",
)
"""What ``MOVES`` is proportional to, per side of the face."""

Move = tuple[float, float]  # outwards from the middle line, down
_NONE: Move = (0.0, 0.0)

MOVES: Mapping[str, Mapping[str, Move]] = {
    "1": {
        "brow_outer": (0, -0.03), "brow_outer_half": (0, -0.055), "brow_middle": (0, -0.072),
        "brow_inner_half": (0, -0.125), "brow_inner": (0.01, -0.155), "glabella": (0, -0.102),
        "fore_inner": (0, -0.054), "fore_middle": (0, -0.024),
    },
    "2": {
        "brow_outer": (0, -0.125), "brow_outer_half": (0, -0.13), "brow_middle": (0, -0.11),
        "brow_inner_half": (0, -0.06), "brow_inner": (0, -0.018), "fore_outer": (0, -0.03),
        "fore_middle": (0, -0.036), "fold": (0, -0.042),
    },
    "4": {
        "brow_outer": (-0.006, 0), "brow_outer_half": (-0.018, 0.012), "brow_middle": (-0.042, 0.024),
        "brow_inner_half": (-0.072, 0.036), "brow_inner": (-0.09, 0.036), "fore_inner": (-0.024, 0.006),
    },
    "frown": {  # the downward part of unit 4, which unit 1 takes away
        "brow_outer": (0, 0.04), "brow_outer_half": (0, 0.055), "brow_middle": (0, 0.075),
        "brow_inner_half": (0, 0.09), "brow_inner": (0, 0.102), "glabella": (0, 0.072), "fold": (0, 0.024),
        "fore_inner": (0, 0.018),
    },
    "sorrow": {  # units 1 and 4 together draw the brows oblique
        "brow_outer": (0, 0.036), "brow_outer_half": (0, 0.018), "brow_middle": (0, -0.012),
        "brow_inner_half": (0, -0.054), "brow_inner": (0, -0.09), "glabella": (0, -0.048), "fore_inner": (0, -0.024),
    },
    "6": {
        "cheek": (0, -0.09), "cheek_out": (0, -0.075), "bag": (0, -0.05), "brow_outer": (0, 0.02),
        "nasolabial": (0.01, -0.04),
    },
    "7": {"bag": (0, -0.02)},
    "9": {
        "ala": (0.03, -0.065), "base": (0, -0.058), "tip": (0, -0.052), "brow_inner": (-0.013, 0.058),
        "brow_inner_half": (0, 0.039), "glabella": (0, 0.065), "cheek": (0, -0.052), "nasolabial": (0.013, -0.078),
        "bag": (0, -0.019),
    },
    "10": {"ala": (0.019, -0.039), "nasolabial": (0.026, -0.085), "cheek": (0, -0.039), "base": (0, -0.013)},
    "12": {
        "cheek": (0.035, -0.055), "cheek_out": (0.02, -0.035), "side": (0.055, -0.045), "nasolabial": (0.055, -0.05),
        "ala": (0.018, -0.01), "bag": (0, -0.012),
    },
    "14": {"side": (0.01, -0.01), "nasolabial": (0.015, -0.005)},
    "15": {"side": (-0.006, 0.048), "nasolabial": (0, 0.024), "cheek": (0, 0.014)},
    "17": {"boss": (0, -0.102), "boss_side": (0, -0.06)},
    "20": {"side": (0.06, 0.01), "nasolabial": (0.025, 0.005), "cheek": (0.02, 0.0)},
    "spread": {"side": (0.035, 0.0), "nasolabial": (0.02, 0)},
    "round": {"side": (-0.045, 0.0), "nasolabial": (-0.025, 0.0)},
    "drop": {  # of the chin, in eye distances
        "side": (-0.03, 0.42), "cheek": (0, 0.09), "cheek_out": (0, 0.06), "nasolabial": (0, 0.10), "boss": (0, 0.97),
        "boss_side": (0, 0.92),
    },
}  # fmt: skip


DRAWN: Mapping[str, Mapping[str, Move]] = {  # where drawings of a unit differ from photographs of it
    "1": {
        "brow_outer": (0, 0.0), "brow_outer_half": (0, -0.02), "brow_middle": (0, -0.078),
        "brow_inner_half": (0, -0.115), "brow_inner": (0, -0.155),
    },
    "2": {
        "brow_outer": (0, -0.12), "brow_outer_half": (0, -0.115), "brow_middle": (0, -0.10),
        "brow_inner_half": (0, -0.074), "brow_inner": (0, -0.05),
    },
    "4": {
        "brow_outer": (0, 0), "brow_outer_half": (-0.01, 0.006), "brow_middle": (-0.025, 0.016),
        "brow_inner_half": (-0.04, 0.026), "brow_inner": (-0.045, 0.032),
    },
    "frown": {
        "brow_outer": (0, 0.006), "brow_outer_half": (0, 0.042), "brow_middle": (0, 0.070),
        "brow_inner_half": (0, 0.08), "brow_inner": (0, 0.095),
    },
    "9": {"brow_inner": (0, 0.035), "brow_inner_half": (0, 0.026), "brow_middle": (0, 0.016), "ala": (0.027, -0.05)},
    "10": {"ala": (0.014, -0.02)},
    "12": {"ala": (0.0, 0.0)},
}  # fmt: skip


def move(feature: str, label: str, drawn: float) -> Move:
    """How far a feature moves what is called ``label``: outwards, down."""
    out, down = MOVES[feature].get(label, _NONE)
    other = DRAWN.get(feature, {}).get(label, (out, down))
    return out + drawn * (other[0] - out), down + drawn * (other[1] - down)


def features(row: np.ndarray) -> np.ndarray:
    """(2, K) of the person's right and left side."""
    value = {name: float(row[i]) for name, i in FACE.index.items()}
    au = {name[2:]: min(max(v, 0.0), 1.5) for name, v in value.items() if name.startswith("AU")}
    width = min(max(value["width"], -1.0), 1.0)
    sorrow = min(1.0, 1.25 * au["1"])
    raised = min(1.0, HIGHEST_BROW / max(au["1"] + au["2"], HIGHEST_BROW))
    shared = {
        "1": au["1"] * raised, "2": au["2"] * raised, "4": au["4"], "frown": au["4"] * (1 - 0.85 * sorrow),
        "sorrow": min(1.0, au["1"]) * min(1.0, au["4"]), "6": au["6"], "7": au["7"],
        "9": au["9"], "10": au["10"], "15": au["15"], "17": au["17"], "20": au["20"], "spread": max(0.0, width),
        "round": max(0.0, -width), "drop": 0.0,
    }  # fmt: skip
    sides = [{**shared, "12": au["12" + side], "14": au["14" + side]} for side in "RL"]
    return np.array([[side[name] for name in FEATURES] for side in sides])


class Rig:
    """Control points of one portrait, and where a row moves them."""

    def __init__(self, points: FacePoints, mouth: MouthShape, drawn: float = 0.0) -> None:
        """``drawn`` 0 is a photograph, 1 a drawing (``style.py``)."""
        frame = points.frame
        at = {name: frame.to_face(np.array(point)) for name, point in points.full.items()}
        self._labels: list[str] = []
        self._signs: list[float] = []
        places: list[np.ndarray] = []

        def add(label: str, place: np.ndarray, sign: float = 0.0) -> None:
            self._labels.append(label)
            self._signs.append(sign)
            places.append(np.asarray(place, np.float64))

        for side, sign in (("R", -1.0), ("L", 1.0)):
            eye = 0.5 * (at[f"eye_{side}_outer"] + at[f"eye_{side}_inner"])
            corner = at[f"mouth_{side}"]
            for part in names.BROW:  # both edges go with the middle: a brow is lifted, not stretched
                for edge in (-BROW_HALF, 0.0, BROW_HALF):
                    add(f"brow_{part}", at[f"brow_{side}_{part}"] + np.array([0, edge]), sign)
            for part in ("outer", "middle", "inner"):
                add(f"fore_{part}", at[f"brow_{side}_{part}"] - [0, 0.38], sign)
                add("still", at[f"brow_{side}_{part}"] - [0, 0.85], sign)
            for which in ("upper", "lower"):
                for name in names.lid(side, which):
                    add("still", at[name], sign)
            for part in ("upper_outer", "upper", "upper_inner"):  # lashes keep their height when the brow is lifted
                add("still", at[f"eye_{side}_{part}"] - np.array([0, 0.055]), sign)
            middle = at[f"brow_{side}_middle"]
            add("fold", 0.6 * middle + 0.4 * at[f"eye_{side}_upper"], sign)
            add("bag", at[f"eye_{side}_lower"] + np.array([0, 0.17]), sign)
            add("ala", at[f"nose_{side}_ala"], sign)
            add("cheek", 0.5 * eye + 0.5 * corner + np.array([sign * 0.10, 0]), sign)
            add("cheek_out", 0.6 * eye + 0.4 * at[f"jaw_{side}_angle"] + np.array([0, 0.05]), sign)
            add("nasolabial", 0.5 * at[f"nose_{side}_ala"] + 0.5 * corner + np.array([sign * 0.12, 0]), sign)
            add("side", 0.55 * corner + 0.45 * at[f"jaw_{side}_angle"], sign)
            add("still", at[f"eye_{side}_outer"] + np.array([sign * 0.45, -0.1]), sign)
            boss_side = 0.5 * at[f"lip_lower_outer_{side}"] + 0.5 * at[f"jaw_{side}_chin"]
            add("boss_side", boss_side, sign)
        add("glabella", 0.5 * (at["brow_R_inner"] + at["brow_L_inner"]))
        add("bridge", 0.5 * (at["eye_R_inner"] + at["eye_L_inner"]))
        add("tip", at["nose_tip"])
        add("base", at["nose_base"])
        add("boss", 0.5 * at["lip_lower_outer_M"] + 0.5 * at["chin"])
        self._linear = len(places)

        jaw = np.array([at[name] for name in names.JAW])
        top, bottom = jaw[[0, -1], 1].mean(), at["chin"][1]
        self._jaw_share = np.clip((jaw[:, 1] - top) / max(bottom - top, 0.1), 0, 1) ** 0.9
        places.extend(jaw)
        places.extend(jaw[[2, 5, 8]] + np.array([0, 1.1]))  # what lies under the jaw stays
        lips = mouth.lines[[0, 3]][:, LIP_STATIONS]
        x = np.linspace(mouth.corners[0, 0], mouth.corners[1, 0], STATIONS)[list(LIP_STATIONS)]
        self._lips_x = x
        places.extend(np.stack([x, lips[0]], axis=1))
        places.extend(np.stack([x, lips[1]], axis=1)[1:-1])
        self.places = np.array(places)
        self.chin_y, self.mouth_y = float(at["chin"][1]), float(mouth.corners[:, 1].mean())

        table = np.zeros((self._linear, 2, len(FEATURES), 2))  # point, side, feature, xy
        for k, feature in enumerate(FEATURES):
            for i, (label, sign) in enumerate(zip(self._labels, self._signs, strict=True)):
                out, down = move(feature, label, drawn)
                if sign:
                    table[i, int(sign > 0), k] = sign * out, down
                else:
                    table[i, :, k, 1] = 0.5 * down
        self._table = table.reshape(self._linear, -1, 2)
        self._mouth = mouth
        self._source = features(mouth.source_row)
        self._source_lips = mouth.source

    def moves(self, row: np.ndarray, lips: Lips) -> np.ndarray:
        """(n, 2) displacement of every control point; ``lips`` is ``MouthShape`` for the same row."""
        change = features(row) - self._source
        change[:, FEATURES.index("drop")] = lips.drop
        linear = np.einsum("ikc,k->ic", self._table, change.reshape(-1))
        jaw = np.zeros((len(names.JAW) + 3, 2))
        jaw[: len(names.JAW), 1] = self._jaw_share * lips.drop
        before = self._source_lips
        places = list(LIP_STATIONS)
        x = lips.x[places] - before.x[places]
        upper = np.stack([x, lips.lines[0, places] - before.lines[0, places]], axis=1)
        lower = np.stack([x, lips.lines[3, places] - before.lines[3, places]], axis=1)[1:-1]
        return np.concatenate([linear, jaw, upper, lower])
