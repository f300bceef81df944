"""Emotions over time: keys at given seconds, eased into one another, as text, as JSON and frame by frame.

    timeline := seconds blend ["ease" seconds] {";" seconds blend ["ease" seconds]}      one trailing ";" is allowed
    JSON     := [{"seconds": 1.5, "emotion": "happy:0.8", "ease": 0.4}, ...]  or  {"timeline": [...]}

A blend alone is a timeline too, with one key at 0 s. ``ease`` is optional, 0.5 s unless given.

Meaning (ours): a transition STARTS at its key's time and takes ``ease`` seconds, from the weights reached by then (a
transition the next key interrupts goes on from where it stands) to those of the key:

    w(t) = (1 - s) w_reached + s w_key,   s = p^2 (3 - 2p),   p = clip((t - seconds) / ease, 0, 1)

Ease 0 is a cut. Before the first key the face is neutral; a first key at 0 s holds from the start, without a
transition. Neutral is max(0, 1 - sum(w)) at every moment, so each frame is a valid emotion vector.

Shapes: F frames; emotion vectors (F, 8) in the order of ``LABELS``, masks (F, 6) in the order of ``EXPERTS``.

Raises ``EmotionError`` for text or JSON that does not follow the grammar, times that do not rise strictly, negative
or non-finite numbers, and everything ``condition`` refuses.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import EmotionError
from .condition import (
    EMOTIONS,
    EmotionCondition,
    experts_in_use,
    format_number,
    looks_like_number,
    parse_blend,
    parse_number,
)
from .vocabulary import quote

DEFAULT_EASE_SECONDS = 0.5

_EASE = re.compile(r"(?:^|\s)ease(?=\s|$)", re.IGNORECASE)
_FIELDS = ("seconds", "emotion", "ease")


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """From ``seconds`` on, turn to ``condition`` within ``ease`` seconds."""

    seconds: float
    condition: EmotionCondition
    ease: float = DEFAULT_EASE_SECONDS

    def __post_init__(self) -> None:
        for name in ("seconds", "ease"):
            value = float(getattr(self, name))
            if not math.isfinite(value) or value < 0:
                raise EmotionError(f"{name} is {format_number(value)}; give a finite number of seconds from 0 up")
            object.__setattr__(self, name, value + 0.0)  # turns -0.0 into 0.0


@dataclass(frozen=True, kw_only=True)
class EmotionTimeline:
    """One or more keys whose times rise strictly. It has no end: the last key holds."""

    keys: tuple[Keyframe, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise EmotionError("the timeline has no keys; write at least one, such as 0 happy")
        for number, (earlier, later) in enumerate(zip(self.keys, self.keys[1:], strict=False), start=2):
            if later.seconds <= earlier.seconds:
                raise EmotionError(
                    f"timeline key {number} of {len(self.keys)}: its seconds, {format_number(later.seconds)}, do not "
                    f"come after the {format_number(earlier.seconds)} of the key before; times must rise"
                )

    def sample(self, num_frames: int, fps: float) -> NDArray[np.float32]:
        """The emotion vector (F, 8) float32 at the centre of each frame, (i + 0.5) / fps seconds."""
        weights = self._weights(num_frames, fps)[:, : len(EMOTIONS)]
        neutral = np.maximum(0.0, 1.0 - weights.sum(axis=1, keepdims=True))
        return np.concatenate([neutral, weights], axis=1).astype(np.float32)

    def expert_mask(self, num_frames: int, fps: float) -> NDArray[np.bool_]:
        """Which experts each frame calls, (F, 6) bool: all that have any weight there."""
        return experts_in_use(self._weights(num_frames, fps)[:, : len(EMOTIONS)])

    @property
    def own_names(self) -> tuple[str, ...]:
        """@names of all experts of one's own that any key calls."""
        return tuple(sorted({name for key in self.keys for name in key.condition.own}))

    def sample_own(self, num_frames: int, fps: float) -> dict[str, NDArray[np.float32]]:
        """@name -> strength (F,) float32 at the centre of each frame."""
        weights = self._weights(num_frames, fps)[:, len(EMOTIONS) :].astype(np.float32)
        return dict(zip(self.own_names, weights.T, strict=True))

    def scaled(self, intensity: float) -> EmotionTimeline:
        """The same timeline with every key's intensity times ``intensity``; ``EmotionError`` if one is above 1.5."""
        return EmotionTimeline(keys=tuple(replace(key, condition=key.condition.scaled(intensity)) for key in self.keys))

    def to_text(self) -> str:
        """The timeline as text, which ``parse_emotion`` turns back into an equal one."""
        return "; ".join(
            f"{format_number(key.seconds)} {key.condition.to_text()} ease {format_number(key.ease)}"
            for key in self.keys
        )

    def to_json(self) -> str:
        """The timeline as a JSON list, which ``from_json`` and ``parse_emotion`` turn back into an equal one."""
        return json.dumps(
            [{"seconds": key.seconds, "emotion": key.condition.to_text(), "ease": key.ease} for key in self.keys]
        )

    @classmethod
    def from_json(cls, text: str) -> EmotionTimeline:
        """Read a JSON list of keys, or an object whose "timeline" is that list; errors name the index and the field."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EmotionError(f"the emotion JSON cannot be read: {quote(error, 120)}") from error
        if isinstance(data, dict):
            if set(data) != {"timeline"}:
                found = ", ".join(quote(name, 20) for name in list(data)[:4]) or "nothing"
                raise EmotionError(
                    f"an emotion JSON object has the one field 'timeline', a list of keys; found {found}"
                )
            data = data["timeline"]
        if not isinstance(data, list):
            raise EmotionError(f"timeline must be a JSON list of keys, found {_json_kind(data)}")
        return cls(keys=tuple(_key_from_json(entry, index) for index, entry in enumerate(data)))

    def _weights(self, num_frames: int, fps: float) -> NDArray[np.float64]:
        """The weights (F, 7 + own) of emotions other than neutral and of ``own_names``, at the frame centres."""
        if num_frames < 0:
            raise EmotionError(f"num_frames must be 0 or more, got {num_frames}")
        if not math.isfinite(fps) or fps <= 0:
            raise EmotionError(f"fps must be a finite number above 0, got {format_number(fps)}")
        key_times = np.array([key.seconds for key in self.keys])
        eases = np.array([key.ease for key in self.keys])
        own = self.own_names
        targets = np.stack(
            [
                [*key.condition.emotion_weights(), *(key.condition.own.get(name, 0.0) for name in own)]
                for key in self.keys
            ]
        )

        at_rest = targets[0] if key_times[0] == 0 else np.zeros_like(targets[0])
        reached = np.empty_like(targets)
        reached[0] = at_rest
        for index in range(1, len(self.keys)):
            before = slice(index - 1, index)
            elapsed = key_times[index : index + 1] - key_times[before]
            reached[index] = _ease(reached[before], targets[before], elapsed, eases[before])[0]

        times = (np.arange(num_frames) + 0.5) / float(fps)
        current = np.searchsorted(key_times, times, side="right") - 1  # -1 before the first key
        key = np.maximum(current, 0)
        weights = _ease(reached[key], targets[key], np.maximum(times - key_times[key], 0.0), eases[key])
        weights[current < 0] = at_rest
        return weights


def parse_emotion(text: str) -> EmotionTimeline:
    """The timeline that a blend, a timeline text or a JSON text describes."""
    stripped = text.strip()
    if stripped.startswith(("[", "{")):
        return EmotionTimeline.from_json(stripped)
    entries = stripped.split(";")
    if len(entries) > 1 and not entries[-1].strip():
        entries.pop()
    starts_with_number = bool(stripped) and looks_like_number(stripped.split(maxsplit=1)[0])
    if len(entries) > 1 or starts_with_number or _EASE.search(entries[0]):
        return EmotionTimeline(keys=tuple(_parse_key(entry, number) for number, entry in enumerate(entries, start=1)))
    return EmotionTimeline(keys=(Keyframe(seconds=0.0, condition=parse_blend(entries[0])),))


def _parse_key(entry: str, number: int) -> Keyframe:
    """One "seconds blend [ease seconds]"; an error says which key, counted from 1."""
    where = f"timeline key {number}"
    words = entry.split(maxsplit=1)
    if not words:
        raise EmotionError(f"{where} is empty: there is a stray ';'; write it like 0 neutral; 1.5 happy")
    blend = words[1] if len(words) > 1 else ""
    ease = DEFAULT_EASE_SECONDS
    try:
        seconds = parse_number(words[0], "the time")
        if found := _EASE.search(blend):
            tail = blend[found.end() :].split(maxsplit=1)
            blend = blend[: found.start()]
            if not tail:
                raise EmotionError("no number follows 'ease'; write it like 1.5 happy ease 0.4")
            ease = parse_number(tail[0], "the ease")
            if len(tail) > 1:
                raise EmotionError(f"{quote(tail[1])} follows the ease; separate keys with ';'")
        if not blend.strip():
            raise EmotionError(f"no emotion follows the time {quote(words[0])}; write it like 1.5 happy")
        return Keyframe(seconds=seconds, condition=parse_blend(blend), ease=ease)
    except EmotionError as error:
        raise EmotionError(f"{where}: {error}") from error


def _key_from_json(entry: object, index: int) -> Keyframe:
    """One JSON key; an error says which entry, counted from 0, and which field."""
    where = f"timeline[{index}]"
    if not isinstance(entry, dict):
        raise EmotionError(f"{where} must be an object with seconds, emotion and ease, found {_json_kind(entry)}")
    for name in entry:
        if name not in _FIELDS:
            raise EmotionError(f"{where}.{quote(name)}: no such field; a key has {', '.join(_FIELDS)}")
    for name in ("seconds", "emotion"):
        if name not in entry:
            raise EmotionError(f'{where}.{name} is missing; write it like {{"seconds": 1.5, "emotion": "happy"}}')
    seconds = _json_number(entry["seconds"], f"{where}.seconds")
    ease = _json_number(entry.get("ease", DEFAULT_EASE_SECONDS), f"{where}.ease")
    if not isinstance(entry["emotion"], str):
        raise EmotionError(f"{where}.emotion must be a blend in quotes, found {_json_kind(entry['emotion'])}")
    try:
        condition = parse_blend(entry["emotion"])
    except EmotionError as error:
        raise EmotionError(f"{where}.emotion: {error}") from error
    try:
        return Keyframe(seconds=seconds, condition=condition, ease=ease)
    except EmotionError as error:  # its message begins with the name of the field
        raise EmotionError(f"{where}.{error}") from error


def _json_number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EmotionError(f"{where} must be a number of seconds, found {_json_kind(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise EmotionError(f"{where} is too large a number of seconds") from error


def _json_kind(value: object) -> str:
    """What a JSON value is, in words, with its text where that helps."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def _ease(
    start: NDArray[np.float64], target: NDArray[np.float64], elapsed: NDArray[np.float64], ease: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Smoothstep from ``start`` to ``target``, both (N, K), ``elapsed`` of ``ease`` seconds (N,) into it."""
    progress = np.divide(elapsed, ease, out=np.ones_like(elapsed), where=elapsed < ease)
    share = np.minimum(progress * progress * (3.0 - 2.0 * progress), 1.0)[:, None]  # rounding may exceed 1
    return (1.0 - share) * start + share * target  # exact at both ends, so a finished expert's weight is exactly 0
