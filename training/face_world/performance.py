"""A performance: everything that moves in a clip, frame by frame, from speech and an emotion timeline.

Shapes: F video frames at ``fps``; action units (F, 21) in the order of ``rig.AU_NAMES``, visemes (F, 4), pose (F, 5),
gaze (F, 2), blink (F,), emotion vectors (F, 8) in the order of ``LABELS``.

Emotion to action units as everywhere (moee_core.motion.expression). Each person shows emotions with a gain of their
own. Speech moves the mouth; loudness raises the brows and nods the head; blinks fall mostly at
the edges of speech. Only a slow, small sway of the head and a few blinks cannot be known from the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moee_core.emotion.vocabulary import COMPOUNDS, EXPERTS, LABELS, TRAINED_COMPOUNDS
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import MAX_UNIT, expression
from training.face_world.identity import Identity
from training.face_world.render import render
from training.face_world.rig import AU_NAMES, FaceState
from training.face_world.visemes import energy_track, viseme_track

FPS = 25.0


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Ground truth of a clip; ``state(i)`` is what the renderer draws in frame i."""

    action_units: np.ndarray
    viseme: np.ndarray
    pose: np.ndarray
    gaze: np.ndarray
    blink: np.ndarray
    emotion: np.ndarray

    @property
    def num_frames(self) -> int:
        return len(self.viseme)

    def state(self, frame: int) -> FaceState:
        return FaceState(
            action_units=self.action_units[frame],
            viseme=self.viseme[frame],
            pose=self.pose[frame],
            gaze=self.gaze[frame],
            blink=float(self.blink[frame]),
        )

    def render(self, identity: Identity, size: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(F, size, size, 3) uint8."""
        stop = self.num_frames if stop is None else stop
        return np.stack([render(identity, self.state(i), size) for i in range(start, stop)])


def emotion_action_units(vectors: np.ndarray) -> np.ndarray:
    """(F, 8) emotion vectors -> (F, 21) action units of a person of average expressiveness; unit 43 stays 0."""
    units = expression(vectors)
    return np.pad(units, ((0, 0), (0, len(AU_NAMES) - units.shape[1])))


def smooth_noise(rng: np.random.Generator, frames: int, seconds: float, amplitude: float) -> np.ndarray:
    """(F,) slow wander with the given time scale and standard deviation, by cubic-like smoothing of random points."""
    step = seconds * FPS
    points = rng.normal(0.0, amplitude, int(frames / step) + 6)
    position = np.arange(frames) / step + rng.uniform(0.0, 1.0)
    low = position.astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - low))
    return points[low] * (1 - blend) + points[low + 1] * blend


def _blinks(rng: np.random.Generator, speaking: np.ndarray) -> np.ndarray:
    frames = len(speaking)
    blink = np.zeros(frames, np.float32)
    near = np.convolve(speaking.astype(float), np.ones(9), "same") > 0  # gaps inside words are not pauses
    edges = np.flatnonzero(np.diff(near.astype(int)))
    starts = [int(edge) + 1 for edge in edges if rng.random() < 0.5]
    starts += [i for i in range(frames) if rng.random() < 0.12 / FPS]
    for start in starts:
        for offset, value in enumerate((0.5, 1.0, 0.9, 0.4)):
            if 0 <= start + offset < frames:
                blink[start + offset] = max(blink[start + offset], value)
    return blink


def perform(
    rng: np.random.Generator,
    identity: Identity,
    emotion: np.ndarray,
    *,
    samples: np.ndarray | None,
    phonemes: tuple[tuple[str, float], ...] = (),
    base_pose: np.ndarray | None = None,
    blinking: bool = True,
    sway: float = 1.0,
    extra: np.ndarray | None = None,
) -> Performance:
    """One clip. ``emotion`` (F, 8) sets the length; ``samples`` 16 kHz mono, or None for a silent clip. ``sway``
    scales the slow movement of the head that no input tells. ``extra`` (F, 20) are action units beside the emotion;
    everybody shows those as strong as they are asked for."""
    frames = len(emotion)
    viseme = np.zeros((frames, 4), np.float32)
    energy = np.zeros(frames, np.float32)
    if samples is not None:
        track = viseme_track(phonemes, len(samples) / 16000, FPS)[:frames]
        viseme[: len(track)] = track
        energy = energy_track(samples, 16000, frames, FPS)
    units = emotion_action_units(emotion) * identity.expressiveness
    if extra is not None:
        units[:, : extra.shape[1]] += extra
    lively = np.convolve(np.pad(energy, 3, mode="edge"), np.hanning(9)[1:-1] / np.hanning(9).sum(), "valid")
    for name, amount in (("1", 0.18), ("2", 0.22)):
        units[:, AU_NAMES.index(name)] += amount * lively
    pose = np.tile(reference_pose(rng) if base_pose is None else base_pose, (frames, 1)).astype(np.float32)
    pose[:, 0] += sway * smooth_noise(rng, frames, 1.4, 0.008)
    pose[:, 1] += sway * smooth_noise(rng, frames, 1.6, 0.014)
    pose[:, 2] += sway * smooth_noise(rng, frames, 1.6, 0.008) - 0.035 * lively
    blink = _blinks(rng, energy > 0.08) if blinking else np.zeros(frames, np.float32)
    return Performance(
        action_units=np.clip(units, 0.0, MAX_UNIT).astype(np.float32),
        viseme=viseme,
        pose=pose,
        gaze=np.zeros((frames, 2), np.float32),
        blink=blink,
        emotion=emotion.astype(np.float32),
    )


def reference_pose(rng: np.random.Generator) -> np.ndarray:
    """(5,) how a person holds their head in the portrait: roll, yaw, pitch in radians, no shift."""
    return np.array([rng.normal(0, 0.03), rng.normal(0, 0.07), rng.normal(0, 0.03), 0.0, 0.0], np.float32)


def portrait_state(
    pose: np.ndarray, emotion: np.ndarray | None = None, gain: float = 1.0, opening: float = 0.0
) -> FaceState:
    """The reference picture: mouth shut and neutral, or with an emotion (8,) and an opening of the mouth."""
    units = np.zeros(len(AU_NAMES), np.float32)
    if emotion is not None:
        units = emotion_action_units(emotion[None])[0] * gain
    viseme = np.array([opening, 0.0, 0.3 if opening else 0.0, 0.0], np.float32)
    return FaceState(action_units=units, viseme=viseme, pose=pose, gaze=np.zeros(2, np.float32), blink=0.0)


def vector(weights: dict[str, float]) -> np.ndarray:
    """(8,) emotion vector: the named intensities, the rest neutral."""
    out = np.zeros(len(LABELS), np.float32)
    for name, weight in weights.items():
        out[LABELS.index(name)] = weight
    out[0] = max(0.0, 1.0 - float(out[1:].sum()))
    return out


def random_emotion(rng: np.random.Generator, kind: str) -> np.ndarray:
    """(8,) a random emotion of a kind: neutral, single, compound (the trained four), blend (any two), contempt."""
    intensity = float(rng.uniform(0.3, 1.25))
    if kind == "neutral":
        return vector({})
    if kind == "single":
        return vector({EXPERTS[rng.integers(len(EXPERTS))]: intensity})
    if kind == "contempt":
        return vector({"contempt": intensity})
    if kind == "compound":
        first, second = COMPOUNDS[TRAINED_COMPOUNDS[rng.integers(len(TRAINED_COMPOUNDS))]]
        return vector({first: intensity / 2, second: intensity / 2})
    if kind == "blend":
        first, second = rng.choice(len(EXPERTS), 2, replace=False)
        share = float(rng.uniform(0.15, 0.85))
        return vector({EXPERTS[first]: intensity * share, EXPERTS[second]: intensity * (1 - share)})
    raise ValueError(f"unknown kind of emotion {kind!r}")


SIDED = ("12", "14")
ODDS_OF_MORE = (0.5, 0.3, 0.2)


def random_units(rng: np.random.Generator) -> np.ndarray:
    """(20,) one to three action units, in the order of ``coefficients.UNITS``; 12 and 14 mostly on both sides."""
    out = np.zeros(len(UNITS), np.float32)
    numbers = sorted({unit.rstrip("LR") for unit in UNITS})
    for number in rng.choice(numbers, 1 + int(rng.choice(len(ODDS_OF_MORE), p=ODDS_OF_MORE)), replace=False):
        sides = ("L", "R") if rng.random() < 0.5 else (str(rng.choice(["L", "R"])),)
        for name in [number + side for side in sides] if number in SIDED else [str(number)]:
            out[UNITS.index(name)] = rng.uniform(0.25, 1.0)
        if number in SIDED and len(sides) == 2:
            out[UNITS.index(number + "R")] = out[UNITS.index(number + "L")]
    return out


def random_timeline(rng: np.random.Generator, frames: int, kind: str) -> np.ndarray:
    """(F, 8): mostly one emotion held; sometimes rising from neutral, falling to it, or passing into another one."""
    target = random_emotion(rng, kind)
    shape = rng.random()
    if kind == "neutral" or shape < 0.6:
        return np.tile(target, (frames, 1))
    other = random_emotion(rng, "single") if shape > 0.9 and kind != "single" else vector({})
    before, after = (other, target) if rng.random() < 0.65 else (target, other)
    start, length = rng.uniform(-0.2, 0.8) * frames, rng.uniform(6.0, 16.0)
    t = np.clip((np.arange(frames) - start) / length, 0.0, 1.0)[:, None]
    ease = t * t * (3 - 2 * t)
    return (before * (1 - ease) + after * ease).astype(np.float32)
