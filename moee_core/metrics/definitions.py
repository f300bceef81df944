"""What is measured, as plain functions of arrays.

Shapes: F frames; opening (F,), frames (F, H, W, 3) uint8, box x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

import numpy as np


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where either does not vary."""
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def gain(reading: np.ndarray, truth: np.ndarray) -> float:
    """Least-squares slope of a reading on the truth: 1 = as strong as the truth, 0 = unrelated."""
    centred = truth - truth.mean()
    return float((reading * centred).sum() / max(float((centred**2).sum()), 1e-9))


def shifted_correlation(reading: np.ndarray, truth: np.ndarray, least: int = 8) -> float:
    """The control for ``correlation``: mean over all rotations of the truth in time by at least ``least`` frames.

    Sound that moves the mouth at another time explains nothing of it. A clip this short still gives a slightly
    negative value (about -0.05), because all rotations together, the right one included, add up to nothing.
    """
    shifts = range(least, len(truth) - least + 1)
    return float(np.mean([correlation(reading, np.roll(truth, shift)) for shift in shifts])) if len(shifts) else 0.0


def flicker(frames: np.ndarray, box: np.ndarray) -> float:
    """Mean |x(t+1) - 2 x(t) + x(t-1)| inside the box, 0..255."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    x = frames[:, max(0, y0) : y1, max(0, x0) : x1].astype(np.float32)
    return float(np.abs(x[2:] - 2 * x[1:-1] + x[:-2]).mean())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties by mean rank; 0 where either does not vary."""

    def ranks(values: np.ndarray) -> np.ndarray:
        order = np.argsort(values, kind="stable")
        out = np.empty(len(values))
        out[order] = np.arange(len(values))
        for value in np.unique(values):
            same = values == value
            out[same] = out[same].mean()
        return out

    return correlation(ranks(a), ranks(b))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of uint8 pictures, dB."""
    error = float(((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean())
    return 99.0 if error < 1e-9 else float(10 * np.log10(255**2 / error))
