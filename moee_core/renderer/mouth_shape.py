"""The shape of the lips for a row of coefficients: four lines from corner to corner.

Shapes (legend for this file): U stations along the mouth, u from -1 at the person's right corner to 1 at the left one.
Lengths are in face units (eye distances), y down. Lines: outer and inner edge of the upper lip, inner and outer edge of
the lower lip.

Equations (ours), with w(u) = (1 - u^2)^e:

    middle(u)  the line along which closed lips meet: the picture's, plus corners and centre moved by units
    gap(u)     = rest(u) + G w(u) + residue(u);  G saturates at ``MAX_GAP``
    upper inner = middle - share gap,  lower inner = middle + (1 - share) gap,  outer lines a lip's thickness away

All of it is a difference to the same equations at the expression that the picture already shows, so that this
expression gives the picture's own lines exactly, whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..motion.coefficients import FACE
from . import names
from .curves import arch
from .points import FacePoints

STATIONS = 65
MAX_GAP, MAX_GAP_DRAWN = 0.52, 1.0
MAX_DROP, MAX_DROP_DRAWN = 0.36, 0.56
THINNEST = 0.012
"""A lip's least thickness in eye distances."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lips:
    """One mouth: corners (2, 2) right and left, lines (4, U) of y; ``opening`` is G, ``drop`` how far the chin sank."""

    corners: np.ndarray
    lines: np.ndarray
    opening: float
    drop: float
    bared: float
    """How far the upper teeth show, 0..1."""
    lower_bared: float
    rounding: float

    @property
    def x(self) -> np.ndarray:
        """(U,) of the stations."""
        return np.linspace(self.corners[0, 0], self.corners[1, 0], STATIONS)


@dataclass(frozen=True, kw_only=True)
class _Drive:
    """What a row asks of a mouth, relative to a neutral one."""

    corners: np.ndarray
    """(2, 2) right and left: outwards and down."""
    middle: float
    upper_lift: float
    opening: float
    asked: float
    drop: float
    power: float
    upper_share: float
    thickness: tuple[float, float]
    bared: float
    lower_bared: float
    rounding: float


