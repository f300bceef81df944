"""What Emotion-to-Latents and the routing are given for some frames: one or several modalities of one emotion.

``EmotionRows`` is that as numbers, before any network; ``EmotionSignals`` is what the networks take.

Shapes (legend for this file): N frames
    inputs       {modality of ``encoders.MODALITIES``: (N, K)}, any non-empty subset
    vectors_N8   the emotion as far as it is known, in the order of ``LABELS``: which experts are called
    units_N20    action units of a face beside that emotion, in the order of ``coefficients.UNITS``, or None
    own          {@name of an expert of one's own: strength (N,)}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EmotionError

Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class EmotionRows:
    """What is said of F frames: ``said`` names the modalities, in the order of ``MODALITIES``.

    ``vectors`` (F, 8) is the emotion of all of them together, ``units`` (F, 20) what is asked for beside it; ``labels``
    (F, 8), ``text`` (F, 49) and ``mood`` (F, 16) belong to one modality each and are None without it. ``sentence`` and
    ``voice`` (F, K) are what frozen encoders give instead of the latter two. ``own``: @name of an expert of one's
    own -> strength (F,).
    """

    said: tuple[str, ...]
    vectors: Rows
    units: Rows
    labels: Rows | None = None
    text: Rows | None = None
    mood: Rows | None = None
    sentence: Rows | None = None
    voice: Rows | None = None
    own: Mapping[str, Rows] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, frames: NDArray[np.integer] | list[int]) -> EmotionRows:
        """The given frames only."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("said", "own")}
        taken = {name: rows[frames] for name, rows in arrays.items() if rows is not None}
        return replace(self, **taken, own={name: rows[frames] for name, rows in self.own.items()})

    def refuse_own(self, who: str) -> None:
        """Raises ``EmotionError`` if an expert of one's own is called, by a maker that has no experts."""
        names = [name for name, strength in self.own.items() if strength.any()]
        if names:
            raise EmotionError(
                f"the emotion calls {', '.join(names)}, an expert that a talking-portrait model loads beside its six; "
                f"{who} has no experts: take the @name out, or use the model"
            )

    def inputs(self, known: tuple[str, ...] | list[str]) -> tuple[dict[str, Tensor], bool]:
        """(modality -> tensor, whether the text comes as features that an encoder of words must embed).

        ``known`` are the modalities of the model. A text is turned into labels and units where a model has no ear for
        text, its say and theirs as one. What else it does not know is an ``EmotionError``.
        """
        from ..motion.expression import detector_units

        given: dict[str, Rows] = {}
        units = detector_units(self.units)
        for name in self.said:
            if name == "text" and name not in known:
                given["label"] = self.vectors
                if self.units.any():
                    if "action_units" not in known:
                        raise EmotionError(
                            "the text tells parts of the face to move, and this model was not trained on action units; "
                            "name feelings alone, or choose another model"
                        )
                    given["action_units"] = units
                continue
            text = self.text if self.sentence is None else self.sentence
            audio = self.mood if self.voice is None else self.voice
            rows = {"label": self.labels, "action_units": units, "text": text, "audio": audio}[name]
            if rows is not None:
                given[name] = rows
        for name in given:
            if name not in known:
                raise EmotionError(
                    f"this model was not trained on {name.replace('_', ' ')}; it takes emotion as {', '.join(known)}"
                )
        tensors = {name: torch.from_numpy(np.ascontiguousarray(rows)) for name, rows in given.items()}
        return tensors, "text" in given and self.sentence is None


@dataclass(frozen=True, kw_only=True)
class EmotionSignals:
    """See the module's docstring. All tensors have the same N."""

    inputs: dict[str, Tensor]
    vectors_N8: Tensor
    units_N20: Tensor | None = None
    own: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {name: len(value) for name, value in self.inputs.items()} | {"vectors_N8": len(self.vectors_N8)}
        if self.units_N20 is not None:
            rows["units_N20"] = len(self.units_N20)
        rows |= {name: len(value) for name, value in self.own.items()}
        if len(set(rows.values())) != 1:
            raise ValueError(f"EmotionSignals: every part has a row per frame, got {rows}")

    @staticmethod
    def of_labels(vectors_N8: Tensor) -> EmotionSignals:
        """Emotion vectors alone."""
        return EmotionSignals(inputs={"label": vectors_N8}, vectors_N8=vectors_N8)
