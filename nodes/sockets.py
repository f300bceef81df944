"""The socket types of the pack, and the objects that travel through them.

MODEL, VAE, IMAGE, AUDIO, LATENT, VIDEO and CONDITIONING are ComfyUI's own. Ours are frozen: a node does not change what
it was given.

Shapes: F video frames, Z latent channels, h latent side, T tokens of a site, S audio tokens, L D layers and width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..moee_core.audio.read import Waveform
from ..moee_core.emotion.frozen import FrozenEncoders
from ..moee_core.emotion.signals import EmotionRows
from ..moee_core.emotion.source import EmotionSource
from ..moee_core.networks.config import SystemConfig
from ..moee_core.renderer.points import FacePoints

Encoders = io.Custom("MOEE_ENCODERS")
Portrait = io.Custom("MOEE_PORTRAIT")
Speech = io.Custom("MOEE_SPEECH")
Emotion = io.Custom("MOEE_EMOTION")
"""Carries a ``moee_core.emotion.source.EmotionSource``."""
EmotionLatents = io.Custom("MOEE_EMOTION_LATENTS")
Face = io.Custom("MOEE_FACE")
MotionSocket = io.Custom("MOEE_MOTION")
"""Carries a ``moee_core.motion.coefficients.Motion``."""
LandmarksSocket = io.Custom("FACE_LANDMARKS")
"""ComfyUI's own, from its MediaPipe node; see ``moee_core/renderer/detector.py``."""


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """The networks around the denoiser, each in a patcher of its own, and what the checkpoint says of itself.

    ``frozen`` are encoders from folders of the user's, which are no part of the checkpoint.
    """

    config: SystemConfig
    key: str
    reference_net: Any
    speech: Any
    emotion: Any
    sampling: dict[str, float]
    domain: dict[str, float]
    frozen: FrozenEncoders = field(default_factory=FrozenEncoders)


@dataclass(frozen=True, kw_only=True)
class PortraitCondition:
    """(1, Z, h, h) latent of the portrait and (1, T, C) features of every site."""

    key: str
    latent: Tensor
    sites: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class SpeechFeatures:
    """(F, L, D) features, one row per video frame, and the recording they came from."""

    key: str
    features_FLD: Tensor
    fps: float
    waveform: Waveform

    @property
    def num_frames(self) -> int:
        return self.features_FLD.shape[0]


@dataclass(frozen=True, kw_only=True)
class EmotionTrack:
    """What is said of every frame, and by what."""

    key: str
    key_encoder: str
    rows: EmotionRows
    source: EmotionSource


@dataclass(frozen=True, kw_only=True)
class FaceOnPicture:
    """A portrait (H, W, 3) uint8 and where its face is."""

    key: str
    picture: np.ndarray
    points: FacePoints
