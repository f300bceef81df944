"""Monotone curves through a few points: what a reduced set of face points is completed with.

Shapes: knots (n,) strictly rising, values (n,), queries any shape; float64.

``monotone`` is the piecewise cubic of Fritsch and Carlson (1980) with the slopes of Fritsch and Butland (1984), known
as PCHIP: it never swings beyond the points, so that a lid cannot cross its eye between two of them. ``arch`` is the
same along a bent axis, because lids and lips end rounder than a parabola.

Raises ``ValueError`` for fewer than two knots or knots that do not rise.
"""

from __future__ import annotations

import numpy as np

ROUNDNESS = 0.6
"""0 leaves the axis straight, 1 ends an arch like an ellipse; between, as lids and lips do."""


def _slopes(steps: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """(n,) derivative at the knots, from (n - 1,) widths and secant slopes of the pieces."""
    if len(steps) == 1:
        return np.repeat(rises, 2)
    slopes = np.zeros(len(steps) + 1)
    before, after = rises[:-1], rises[1:]
    heavy, light = steps[:-1] + 2 * steps[1:], 2 * steps[:-1] + steps[1:]
    same = before * after > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (heavy + light) / (heavy / before + light / after)
    slopes[1:-1] = np.where(same, mean, 0.0)
    slopes[0] = _end_slope(steps[0], steps[1], rises[0], rises[1])
    slopes[-1] = _end_slope(steps[-1], steps[-2], rises[-1], rises[-2])
    return slopes


def _end_slope(step: float, next_step: float, rise: float, next_rise: float) -> float:
    """Three-point derivative at an end, limited so that the first piece stays monotone."""
    slope = ((2 * step + next_step) * rise - step * next_rise) / (step + next_step)
    if slope * rise <= 0:
        return 0.0
    if rise * next_rise < 0 and abs(slope) > 3 * abs(rise):
        return 3 * rise
    return slope


def monotone(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values of the curve at ``at``; beyond the ends it keeps the end values."""
    knots, values = np.asarray(knots, np.float64), np.asarray(values, np.float64)
    steps = np.diff(knots)
    if len(knots) < 2 or not (steps > 0).all():
        raise ValueError(f"a curve needs at least two rising knots, got {knots.tolist()}")
    rises = np.diff(values) / steps
    slopes = _slopes(steps, rises)
    at = np.clip(np.asarray(at, np.float64), knots[0], knots[-1])
    piece = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(steps) - 1)
    width = steps[piece]
    t = (at - knots[piece]) / width
    rest = 1.0 - t
    start = (1 + 2 * t) * rest * rest * values[piece] + t * rest * rest * width * slopes[piece]
    end = t * t * (3 - 2 * t) * values[piece + 1] - t * t * rest * width * slopes[piece + 1]
    return start + end


def _bent(x: np.ndarray, first: float, last: float) -> np.ndarray:
    """Positions between ``first`` and ``last`` as angles, so that an arch over them ends steeply."""
    share = np.clip((np.asarray(x, np.float64) - first) / (last - first) * 2 - 1, -1.0, 1.0)
    limit = np.sin(ROUNDNESS * np.pi / 2)
    return np.arcsin(share * limit)


def arch(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Like ``monotone``, for a curve that is steep at both ends: a lid or the edge of a lip."""
    first, last = float(knots[0]), float(knots[-1])
    return monotone(_bent(knots, first, last), values, _bent(at, first, last))
