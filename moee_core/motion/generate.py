"""Motion from speech without learning: the heard mouth, prototypes of emotion, blinks, head and eyes as processes.

Shapes (legend for this file): F video frames at ``fps``; the result is a ``Motion`` in the space ``FACE``.

    recording --> heard mouth x mouth amplitude, shut where nothing is said
    emotion   --> emotion vectors --> action units (expression.py) x expressiveness
    loudness  --> brows and nods
    seed      --> blinks, sway of the head, fixations of the eyes

The processes (ours): blinks come at the edges of speech and otherwise like a Poisson process with a refractory time of
0.7 s; a lid closes in 0.08 s, stays 0.04 s and opens in 0.16 s. The head sways by smoothed noise and nods with
loudness. The eyes hold a point for 0.6 to 2.6 s and jump. Everything is drawn from ``seed``, by time and not by frame,
so that another rate shows the same movement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..audio.emotion_ear import EmotionEar
from ..audio.encoder import SpeechEncoder
from ..audio.read import Waveform, let_go, resample_mono
from ..emotion.source import EmotionSource, as_source
from ..emotion.stand_ins import mood
from ..emotion.timeline import EmotionTimeline
from ..video.frames import num_frames
from .coefficients import FACE, MOUTH, Motion, MotionError
from .expression import expression
from .mouth import FPS, heard_mouth, loudness, speaking

_NOISE_SEED, _BLINK_SEED, _GAZE_SEED = 1, 2, 3
_SWAY = {"roll": (1.4, 0.020), "yaw": (1.9, 0.045), "pitch": (1.6, 0.022), "x": (2.3, 0.012), "y": (2.1, 0.008)}
"""Pose coefficient -> (seconds between turning points, standard deviation)."""
_NOD = 0.05
_BROWS = {"AU1": 0.18, "AU2": 0.22}
_CLOSING, _SHUT, _OPENING, _REFRACTORY = 0.08, 0.04, 0.16, 0.7


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """``mouth_amplitude``, ``head_motion``, ``gaze_motion`` and ``expressiveness`` are factors, 0 to 2 and 1 as made;
    ``blinks_per_minute`` is 0 to 60."""

    seed: int = 0
    mouth_amplitude: float = 1.0
    expressiveness: float = 1.0
    head_motion: float = 1.0
    gaze_motion: float = 1.0
    blinks_per_minute: float = 16.0

    def __post_init__(self) -> None:
        for name in ("mouth_amplitude", "expressiveness", "head_motion", "gaze_motion"):
            if not 0.0 <= getattr(self, name) <= 2.0:  # also refuses NaN
                raise ValueError(f"{name} must be between 0 and 2, got {getattr(self, name):g}")
        if not 0.0 <= self.blinks_per_minute <= 60.0:
            raise ValueError(f"blinks_per_minute must be between 0 and 60, got {self.blinks_per_minute:g}")


def speech_motion(
    ear: SpeechEncoder,
    waveform: Waveform,
    emotion: EmotionSource | EmotionTimeline,
    *,
    fps: float = FPS,
    settings: MotionSettings = MotionSettings(),
    mood_ear: EmotionEar | None = None,
) -> Motion:
    """The motion of a face that says ``waveform`` with an emotion: ceil(seconds * fps) frames. ``mood_ear`` hears the
    mood of the voice where that is asked for. Action units beside the emotion are as strong as they are asked for.

    Raises ``MotionError`` for a rate outside 1..120, ``MediaError`` for a recording without samples, ``EmotionError``
    for a mood that nobody hears.
    """
    if not 1 <= fps <= 120:
        raise MotionError(f"the motion's rate must be 1 to 120 frames a second, got {fps}")
    samples = resample_mono(waveform, in_file=True)
    count = num_frames(waveform.samples.shape[1], waveform.sample_rate, fps)
    heard_frames = num_frames(waveform.samples.shape[1], waveform.sample_rate, FPS)
    mouth = heard_mouth(ear, samples, heard_frames)
    level = loudness(samples, heard_frames)
    source = as_source(emotion)
    heard = None
    if source.voice and mood_ear is not None:
        heard = mood(mood_ear, torch.from_numpy(samples), count, fps).numpy()
    rows = source.rows(count, fps, heard)
    rows.refuse_own("the instant renderer")
    let_go(samples)
    said = speaking(level)
    mouth = mouth * said[:, None] * np.array([settings.mouth_amplitude] * 3 + [1.0], np.float32)
    lively = _lively(level, said)

    values = np.zeros((count, FACE.size), np.float32)
    values[:, [FACE.index[name] for name in MOUTH]] = _at_rate(mouth, count, fps)
    units = expression(rows.vectors) * settings.expressiveness + rows.units
    values[:, : units.shape[1]] = units
    lively, said = _at_rate(lively[:, None], count, fps)[:, 0], _at_rate(said[:, None], count, fps)[:, 0]
    for name, amount in _BROWS.items():
        values[:, FACE.index[name]] += amount * lively * settings.expressiveness
    seconds = (np.arange(count) + 0.5) / fps
    for i, (name, (step, amount)) in enumerate(_SWAY.items()):
        rng = np.random.default_rng([settings.seed, _NOISE_SEED, i])
        values[:, FACE.index[name]] = settings.head_motion * amount * _wander(rng, seconds, step)
    values[:, FACE.index["pitch"]] -= settings.head_motion * _NOD * lively
    lids = blinks(seconds, said, settings.blinks_per_minute, settings.seed)
    values[:, [FACE.index["lidL"], FACE.index["lidR"]]] = lids[:, None]
    gaze = _fixations(seconds, settings.seed) * settings.gaze_motion
    values[:, [FACE.index["gaze_x"], FACE.index["gaze_y"]]] = gaze
    return Motion(values=values, fps=fps, about="from speech, without learning")


def _at_rate(curves_TD: np.ndarray, count: int, fps: float) -> np.ndarray:
    """Curves at ``FPS`` read at the centres of ``count`` frames at ``fps``."""
    at = (np.arange(count) + 0.5) / fps * FPS - 0.5
    source = np.arange(len(curves_TD))
    return np.stack([np.interp(at, source, curve) for curve in curves_TD.T], axis=1).astype(np.float32)


def _lively(level_T: np.ndarray, said_T: np.ndarray) -> np.ndarray:
    """(T,) 0..1: loudness against its 95th percentile, smoothed over a third of a second."""
    loud = float(np.percentile(level_T, 95))
    if loud <= 1e-4:
        return np.zeros_like(level_T)
    window = np.hanning(9)[1:-1]
    smooth = np.convolve(np.pad(level_T, 3, mode="edge"), window / window.sum(), "valid")
    return (np.clip(smooth / loud, 0.0, 1.0) * said_T).astype(np.float32)


def _wander(rng: np.random.Generator, seconds: np.ndarray, step: float) -> np.ndarray:
    """(F,) of unit variance: random points ``step`` seconds apart, eased into one another."""
    points = rng.normal(0.0, 1.0, int(seconds[-1] / step) + 3)
    position = seconds / step
    low = position.astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - low))
    return points[low] * (1 - blend) + points[low + 1] * blend


def blinks(seconds: np.ndarray, said: np.ndarray, per_minute: float, seed: int) -> np.ndarray:
    """(F,) 0 open .. 1 shut. Half of the edges of speech draw a blink, the rest come at random.

    ``per_minute`` is the mean rate; ``seconds`` (F,) are the frames' times, ``said`` (F,) tells speech from silence.
    """
    if per_minute <= 0:
        return np.zeros(len(seconds), np.float32)
    rng = np.random.default_rng([seed, _BLINK_SEED])
    duration = float(seconds[-1])
    edges = seconds[1:][np.diff((said > 0.5).astype(int)) != 0]
    wanted = per_minute / 60.0 * duration
    chosen = [float(t) for t in edges if rng.random() < min(0.5, wanted / max(1, len(edges)))]
    count = rng.poisson(max(0.0, wanted - len(chosen)))
    candidates = sorted(chosen + rng.uniform(0.0, duration, count).tolist())
    starts: list[float] = []
    for start in candidates:
        if not starts or start - starts[-1] >= _REFRACTORY:
            starts.append(start)
    lids = np.zeros(len(seconds), np.float32)
    for start in starts:
        first, last = np.searchsorted(seconds, [start, start + _CLOSING + _SHUT + _OPENING])
        after = seconds[first:last] - start
        closing = np.clip(after / _CLOSING, 0.0, 1.0)
        opening = np.clip((after - _CLOSING - _SHUT) / _OPENING, 0.0, 1.0)
        lids[first:last] = np.maximum(lids[first:last], _ease(closing) * (1.0 - _ease(opening)))
    return lids


def _ease(p: np.ndarray) -> np.ndarray:
    return p * p * (3.0 - 2.0 * p)


def _fixations(seconds: np.ndarray, seed: int) -> np.ndarray:
    """(F, 2) gaze: a point held for a while, then a jump of 0.04 s to the next; mostly at the viewer."""
    rng = np.random.default_rng([seed, _GAZE_SEED])
    count = math.ceil(float(seconds[-1]) / 0.6) + 2
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.6, 2.6, count))])
    points = rng.normal(0.0, (0.12, 0.06), (len(times), 2)) * (rng.random((len(times), 1)) < 0.6)
    index = np.searchsorted(times, seconds, side="right") - 1
    part = _ease(np.clip((seconds - times[index]) / 0.04, 0.0, 1.0))[:, None]
    before = points[np.maximum(index - 1, 0)]
    return (before * (1 - part) + points[index] * part).astype(np.float32)
