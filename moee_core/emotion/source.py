"""Where an emotion comes from: labels over time, action units, a text, the voice itself, or several of these at once.

One ``EmotionSource`` is what every EMOTION socket and ``--emotion…`` option holds. Each part is optional, and what the
parts say is shown together: action units are added to the emotion that labels, text and voice say; where several of
those three speak of an emotion, each has an equal say in who is called (the routing), and the network hears them all.

Shapes (legend for this file): F frames
    vectors (F, 8) float32 in the order of ``LABELS``; units (F, 20) float32 in the order of ``coefficients.UNITS``
    mood (F, 16) as in ``stand_ins.py``: what the voice says, None where it is not asked

Raises ``EmotionError`` for a source without any part, two parts of one kind, units of a wrong shape or out of 0..1.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import EmotionError
from .condition import EmotionCondition
from .free_text import Understanding, features, understand
from .signals import EmotionRows
from .timeline import EmotionTimeline, Keyframe
from .vocabulary import LABELS

PARTS = ("timeline", "text", "units", "voice")
SAYS = (("label", "timeline"), ("action_units", "units"), ("text", "text"), ("audio", "voice"))
"""Modality of the encoders, part of a source."""
MAX_STRENGTH = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitTrack:
    """Action units of a face, (T, 20) float32 in the order of ``coefficients.UNITS``: one row holds for ever, several
    are ``fps`` a second, and the last one holds."""

    values: NDArray[np.float32]
    fps: float = 25.0
    about: str = "action units"

    def __post_init__(self) -> None:
        values = np.array(self.values, np.float32)  # our own: the caller's may change
        if values.ndim != 2 or values.shape[1] != 20 or not len(values):
            raise EmotionError(f"action units over time are (T, 20) numbers, got {np.shape(self.values)}")
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > MAX_STRENGTH:
            raise EmotionError(
                f"action units go from 0 to {MAX_STRENGTH}, got {values.min():.3g} to {values.max():.3g}"
            )
        if not 1 <= self.fps <= 240:
            raise EmotionError(f"the rate of action units is 1 to 240 a second, got {self.fps:g}")
        object.__setattr__(self, "values", values)

    def sample(self, num_frames: int, fps: float) -> NDArray[np.float32]:
        """(num_frames, 20) at the middle of each frame, linearly between rows."""
        if len(self.values) == 1:
            return self.values.repeat(num_frames, axis=0)
        place = np.clip((np.arange(num_frames) + 0.5) / fps * self.fps - 0.5, 0, len(self.values) - 1)
        low = np.minimum(place.astype(int), len(self.values) - 2)
        part = (place - low).astype(np.float32)[:, None]
        return (self.values[low] * (1 - part) + self.values[low + 1] * part).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class EmotionSource:
    """See the module's docstring. ``voice``: the mood of the recording itself, 1 as it is heard, up to 1.5."""

    timeline: EmotionTimeline | None = None
    text: str = ""
    units: UnitTrack | None = None
    voice: float = 0.0

    def __post_init__(self) -> None:
        if not self.parts:
            raise EmotionError("this emotion has no source; connect labels, a text, action units or the voice")
        if not 0.0 <= self.voice <= MAX_STRENGTH:
            raise EmotionError(f"the mood of the voice counts 0 to {MAX_STRENGTH} times, got {self.voice:g}")
        if self.text:
            _ = self.understood

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of ``PARTS`` this emotion has."""
        return tuple(name for name in PARTS if getattr(self, name))

    @cached_property
    def understood(self) -> Understanding:
        """What the text says."""
        return understand(self.text)

    def joined(self, other: EmotionSource) -> EmotionSource:
        """Both at once. Action units of both are added up; any other part may come from one of them only."""
        both = [name for name in self.parts if name in other.parts and name != "units"]
        if both:
            raise EmotionError(f"both emotions have a {both[0]}; join different kinds of sources")
        given = {name: getattr(other, name) for name in other.parts if name != "units"}
        units = other.units or self.units
        if self.units is not None and other.units is not None:
            units = _added(self.units, other.units)
        return replace(self, **given, units=units)

    def vectors(self, num_frames: int, fps: float, mood: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(F, 8) the emotion said, neutral where only action units are given. A text about parts of the face alone says
        nothing of the emotion."""
        said = []
        if self.timeline is not None:
            said.append(self.timeline.sample(num_frames, fps))
        if self.text and (self.understood.condition.weights or not self.understood.units):
            said.append(self._condition_rows(num_frames))
        if self.voice and mood is not None:
            said.append(mood_vectors(mood, self.voice))
        if not said:
            neutral = np.zeros((num_frames, len(LABELS)), np.float32)
            neutral[:, 0] = 1
            return neutral
        return np.stack(said).mean(axis=0).astype(np.float32)

    def unit_rows(self, num_frames: int, fps: float) -> NDArray[np.float32]:
        """(F, 20) the units asked for beside the emotion: those given, and those that the text names."""
        rows = np.zeros((num_frames, 20), np.float32)
        if self.units is not None:
            rows += self.units.sample(num_frames, fps)
        if self.text:
            rows = np.maximum(rows, self._text_units().repeat(num_frames, axis=0))
        return np.clip(rows, 0.0, MAX_STRENGTH)

    def text_features(self, num_frames: int) -> NDArray[np.float32]:
        """(F, 49) what a text encoder of words takes: emotion vector and detector's units."""
        from ..motion.expression import detector_units

        row = features(self.understood)
        row[len(LABELS) :] = detector_units(self._text_units())[0]
        return row[None].repeat(num_frames, axis=0)

    def rows(self, num_frames: int, fps: float, mood: NDArray[np.float32] | None = None) -> EmotionRows:
        """Everything this source says of ``num_frames`` frames. ``mood`` (F, 16) is needed when the voice speaks.

        Raises ``EmotionError`` when it is needed and not given.
        """
        if self.voice and mood is None:
            raise EmotionError(
                "the mood of the voice is asked for, and nothing here can hear it; choose a model with an ear"
            )
        return EmotionRows(
            said=tuple(part for part, name in SAYS if getattr(self, name)),
            vectors=self.vectors(num_frames, fps, mood),
            labels=None if self.timeline is None else self.timeline.sample(num_frames, fps),
            units=self.unit_rows(num_frames, fps),
            text=self.text_features(num_frames) if self.text else None,
            mood=None if not self.voice or mood is None else stronger(mood, self.voice),
            own={} if self.timeline is None else self.timeline.sample_own(num_frames, fps),
        )

    def explain(self) -> str:
        """One line for the user."""
        said = []
        if self.timeline is not None:
            said.append(self.timeline.to_text())
        if self.text:
            said.append(self.understood.explain())
        if self.units is not None:
            said.append(self.units.about)
        if self.voice:
            said.append("the mood of the voice" + (f" x {self.voice:g}" if self.voice != 1 else ""))
        return "; and ".join(said)

    def _condition_rows(self, num_frames: int) -> NDArray[np.float32]:
        return self.understood.condition.vector()[None].repeat(num_frames, axis=0)

    def _text_units(self) -> NDArray[np.float32]:
        """(1, 20) what the text names beyond what its emotion shows: "beaming with joy" is one smile, not two."""
        from ..motion.expression import expression, face_units
        from .action_units import action_unit_vector

        named = face_units(action_unit_vector(dict(self.understood.units))[None])
        return np.maximum(named - expression(self._condition_rows(1)), 0).astype(np.float32)