def _drive(row: np.ndarray, drawn: float) -> _Drive:
    """``drawn`` 0 moves lips as photographs of posed units show, 1 as drawings of them do: a smile rises more than it
    widens, the mouth is lifted as a whole, and it opens further."""

    def between(photographed: float, drawing: float) -> float:
        return photographed + drawn * (drawing - photographed)

    value = {name: float(row[i]) for name, i in FACE.index.items()}
    au = {name[2:]: min(max(v, 0.0), 1.5) for name, v in value.items() if name.startswith("AU")}
    speech = min(max(value["open"], 0.0), 1.2)
    width = min(max(value["width"], -1.0), 1.0)
    teeth, press = (min(max(value[name], 0.0), 1.0) for name in ("teeth", "press"))
    spread, rounding = max(0.0, width), max(0.0, -width)
    smile = 0.5 * (au["12L"] + au["12R"])

    asked = between(0.40, 0.53) * speech + between(0.19, 0.29) * au["26"] + between(0.34, 0.44) * au["27"]
    asked += 0.085 * au["25"] * (1 + 0.6 * min(au["20"] + smile, 1.0))
    asked += 0.04 * teeth * (1 - rounding) + 0.035 * au["10"] * (1 - 0.7 * min(au["17"], 1.0))
    widest = between(MAX_GAP, MAX_GAP_DRAWN)
    opening = widest * (1 - np.exp(-asked / widest))
    silent = between(max(0.0, 1 - 1.5 * speech), 1.0)  # lips that are pressed in anger part to speak
    opening *= (1 - press) * (1 - 0.6 * silent * min(au["24"], 1.0)) * (1 - 0.25 * silent * min(au["23"], 1.0))
    opening *= (1 - 0.2 * rounding) * (1 - between(0.15, 0.35) * min(au["17"], 1.0))
    drop = 0.21 * speech + 0.13 * au["26"] + 0.26 * au["27"]
    lowest = between(MAX_DROP, MAX_DROP_DRAWN)
    drop = lowest * (1 - np.exp(-drop / lowest)) * (1 - between(0.5, 0.0) * press)

    corners = np.empty((2, 2))
    for i, side in enumerate("RL"):
        out = between(0.110, 0.044) * au["12" + side] + 0.045 * au["14" + side] + between(0.14, 0.045) * au["20"]
        out += 0.015 * au["10"] + between(0.085, 0.05) * spread - between(0.14, 0.18) * rounding
        out -= 0.035 * au["23"] + between(0.03, 0.01) * au["24"] + 0.02 * au["17"] + between(0.012, -0.008) * au["15"]
        out -= 0.03 * speech + 0.06 * au["27"] + 0.035 * au["26"] * (1 - 0.8 * min(smile + au["20"], 1.0))
        down = -between(0.105, 0.115) * au["12" + side] - 0.018 * au["14" + side] + between(0.105, 0.09) * au["15"]
        down += 0.035 * au["20"] + between(0.012, -0.02) * au["17"] - between(0.015, 0.033) * au["10"]
        sinking = between(0.28 * (1 - 0.55 * min(smile, 1.0)), 0.25 * (1 - 0.65 * min(au["15"], 1.0)))
        down += sinking * opening - between(0.0, 0.012) * au["9"]
        corners[i] = out, down
    middle = 0.015 * smile - between(0.022, 0.050) * au["17"] - between(0.012, 0.025) * au["15"]
    middle -= between(0.010, 0.035) * au["10"] + between(0.0, 0.012) * au["9"]
    thin = 0.30 * au["23"] + 0.45 * au["24"] * (0.4 + 0.6 * silent) + 0.55 * press + 0.10 * au["20"] + 0.08 * spread
    fuller = 1 + 0.22 * rounding
    tensed = min(au["10"], 1.0) * (1 - 0.8 * min(au["17"], 1.0))  # a raised chin covers what a raised lip would show
    bared = max(teeth, 0.95 * min(smile, 1.0), 0.85 * min(au["20"], 1.0), tensed, 0.35 * min(speech, 1.0))
    return _Drive(
        corners=corners,
        middle=middle,
        upper_lift=0.075 * au["10"] + 0.035 * au["9"] + 0.012 * teeth * (1 - press),
        opening=float(opening),
        asked=asked,
        drop=float(drop - 0.03 * min(au["17"], 1.0)),
        power=1.0 - 0.42 * min(1.0, max(rounding, 1.6 * float(opening))),
        upper_share=0.24 + 0.10 * min(smile, 1.0) + 0.25 * min(au["10"], 1.0) * float(np.exp(-opening / 0.15)),
        thickness=(float(np.exp(-thin)) * fuller, float(np.exp(-0.85 * thin)) * fuller),
        bared=bared * (1 - 0.75 * rounding * (1 - teeth)),
        lower_bared=max(0.9 * min(au["20"], 1.0), teeth * spread, 0.5 * min(au["27"], 1.0)),
        rounding=rounding,
    )


