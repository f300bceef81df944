"""From phoneme times to what the mouth shows: four curves, and the loudness that goes with them.

Shapes (legend for this file):
    F video frames, S samples, axes in the order of `VISEME_AXES`

    open   0 closed .. 1 wide open jaw
    width -1 rounded .. 1 spread lips
    teeth  0 hidden .. 1 teeth showing
    press  0 .. 1 lips pressed together (p, b, m)

Equation (ours): each phone holds its target; the curves are smoothed by a Gaussian of 28 ms (co-articulation); every
bilabial then adds a closure that surely reaches 1 however short the phone, and closed lips suppress the other axes.

Raises ``ValueError`` for an unknown phone, phone ends that do not rise, or a length or rate that is not positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

VISEME_AXES: tuple[str, ...] = ("open", "width", "teeth", "press")
CURVE_RATE = 200
"""Points a second of `viseme_curves`."""

SMOOTHING_SECONDS = 0.028
CLOSURE_HOLD_SECONDS = 0.012
"""Half of the time for which lips stay shut at least; with it a 25 fps frame always falls on a nearly full closure."""

Target = tuple[float, float, float, float]

_SILENCE: Target = (0.0, 0.0, 0.0, 0.0)
_LIPS_SHUT: Target = (0.0, 0.0, 0.0, 1.0)
_LIP_ON_TEETH: Target = (0.10, 0.12, 0.95, 0.0)
_TONGUE_BETWEEN: Target = (0.24, 0.12, 0.75, 0.0)
_TONGUE_RIDGE: Target = (0.22, 0.14, 0.70, 0.0)
_TONGUE_SIDE: Target = (0.32, 0.10, 0.55, 0.0)
_TONGUE_BACK: Target = (0.30, 0.05, 0.45, 0.0)
_HISS: Target = (0.12, 0.40, 1.00, 0.0)
_HUSH: Target = (0.20, -0.60, 0.90, 0.0)
_R: Target = (0.26, -0.45, 0.40, 0.0)
_W: Target = (0.16, -1.00, 0.05, 0.0)
_BREATH: Target = (0.40, 0.05, 0.35, 0.0)
_AH_WIDE: Target = (1.00, 0.05, 0.45, 0.0)
_AE: Target = (0.85, 0.35, 0.60, 0.0)
_AH_SHORT: Target = (0.70, 0.05, 0.40, 0.0)
_AO: Target = (0.75, -0.55, 0.15, 0.0)
_EH: Target = (0.60, 0.40, 0.60, 0.0)
_ER: Target = (0.42, -0.35, 0.35, 0.0)
_IH: Target = (0.42, 0.50, 0.65, 0.0)
_IY: Target = (0.34, 0.80, 0.80, 0.0)
_OH: Target = (0.60, -0.75, 0.10, 0.0)
_UH: Target = (0.40, -0.65, 0.15, 0.0)
_UW: Target = (0.30, -1.00, 0.05, 0.0)
_SCHWA: Target = (0.45, 0.05, 0.40, 0.0)

VISEME_OF: dict[str, tuple[Target, ...]] = {
    "pau": (_SILENCE,),
    "p": (_LIPS_SHUT,),
    "b": (_LIPS_SHUT,),
    "m": (_LIPS_SHUT,),
    "f": (_LIP_ON_TEETH,),
    "v": (_LIP_ON_TEETH,),
    "th": (_TONGUE_BETWEEN,),
    "dh": (_TONGUE_BETWEEN,),
    "t": (_TONGUE_RIDGE,),
    "d": (_TONGUE_RIDGE,),
    "n": (_TONGUE_RIDGE,),
    "l": (_TONGUE_SIDE,),
    "k": (_TONGUE_BACK,),
    "g": (_TONGUE_BACK,),
    "ng": (_TONGUE_BACK,),
    "s": (_HISS,),
    "z": (_HISS,),
    "sh": (_HUSH,),
    "zh": (_HUSH,),
    "ch": (_HUSH,),
    "jh": (_HUSH,),
    "r": (_R,),
    "w": (_W,),
    "y": (_IY,),
    "hh": (_BREATH,),
    "aa": (_AH_WIDE,),
    "ae": (_AE,),
    "ah": (_AH_SHORT,),
    "ao": (_AO,),
    "aw": (_AH_WIDE, _UW),
    "ax": (_SCHWA,),
    "ay": (_AH_WIDE, _IH),
    "eh": (_EH,),
    "er": (_ER,),
    "ey": (_EH, _IY),
    "ih": (_IH,),
    "iy": (_IY,),
    "ow": (_OH, _UW),
    "oy": (_AO, _IH),
    "uh": (_UH,),
    "uw": (_UW,),
}
"""Targets of each of flite's English phones in the order of `VISEME_AXES`; a diphthong moves from one to another."""

VOWELS: frozenset[str] = frozenset(
    ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
)
BILABIALS: frozenset[str] = frozenset("pbm")


