"""Does an emotion do what it says? Action units asked for against action units read off the made frames.

Shapes: 20 units in the order of ``coefficients.UNITS``; pictures (H, W, 3) uint8

The instrument is the expression reader (``networks/expression_reader.py``), which has only seen drawn faces: trust it
on those, and its direction elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..emotion.reference import read_units
from ..emotion.signals import EmotionRows
from ..motion.coefficients import UNITS
from ..motion.expression import MAX_UNIT, expression
from ..networks.expression_reader import ExpressionReader

ROW, BAR_LEFT = 22, 90
LEAST = 0.1
"""Units below this in all three are not drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """(20,) each: what was asked for, what the portrait shows, what the made frames show on average."""

    asked: np.ndarray
    before: np.ndarray
    shown: np.ndarray

    @property
    def share(self) -> float:
        """How much of the change that was asked for has happened: slope through zero, 1 is all of it."""
        wanted, done = self.asked - self.before, self.shown - self.before
        return float((wanted * done).sum() / max(float((wanted**2).sum()), 1e-6))

    def rows(self) -> list[int]:
        """Units worth a line, strongest first."""
        strongest = np.maximum.reduce([self.asked, self.before, self.shown])
        return [int(i) for i in np.argsort(-strongest, kind="stable") if strongest[i] >= LEAST]

    def text(self) -> str:
        """A table, one unit a line."""
        lines = [f"{100 * self.share:.0f} % of the change that was asked for", "unit     asked  portrait  shown"]
        lines += [f"AU{UNITS[i]:5}{self.asked[i]:7.2f}{self.before[i]:10.2f}{self.shown[i]:7.2f}" for i in self.rows()]
        return "\n".join(lines)


def asked_units(rows: EmotionRows) -> np.ndarray:
    """(20,) mean over the frames of what is asked for."""
    return np.clip(expression(rows.vectors) + rows.units, 0, MAX_UNIT).mean(axis=0)


def measure(reader: ExpressionReader, portrait: np.ndarray, frames: Sequence[np.ndarray], rows: EmotionRows) -> Effect:
    """The effect on the made ``frames``."""
    return Effect(
        asked=asked_units(rows),
        before=read_units(reader, [portrait])[0],
        shown=read_units(reader, frames).mean(axis=0),
    )


def effect_picture(effect: Effect, width: int = 512) -> np.ndarray:
    """Bars: asked for as an outline, the portrait's own in grey, what is shown in green. (H, width, 3) uint8."""
    import cv2

    chosen = effect.rows() or [0]
    picture = np.full((ROW * (len(chosen) + 2), width, 3), 250, np.uint8)
    scale = (width - BAR_LEFT - 20) / MAX_UNIT

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)

    write(f"asked (outline)  portrait (grey)  shown (green): {100 * effect.share:.0f} %", 10, 16)
    for line, unit in enumerate(chosen, start=1):
        top = line * ROW + 6
        write(f"AU{UNITS[unit]}", 12, top + 13)
        for value, (y0, y1), colour in (
            (effect.before[unit], (11, 16), (170, 170, 170)),
            (effect.shown[unit], (2, 10), (60, 160, 90)),
        ):
            end = BAR_LEFT + round(float(value) * scale)
            cv2.rectangle(picture, (BAR_LEFT, top + y0), (end, top + y1), colour, cv2.FILLED)
        end = BAR_LEFT + round(float(effect.asked[unit]) * scale)
        cv2.rectangle(picture, (BAR_LEFT, top), (end, top + 18), (30, 30, 30), 1)
    return picture