class MouthShape:
    """The lips of one portrait; call it with a row (34,) of ``FACE``."""

    def __init__(self, points: FacePoints, drawn: float = 0.0) -> None:
        """``drawn`` 0 is a photograph, 1 a drawing (``style.py``)."""
        self._drawn = drawn
        frame = points.frame
        lines = {line: frame.to_face(points.line(members)) for line, members in names.LIP_LINES.items()}
        corners = lines["upper_inner"][[0, -1]]
        self.u = np.linspace(-1.0, 1.0, STATIONS)
        x = np.linspace(corners[0, 0], corners[1, 0], STATIONS)
        found = []
        for line in lines.values():
            order = np.argsort(line[:, 0], kind="stable")
            knots = np.maximum.accumulate(line[order, 0] + np.arange(len(line)) * 1e-6)
            found.append(arch(knots, line[order, 1], x))
        self._set_lines(corners, np.stack(found))
        self.source_row = points.source_row()
        self._then = _drive(self.source_row, drawn)

    def _set_lines(self, corners: np.ndarray, lines: np.ndarray) -> None:
        """Keep the picture's own lines, in order from top to bottom everywhere."""
        lines[3] = np.maximum(lines[3], lines[0] + 2 * THINNEST)
        inner = np.sort(lines[1:3], axis=0)
        inner = np.clip(inner, lines[0], lines[3])
        ends = np.array([corners[0, 1], corners[1, 1]])
        lines[0, [0, -1]], lines[3, [0, -1]], inner[:, [0, -1]] = ends, ends, ends
        self.corners, self.lines = corners, np.concatenate([lines[:1], inner, lines[3:]])

    def refine(self, middle: np.ndarray) -> None:
        """For closed lips: put both inner lines on ``middle`` (U,), where the picture shows the line between them."""
        lines = self.lines.copy()
        lines[1] = lines[2] = middle
        self._set_lines(self.corners, lines)

    @property
    def source(self) -> Lips:
        """The lips as the picture shows them."""
        return self(self.source_row)

    def __call__(self, row: np.ndarray) -> Lips:
        now, then = _drive(row, self._drawn), self._then
        u, size = self.u, np.abs(self.u)
        share = (u + 1) / 2
        moves = (now.corners - then.corners) * np.array([[-1, 1], [1, 1]])
        corners = self.corners + moves
        half = 0.5 * (self.corners[1, 0] - self.corners[0, 0])
        shrink = 0.5 * (corners[1, 0] - corners[0, 0]) / half
        if shrink < 0.5:  # never narrower than half the mouth
            middle = corners[:, 0].mean()
            corners[:, 0] = middle + (corners[:, 0] - middle) * 0.5 / shrink

        def wave(drive: _Drive) -> np.ndarray:
            """How the line between the lips bends."""
            sides = drive.corners[0, 1] * (1 - share) + drive.corners[1, 1] * share
            return sides * size**1.9 + drive.middle * (1 - size**2.0)

        upper, top, bottom, lower = self.lines
        gap0 = bottom - top
        weight = (1 - u * u).clip(0)
        rest = gap0 * (1 - min(1.0, then.asked / 0.06))
        residue = gap0 - rest - then.opening * weight**then.power
        fade = min(1.0, now.opening / then.opening) if then.opening > 0.01 else 0.0
        closing = float(np.clip(self._closing(row), 0.0, 1.0))
        gap = rest * (1 - closing) + now.opening * weight**now.power + residue * fade
        gap = np.maximum(gap, 0.0)

        centre0 = top + then.upper_share * gap0
        centre = centre0 + wave(now) - wave(then)
        bows = 0.55 + 0.45 * np.exp(-(((size - 0.45) / 0.3) ** 2))  # of the upper lip, on either side of its middle
        across = weight**0.5 * bows
        lift = (now.upper_lift - then.upper_lift) * (across + self._drawn * (weight - across))
        lift_open = lift * min(1.0, float(gap.max()) / 0.05)  # closed lips are lifted together
        inner_top = centre - now.upper_share * gap - np.maximum(lift_open, 0) * 0.5
        inner_bottom = centre + (1 - now.upper_share) * gap
        thick = (top - upper) * now.thickness[0] / then.thickness[0]
        thick_low = (lower - bottom) * now.thickness[1] / then.thickness[1]
        floor = np.minimum(THINNEST * weight**0.5, np.minimum(top - upper, lower - bottom))
        lines = np.stack([
            inner_top - np.maximum(thick, floor) - (0.5 - 0.4 * self._drawn) * lift,
            inner_top,
            inner_bottom,
            inner_bottom + np.maximum(thick_low, floor),
        ])  # fmt: skip
        lines[:, [0, -1]] = corners[:, 1]
        return Lips(
            corners=corners, lines=lines, opening=float(gap.max()), drop=now.drop - then.drop,
            bared=now.bared, lower_bared=now.lower_bared, rounding=now.rounding,
        )  # fmt: skip

    def _closing(self, row: np.ndarray) -> float:
        """How much of a gap that is simply part of the picture is closed."""
        names_ = FACE.index
        return float(max(row[names_["press"]], 0.7 * row[names_["AU24"]], 0.4 * row[names_["AU23"]]))