def viseme_track(phonemes: Sequence[tuple[str, float]], duration: float, fps: float = 25.0) -> np.ndarray:
    """The mouth at the centre of each frame: (ceil(duration * fps), 4) float32, frame i at (i + 0.5) / fps seconds.

    ``phonemes`` are (name, end in seconds) pairs; time after the last is silence, and phones beyond
    ``duration`` are cut off.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be positive, got {fps}")
    curves = viseme_curves(phonemes, duration)
    num_frames = math.ceil(round(duration * fps, 6))  # rounded, so that 1.2 s * 25 is 30 frames and not 31
    positions = (np.arange(num_frames) + 0.5) / fps * CURVE_RATE
    points = np.arange(len(curves))
    return np.stack([np.interp(positions, points, axis) for axis in curves.T], axis=1).astype(np.float32)


def viseme_curves(phonemes: Sequence[tuple[str, float]], duration: float) -> np.ndarray:
    """The same curves before they are sampled at frames: (N, 4) float64, point n at n / `CURVE_RATE` seconds."""
    if not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be positive seconds, got {duration}")
    seconds = np.arange(math.ceil(duration * CURVE_RATE) + 1) / CURVE_RATE
    targets = np.zeros((len(seconds), len(VISEME_AXES)))
    closure = np.zeros(len(seconds))
    begin = 0.0
    for name, end in phonemes:
        if name not in VISEME_OF:
            raise ValueError(f"unknown phone {name[:20]!r} ending at {end} s; known phones are the keys of VISEME_OF")
        if not end > begin:
            raise ValueError(f"phone {name!r} ends at {end} s but begins at {begin} s; ends must rise")
        shapes = VISEME_OF[name]
        bounds = np.linspace(begin, end, len(shapes) + 1)
        for shape, first, last in zip(shapes, bounds[:-1], bounds[1:], strict=True):
            targets[(seconds >= first) & (seconds < last)] = shape
        if name in BILABIALS:
            closure = np.maximum(closure, _closure(seconds, begin, end))
        begin = end
    curves = _smooth(targets)
    curves[:, 3] = np.maximum(curves[:, 3], closure)
    # Lips that touch cannot be apart: suppression sets in at 0.4 of a closure and is complete at 0.8.
    shut = np.clip((curves[:, 3] - 0.4) / 0.4, 0.0, 1.0)
    curves[:, :3] *= 1.0 - (shut * shut * (3.0 - 2.0 * shut))[:, None]
    return curves


def energy_track(samples: np.ndarray, sample_rate: int, num_frames: int, fps: float = 25.0) -> np.ndarray:
    """Loudness at the centre of each frame: (F,) float32 in 0..1, RMS over two frames under a Hann window.

    1 is the 95th percentile of the recording; silence throughout gives zeros. Frames past the end are silent.
    Raises ``ValueError`` when ``samples`` is not one-dimensional or a rate or ``num_frames`` is not positive.
    """
    if samples.ndim != 1:
        raise ValueError(f"samples must be (S,), got {tuple(samples.shape)}")
    if sample_rate <= 0 or num_frames <= 0 or not fps > 0:
        raise ValueError(f"sample_rate, num_frames and fps must be positive, got {sample_rate}, {num_frames}, {fps}")
    reach = max(1, round(sample_rate / fps))
    centres = np.round((np.arange(num_frames) + 0.5) * sample_rate / fps).astype(int)
    needed = int(centres[-1]) + reach + 1
    power = np.zeros(reach + max(needed, len(samples)))
    power[reach : reach + len(samples)] = np.square(samples, dtype=np.float64)
    window = np.hanning(2 * reach + 1)
    window /= window.sum()
    # power begins one reach early, so the window around a centre starts at the centre's own number
    loudness = np.sqrt(power[centres[:, None] + np.arange(len(window))] @ window)
    ceiling = float(np.percentile(loudness, 95))
    if ceiling <= 0.0:
        ceiling = float(loudness.max()) or 1.0
    return np.clip(loudness / ceiling, 0.0, 1.0).astype(np.float32)


def _closure(seconds: np.ndarray, begin: float, end: float) -> np.ndarray:
    """Lips shut around the middle of a bilabial: 1 on a plateau, Gaussian flanks of half the smoothing's width."""
    plateau = max((end - begin) / 2 - SMOOTHING_SECONDS, CLOSURE_HOLD_SECONDS)
    distance = np.maximum(np.abs(seconds - (begin + end) / 2) - plateau, 0.0)
    return np.exp(-0.5 * np.square(distance / (SMOOTHING_SECONDS / 2)))


def _smooth(curves: np.ndarray) -> np.ndarray:
    """Gaussian over time, ends extended; (N, 4) to (N, 4)."""
    sigma = SMOOTHING_SECONDS * CURVE_RATE
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    kernel /= kernel.sum()
    padded = np.pad(curves, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(axis, kernel, mode="valid") for axis in padded.T], axis=1)
