"""One emotion, or a blend of several, with its intensity; and the text that says so.

    blend  := label [(":" | " ") weight] {"+" label [(":" | " ") weight]}
    label  := any name of ``vocabulary``, compounds and aliases included, or the @name of an expert of one's own

Meaning (ours), for weights w of the labels other than neutral:

    intensity = sum(w)            0 to 1.5; 1 is the emotion as trained
    mix       = w / sum(w)
    neutral   = max(0, 1 - intensity)      whatever is left

* A compound stands for its two labels with half its weight each.
* ``neutral`` may be written, but its weight never counts: the rest is neutral anyway. Alone it means intensity 0.
* Without weights every label of the blend gets 1/number: "happy" is happy:1, "happy + surprised" is 0.5 of each, and
  "happy + neutral" is happy at half intensity. Either every label has a weight or none has.
* An expert of one's own adds to what the rest makes: of it the emotion vector knows nothing.

Raises ``EmotionError`` for empty text, unknown or repeated labels, a weight that is no finite number from 0 up, and
weights that add up to more than 1.5.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import EmotionError
from .vocabulary import COMPOUNDS, EXPERTS, LABELS, NEUTRAL, OWN, quote, resolve_label

MAX_INTENSITY = 1.5
_ROUNDING = 1e-9  # weights such as 0.3 + 0.6 + 0.6 add up to a hair above 1.5

EMOTIONS = LABELS[1:]  # everything but neutral: the seven weights a condition holds

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)


def parse_number(text: str, name: str) -> float:
    """``text`` as a float, which may be NaN or infinite; ``EmotionError`` that calls it ``name`` if it is no number."""
    if not _NUMBER.fullmatch(text):
        raise EmotionError(f"{name} {quote(text)} is not a number; write it like 0.8")
    return float(text)


def looks_like_number(word: str) -> bool:
    """Whether a word was meant as a number, even a mistyped one: "0,8" and "80%" do, "surprised" does not."""
    return word[0] in "0123456789.-" or _NUMBER.fullmatch(word) is not None


def format_number(value: float) -> str:
    """The shortest text that ``float`` reads back as exactly ``value``: "1", "0.25"."""
    return repr(float(value)).removesuffix(".0")


def experts_in_use(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which experts some emotion weights (..., 7), in the order of ``EMOTIONS``, need: (..., 6) bool.

    Contempt has no expert of its own, so any of it opens all six.
    """
    own, contempt = weights[..., : len(EXPERTS)] > 0, weights[..., len(EXPERTS) :] > 0
    return own | contempt


