"""DICE-Talk's socket types, and what travels through them.

Shapes: P prior width, T frames, Z h w latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from comfy_api.latest import io
from numpy.typing import NDArray

from ..moee_core.audio.whisper import WhisperFeatures
from ..moee_core.emotion.priors import Prior, prior_track
from ..moee_core.emotion.source import EmotionSource
from ..moee_core.emotion.vocabulary import NEUTRAL
from ..moee_core.systems.dice_talk import DiceConfig

DiceEncodersSocket = io.Custom("MOEE_DICE_ENCODERS")
DicePriorSocket = io.Custom("MOEE_DICE_PRIOR")
Interpolation = io.Custom("MOEE_INTERPOLATION")
"""Carries a patcher of a ``FrameInterpolator``."""
CLIP_SHOWN = "moee_clip"
"""In a LATENT: the ``ClipShown`` whose frames these are. Core's samplers hand it on."""


@dataclass(frozen=True, kw_only=True)
class DiceEncoders:
    """The networks around the denoiser. ``around`` is a patcher of ``DiceTalkSystem(whole=False)``; ``ear`` hears with
    Whisper, or is a patcher of the small model's speech encoder; ``own_priors`` are those in the model's file by name,
    to which ``dice_models.known_priors`` adds the files beside it whenever an emotion is asked for."""

    config: DiceConfig
    key: str
    around: Any
    ear: WhisperFeatures | Any | None
    vae: Any
    clip_vision: Any
    licence: str
    own_priors: Mapping[str, Prior]
    sampling: dict[str, float] = field(default_factory=dict)
    image_size: int = 0
    """Pixels of a square portrait; 0 animates pictures of any shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DicePrior:
    """An emotion as priors: ``source`` by name and over time, or one ``prior`` that holds. ``known`` are the priors by
    name of the model that it was made for."""

    about: str
    known: Mapping[str, Prior]
    source: EmotionSource | None = None
    prior: Prior | None = None
    strength: float = 1.0

    def rows(self, frames: int, fps: float, mood: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(T, P), ``strength`` times as far from the neutral prior."""
        if self.prior is None:
            assert self.source is not None
            rows = prior_track(self.source, self.known, frames, fps, mood)
        else:
            rows = self.prior.mean[None].repeat(frames, axis=0)
        if self.strength == 1:
            return rows
        if NEUTRAL not in self.known:
            raise ValueError(
                "a strength other than 1 starts from the neutral prior, which this model has not; put neutral.npy into "
                "models/moee/dice_talk/priors, or set strength to 1"
            )
        neutral = self.known[NEUTRAL].mean
        return (neutral + self.strength * (rows - neutral)).astype(np.float32)

    def held(self) -> Prior:
        """The one prior this is. Raises ``ValueError`` where it changes over time."""
        said = self.source.timeline if self.source is not None else None
        if self.source is not None and (said is None or len(said.keys) != 1):
            raise ValueError(
                "this emotion changes over time or is heard in the voice, a file holds one prior; save a single "
                "emotion or blend"
            )
        priors = self.known.values() if self.prior is None else [self.prior]
        # a file that was saved so is among them the next time, and must not make its own licence longer
        licences = {part for prior in priors for part in prior.licence.split("; ")}
        deviation = None if self.prior is None or self.strength != 1 else self.prior.deviation
        mean = self.rows(1, 25.0)[0]
        return Prior(mean=mean, deviation=deviation, about=self.about, licence="; ".join(sorted(licences)))


@dataclass(frozen=True, kw_only=True)
class ClipShown:
    """Of which recording some latents are the frames: ``samples`` at ``sample_rate``, drawn at ``fps`` a second."""

    samples: int
    sample_rate: int
    fps: float