def as_source(emotion: EmotionSource | EmotionTimeline | EmotionCondition) -> EmotionSource:
    """Any way to say an emotion as a source."""
    if isinstance(emotion, EmotionSource):
        return emotion
    if isinstance(emotion, EmotionCondition):
        emotion = EmotionTimeline(keys=(Keyframe(seconds=0.0, condition=emotion),))
    return EmotionSource(timeline=emotion)


def stronger(mood_F16: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """The mood with its levels times ``strength``."""
    out = mood_F16.astype(np.float32, copy=True)
    out[:, len(LABELS) :] *= strength
    return out


def mood_vectors(mood_F16: NDArray[np.float32], strength: float = 1.0) -> NDArray[np.float32]:
    """(F, 8) emotion vectors of a mood: each emotion as probable and as strong as it is heard."""
    weights = np.clip(mood_F16[:, len(LABELS) + 1 :] * strength, 0, MAX_STRENGTH)
    neutral = np.maximum(0.0, 1.0 - weights.sum(axis=1, keepdims=True))
    return np.concatenate([neutral, weights], axis=1).astype(np.float32)


def _added(first: UnitTrack, second: UnitTrack) -> UnitTrack:
    fps = max(first.fps, second.fps)
    rows = max(round(len(track.values) * fps / track.fps) if len(track.values) > 1 else 1 for track in (first, second))
    total = first.sample(rows, fps) + second.sample(rows, fps)
    return UnitTrack(values=np.clip(total, 0, MAX_STRENGTH), fps=fps, about=f"{first.about} and {second.about}")