@dataclass(frozen=True, kw_only=True)
class EmotionCondition:
    """A blend of emotions at some intensity; without weights it is neutral.

    ``weights`` may name labels, aliases, compounds and experts of one's own in any order. It is stored in canonical
    form: compounds expanded into their labels, equal labels merged, neutral and zero weights dropped, in the order of
    ``LABELS`` and then own names by the alphabet. Two conditions that mean the same therefore compare equal.
    """

    weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        parts: dict[str, list[float]] = {label: [] for label in LABELS}
        seen: set[str] = set()
        for text, weight in self.weights:
            name = resolve_label(text)
            if name in seen:
                raise EmotionError(
                    f"{name} appears twice in one blend (here as {quote(text)}); write each emotion once and add up "
                    "its weights"
                )
            seen.add(name)
            if not math.isfinite(weight) or weight < 0:
                raise EmotionError(
                    f"the weight of {name} is {format_number(weight)}; give a finite number from 0 to {MAX_INTENSITY}"
                )
            labels = COMPOUNDS.get(name, (name,))
            for label in labels:
                parts.setdefault(label, []).append(float(weight) / len(labels))
        # fsum: the result does not depend on the order in which the terms were written
        order = (*EMOTIONS, *sorted(name for name in parts if name.startswith(OWN)))
        merged = ((label, math.fsum(parts[label])) for label in order)
        object.__setattr__(self, "weights", tuple((label, weight) for label, weight in merged if weight > 0))
        total = math.fsum(weight for _, weight in self.weights)
        if total > MAX_INTENSITY + _ROUNDING:
            raise EmotionError(
                f"the weights of a blend may add up to {MAX_INTENSITY} at most, these add up to {total:.6g}; "
                "make them smaller"
            )

    @property
    def intensity(self) -> float:
        """How strongly the emotions show, 0 (neutral) to 1.5; 1 is as trained."""
        return min(math.fsum(weight for _, weight in self.weights), MAX_INTENSITY)

    @property
    def mix(self) -> tuple[tuple[str, float], ...]:
        """The share of each emotion other than neutral, adding up to 1; empty when neutral."""
        total = math.fsum(weight for _, weight in self.weights)
        return tuple((label, weight / total) for label, weight in self.weights)

    @property
    def neutral(self) -> float:
        """What the emotions of ``LABELS`` leave to the neutral face, 0 to 1."""
        return max(0.0, 1.0 - math.fsum(weight for name, weight in self.weights if not name.startswith(OWN)))

    @property
    def own(self) -> dict[str, float]:
        """@name -> weight of the experts of one's own."""
        return {name: weight for name, weight in self.weights if name.startswith(OWN)}

    def emotion_weights(self) -> NDArray[np.float64]:
        """The weights (7,) float64 in the order of ``EMOTIONS``, that is, without neutral."""
        weights = dict(self.weights)
        return np.array([weights.get(label, 0.0) for label in EMOTIONS], dtype=np.float64)

    def vector(self) -> NDArray[np.float32]:
        """The emotion vector (8,) float32 in the order of ``LABELS``; it adds up to 1, or more beyond intensity 1."""
        return np.concatenate([[self.neutral], self.emotion_weights()]).astype(np.float32)

    def expert_mask(self) -> NDArray[np.bool_]:
        """Which experts this condition calls (6,) bool in the order of ``EXPERTS``; neutral calls none."""
        return experts_in_use(self.emotion_weights())

    def scaled(self, factor: float) -> EmotionCondition:
        """The same mix at ``factor`` times the intensity; ``EmotionError`` if that is above 1.5."""
        if not math.isfinite(factor) or factor < 0:
            raise EmotionError(f"an emotion can be scaled by a finite number from 0 up, got {format_number(factor)}")
        return EmotionCondition(weights=tuple((label, weight * factor) for label, weight in self.weights))

    def to_text(self) -> str:
        """The blend as text, which ``parse_blend`` turns back into an equal condition."""
        if not self.weights:
            return NEUTRAL
        if len(self.weights) == 1 and self.weights[0][1] == 1.0:
            return self.weights[0][0]
        return " + ".join(f"{label}:{format_number(weight)}" for label, weight in self.weights)


def parse_blend(text: str) -> EmotionCondition:
    """The condition that a blend such as "happy", "happily surprised 0.8" or "happy:0.6 + sad:0.2" describes."""
    if not text.strip():
        raise EmotionError("the emotion is empty; write a label such as happy, or a blend such as happy:0.6 + sad:0.4")
    terms = [term.strip() for term in text.split("+")]
    if "" in terms:
        raise EmotionError(f"a '+' in {quote(text.strip())} has no emotion on one side; write it like happy + sad")
    parsed = [_parse_term(term) for term in terms]
    weights = [weight for _, weight in parsed if weight is not None]
    if weights and len(weights) < len(parsed):
        bare = next(label for label, weight in parsed if weight is None)
        raise EmotionError(
            f"{quote(text.strip())} gives some emotions a weight and others none, such as {bare}; "
            "write a weight for all or for none"
        )
    weights = weights or [1.0 / len(parsed)] * len(parsed)
    labels = (label for label, _ in parsed)
    return EmotionCondition(weights=tuple(zip(labels, weights, strict=True)))


def _parse_term(term: str) -> tuple[str, float | None]:
    """One "label", "label:weight" or "label weight" as (canonical name, weight or None)."""
    label, colon, number = (part.strip() for part in term.partition(":"))
    if not colon:
        words = term.split()
        if looks_like_number(words[-1]):
            label, number = " ".join(words[:-1]), words[-1]
    if not label:
        raise EmotionError(f"{quote(term)} has a weight but no emotion; write it like happy:0.8")
    name = resolve_label(label)
    if colon and not number:
        raise EmotionError(f"nothing follows the ':' in {quote(term)}; write it like {name}:0.8")
    return name, parse_number(number, f"the weight of {name},") if number else None
